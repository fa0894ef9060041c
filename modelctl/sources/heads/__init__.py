"""A detector's outputs on sample pictures -> the family of its head, or a sentence that says why none fits.

    graph --arrangement--> batch axes, constants --trial--> outputs --recognition--> `Fit`: decoder, roles, settings

Each family is tried on shapes, names and values; `--decoder` names one, whose values are then believed.
"""

"""`modelctl bench`: measurements, each of which any machine can repeat.

    settings --copy of the repository--> a fresh Triton --callers--> figures, in rounds --> table, JSON, chart

Each setting gets a server of its own, and the settings take turns, so that what else runs on the machine hurts all
alike: believe the ratios before the figures.
"""

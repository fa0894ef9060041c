"""`modelctl bench`: measurements of a model that any machine can repeat; those of the project are in `benchmarks/`.

    settings --copy of the repository--> a fresh Triton --callers--> figures, in rounds --> table, JSON, chart

Each setting gets its own server. Settings take turns, so that other programs slow all of them alike: trust the ratios
more than the figures.
"""

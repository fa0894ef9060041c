"""`modelctl bench`: measurements of a model that any machine can repeat; those of the project are in `benchmarks/`.

    settings --copy of the repository--> a fresh Triton --callers--> figures, in rounds --> table, JSON, chart

Each setting gets a server of its own. Settings take turns, so that other programs of the machine slow all alike: trust
the ratios more than the figures.
"""

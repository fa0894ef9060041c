"""`modelctl lint`: reads a Triton model repository, and finds what Triton refuses, hangs on, or serves wrongly.

    folder --repository.read--> Repository of Models --rules/*.check--> Findings --report--> text, JSON, GitHub

One module in `rules` per subject holds its rules and one function `check(model)`. No server is started: what the
server does with each fault is measured by `tests/modelctl/lint`, with a broken repository and its proof for every rule.
"""

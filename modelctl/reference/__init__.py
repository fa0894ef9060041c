"""What a model must answer, computed without Triton, without `stages` and without `backends`.

    picture or text --pictures, tokens--> the network's inputs --network--> its outputs --answers--> labels or boxes

Nothing here is fast: it is read against the definitions, one item at a time, so that `modelctl verify` can trust it.
"""

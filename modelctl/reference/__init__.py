"""The answers that a model must give, computed without Triton, `stages` and `backends`.

    picture or text --pictures, tokens--> the network's inputs --network--> its outputs --answers--> labels or boxes

The code is slow and simple, one item at a time, so that it can be compared with the definitions: `modelctl verify`
depends on it.
"""

"""The three classes, in the order of the network's logits and of `labels.txt`."""

NEG, NEU, POS = 0, 1, 2
LABELS = ("negative", "neutral", "positive")

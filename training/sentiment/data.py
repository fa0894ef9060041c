"""Training, dev and test sets of the sentiment network; no training text is in a dev or test set."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.sentiment.readers import READERS, Row
from training.sentiment.synthetic import synthetic

TRAINED_ON = ("goemotions", "twitter_fin", "uci", "clothing")
DEV_ROWS = {"twitter_fin": 900, "uci": 250}  # set aside from the training rows; GoEmotions has a dev set
MEASURED_ONLY = {"phrasebank": "phrasebank_all", "tweeteval": "tweeteval_test", "sst": "sst_test"}


@dataclass
class Sets:
    """Rows by data set. The dev sets decide the learning rate and the averaging, and are never trained on."""

    train: dict[str, list[Row]]
    dev: dict[str, list[Row]]
    tests: dict[str, list[Row]]
    made: list[Row]  # written by rule


def read_sets(folder: Path, sentences: int, log) -> Sets:
    """Read all data sets below `folder` and generate `sentences` by rule."""

    def get(name, split):
        reader, subfolder = READERS[name]
        return reader(folder / subfolder, split)

    train = {n: get(n, "train") for n in TRAINED_ON}
    dev = {"goemotions": get("goemotions", "dev")}
    for n, k in DEV_ROWS.items():
        random.Random(1).shuffle(train[n])
        dev[n], train[n] = train[n][:k], train[n][k:]
    tests = {f"{n}_test": get(n, "test") for n in TRAINED_ON}
    for n, shown in MEASURED_ONLY.items():
        try:
            tests[shown] = get(n, "test")
        except (FileNotFoundError, StopIteration):
            log("skipped: no", n)
    sets = Sets(train, dev, tests, synthetic(sentences, 0))
    _drop_evaluation_rows(sets, log)
    return sets


def _drop_evaluation_rows(sets: Sets, log) -> None:
    """Remove the sentences of the dev and test sets from the training rows."""

    def clean(t):
        return re.sub(r"\W+", " ", re.sub(r"https?://\S+", "", t)).lower().strip()

    held = {clean(t) for rows in [*sets.tests.values(), *sets.dev.values()] for t, _ in rows}
    for n, rows in sets.train.items():
        kept = [(t, y) for t, y in rows if clean(t) not in held]
        log(
            f"train {n}: {len(kept)} rows, {len(rows) - len(kept)} dropped as duplicates of evaluation rows, "
            f"classes {np.bincount([y for _, y in kept], minlength=3).tolist()}"
        )
        sets.train[n] = kept
    sets.made = [(t, y) for t, y in sets.made if clean(t) not in held]

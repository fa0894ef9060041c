"""Reads the public data sets, which are not redistributed here (NOTICE has their licences). A row is (text, class).

A missing training set is an error; the caller skips a missing evaluation-only set.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

from training.sentiment.labels import LABELS, NEG, NEU, POS

Row = tuple[str, int]

# Grouping of the GoEmotions paper (Demszky et al. 2020, fig. 2).
_POSITIVE = {
    "admiration",
    "amusement",
    "approval",
    "caring",
    "desire",
    "excitement",
    "gratitude",
    "joy",
    "love",
    "optimism",
    "pride",
    "relief",
}
_NEGATIVE = {
    "anger",
    "annoyance",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "fear",
    "grief",
    "nervousness",
    "remorse",
    "sadness",
}


def read_goemotions(root: Path, split: str) -> list[Row]:
    """GoEmotions (Apache-2.0).  'ambiguous' emotions and contradictory rows are dropped."""
    names = (root / "labels.txt").read_text().split()
    rows: list[Row] = []
    with open(root / f"{split}.tsv", encoding="utf8") as f:
        for text, ids, *_ in csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
            emotions = {names[int(i)] for i in ids.split(",")}
            groups = {
                POS if e in _POSITIVE else NEG if e in _NEGATIVE else NEU if e == "neutral" else None for e in emotions
            }
            polar = [group for group in groups if group is not None and group != NEU]
            if len(polar) == 1:
                rows.append((text, polar.pop()))
            elif groups == {NEU}:
                rows.append((text, NEU))
    return rows


def read_twitter_fin(root: Path, split: str) -> list[Row]:
    """Twitter Financial News Sentiment (MIT): 0 bearish, 1 bullish, 2 neutral."""
    name = {"train": "sent_train.csv", "test": "sent_valid.csv"}[split]
    to = {"0": NEG, "1": POS, "2": NEU}
    with open(root / name, encoding="utf8") as f:
        return [(r["text"], to[r["label"]]) for r in csv.DictReader(f)]


def read_uci(root: Path, split: str) -> list[Row]:
    """UCI Sentiment Labelled Sentences (CC BY 4.0).  Fixed split: 600 test, the rest train."""
    rows: list[Row] = []
    for f in sorted(root.rglob("*_labelled.txt")):
        for line in f.read_text(encoding="utf8").split("\n"):
            if "\t" in line:
                text, y = line.rsplit("\t", 1)
                rows.append((text.strip(), POS if y.strip() == "1" else NEG))
    random.Random(0).shuffle(rows)
    return rows[:600] if split == "test" else rows[600:]


def read_clothing(root: Path, split: str) -> list[Row]:
    """Women's E-Commerce Clothing Reviews (CC0): 1-2 stars negative, 3 neutral, 4-5 positive; title and text."""
    rows: list[Row] = []
    with open(next(root.glob("*.csv")), encoding="utf8", errors="replace") as f:
        for r in csv.DictReader(f):
            try:
                stars = int(r["Rating"])
            except (TypeError, ValueError, KeyError):
                continue
            y = NEG if stars <= 2 else NEU if stars == 3 else POS
            title, text = (r.get("Title") or "").strip(), (r.get("Review Text") or "").strip()
            if text:
                rows.append(((title + ". " if title else "") + text, y))
    random.Random(0).shuffle(rows)
    return rows[:150] if split == "test" else rows[150:]


def read_phrasebank(root: Path, split: str) -> list[Row]:
    """Financial PhraseBank (non-commercial licence): EVALUATION ONLY."""
    with open(root / "all-data.csv", encoding="latin1") as f:
        return [(r[1], LABELS.index(r[0])) for r in csv.reader(f) if r and r[0] in LABELS]


def read_tweeteval(root: Path, split: str) -> list[Row]:
    """TweetEval sentiment test split: EVALUATION ONLY."""
    text = (root / f"{split}_text.txt").read_text(encoding="utf8").rstrip("\n").split("\n")
    label = (root / f"{split}_labels.txt").read_text().split()
    return list(zip(text, map(int, label), strict=True))


def read_sst(root: Path, split: str) -> list[Row]:
    """Stanford Sentiment Treebank sentences (no explicit licence): EVALUATION ONLY."""
    rows: list[Row] = []
    for line in (root / f"stsa.fine.{split}").read_text(encoding="latin1").split("\n"):
        if line[:1].isdigit():
            y = int(line[0])
            rows.append((line[2:], NEG if y < 2 else NEU if y == 2 else POS))
    return rows


# name -> (reader, sub-folder)
READERS: dict[str, tuple[Callable[[Path, str], list[Row]], str]] = {
    "goemotions": (read_goemotions, "goemotions"),
    "twitter_fin": (read_twitter_fin, "twitter_financial_news"),
    "uci": (read_uci, "uci_sentiment_labelled"),
    "clothing": (read_clothing, "clothing_reviews"),
    "phrasebank": (read_phrasebank, "financial_phrasebank_eval_only"),
    "tweeteval": (read_tweeteval, "tweeteval_eval_only"),
    "sst": (read_sst, "sst_eval_only"),
}

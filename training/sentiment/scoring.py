"""Accuracy, macro-F1 and confusion of logits against labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.sentiment.labels import NEG, NEU, POS


def score(logits: npt.NDArray[np.float32], labels: Sequence[int]) -> dict[str, Any]:
    """Accuracy, macro-F1 over the classes present in the labels, confusion matrix (rows: truth)."""
    p, y = logits.argmax(1), np.asarray(labels)
    cm = np.zeros((3, 3), int)
    np.add.at(cm, (y, p), 1)
    f1 = [2 * cm[c, c] / max(1, cm[c].sum() + cm[:, c].sum()) for c in range(3) if cm[c].sum()]
    return {
        "n": len(y),
        "accuracy": round(float((p == y).mean()), 4),
        "macro_f1": round(float(np.mean(f1)), 4),
        "confusion": cm.tolist(),
    }


def score_binary(logits: npt.NDArray[np.float32], labels: Sequence[int]) -> dict[str, Any]:
    """Accuracy of polarity: rows labelled neutral are dropped, and the larger of the two other logits decides."""
    y = np.asarray(labels)
    keep = y != NEU
    p = np.where(logits[keep, POS] > logits[keep, NEG], POS, NEG)
    return {"n": int(keep.sum()), "accuracy": round(float((p == y[keep]).mean()), 4)}

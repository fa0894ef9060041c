"""Sentiment (text classification): a text -> its label and all scores."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.tasks.base import Options, Result, Score, Task, Tensor, Tensors, scores, texts


class SentimentOptions(Options):
    """The query of `/v1/sentiment`."""


class LabelScore(BaseModel):
    """One label."""

    label: str
    score: Score


class Usage(BaseModel):
    """The tokens of the text."""

    tokens: Annotated[int, Field(description="Tokens that the model read, including special tokens.")]
    truncated: Annotated[bool, Field(description="Whether the text was longer than the model reads.")]


class Sentiment(Result):
    """The sentiment of one text."""

    label: str
    score: Score
    scores: list[LabelScore]
    usage: Usage


def decode(tensors: Tensors) -> dict[str, Any]:
    """Read `label` and `score` of shape [1, k], `token_count` and `truncated` of shape [1, 1]."""
    rows = [
        {"label": label, "score": score}
        for label, score in zip(texts(tensors["label"]), scores(tensors["score"]), strict=True)
    ]
    usage = {"tokens": int(tensors["token_count"][0, 0]), "truncated": bool(tensors["truncated"][0, 0])}
    return {**rows[0], "scores": rows, "usage": usage}


TASK = Task(
    name="text-classification",
    route="sentiment",
    summary="Read the sentiment of a text",
    input="text",
    outputs={
        "label": Tensor("STRING", (-1,)),
        "score": Tensor("FP32", (-1,)),
        "token_count": Tensor("INT32", (1,)),
        "truncated": Tensor("BOOL", (1,)),
    },
    options=SentimentOptions,
    result=Sentiment,
    decode=decode,
    example={
        "model": "minilm_sentiment",
        "version": "1",
        "request_id": "0190f3a2-7c1e-7b6a-9d54-3f1f0c9a8b21",
        "label": "positive",
        "score": 0.98,
        "scores": [
            {"label": "positive", "score": 0.98},
            {"label": "neutral", "score": 0.015},
            {"label": "negative", "score": 0.005},
        ],
        "usage": {"tokens": 14, "truncated": False},
    },
)

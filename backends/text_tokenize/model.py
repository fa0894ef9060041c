"""Texts -> the token ids of a text network; `stages.tokens` does the work.

Input: `text` STRING [n, 1], UTF-8. Outputs: `input_ids` and `attention_mask` INT64 [n, max_length], zero beyond the
text; `token_count` INT32 [n, 1] and `truncated` BOOL [n, 1]. Parameters of the config: `tokenizer`, a `tokenizer.json`
relative to the model repository; `max_length`, the most tokens that the network reads.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stages.config import StepConfig
from stages.serving import refuser, serve
from stages.tokens import Encoded, Tokens

REFUSE = refuser(pb_utils, "preprocess")


class TritonPythonModel:
    """The step as Triton sees it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer; a wrong config keeps the model from loading."""
        # A text takes 0.2 ms: the library's own threads would cost more than they save, and take the network's cores.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        config = StepConfig.of(args)
        self._tokens = Tokens(config.path("tokenizer"), config.integer("max_length", 1, 1_000_000))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, their texts tokenized in one call."""
        return serve(requests, read=_read, compute=self._tokens.encode, answer=_answer, refuse=REFUSE)


def _read(request: Any) -> list[bytes]:
    return list(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1))


def _answer(request: Any, texts: list[Encoded]) -> Any:
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.stack([getattr(text, name) for text in texts])) for name in Encoded._fields]
    )

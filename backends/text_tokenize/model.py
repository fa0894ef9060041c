"""Texts -> the token ids of a text network; `stages.tokens` does the work.

Input: `text` STRING [n, 1], UTF-8. Outputs, as far as the config lists them: `input_ids`, `attention_mask` and
`token_type_ids`, INT64 or INT32 [n, max_length], padded after the text; `token_count` INT32 [n, 1] and `truncated`
BOOL [n, 1]. Parameters of the config: `tokenizer`, a `tokenizer.json` relative to the model repository; `max_length`,
the network's limit of tokens; `pad_id`, the id after the text (0); `truncation_side`, the end at which longer texts
are cut (`right`).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from stages.config import ConfigError, StepConfig
from stages.serving import refuser, serve
from stages.tokens import SIDES, Encoded, Tokens

REFUSE = refuser(pb_utils, "preprocess")


class TritonPythonModel:
    """One instance of the step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer; raises ConfigError when the config is wrong, so that the model does not load."""
        # A text takes 0.2 ms: the library's own threads would cost more than they save, and slow the network down.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        config = StepConfig.of(args)
        self._types = {name: _type(name, tensor.data_type) for name, tensor in config.outputs.items()}
        self._tokens = Tokens(
            config.path("tokenizer"),
            config.integer("max_length", 1, 1_000_000),
            config.integer("pad_id", 0, 2**31 - 1, 0),
            config.choice("truncation_side", SIDES, "right"),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, their texts tokenized in one call."""
        return serve(requests, read=_read, compute=self._tokens.encode, answer=self._answer, refuse=REFUSE)

    def _answer(self, request: Any, texts: list[Encoded]) -> Any:
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.stack([getattr(text, name) for text in texts]).astype(data_type, copy=False))
                for name, data_type in self._types.items()
            ]
        )


def _type(name: str, data_type: str) -> Any:
    if name not in Encoded._fields:
        raise ConfigError(f"A tokenizer step has the outputs {', '.join(Encoded._fields)}, not '{name}'.")
    return pb_utils.triton_string_to_numpy(f"TYPE_{data_type}")


def _read(request: Any) -> list[bytes]:
    return list(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1))

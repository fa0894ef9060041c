"""Texts -> the token ids of a text network, by the Rust `tokenizers` library.

    bytes --read_text--> str --Tokens.encode--> str of bounded length --tokenizers--> ids and masks [n, max_length]

All texts are padded to one fixed length, because Triton batches only tensors of equal shape; the network itself cuts a
batch to its longest text. The library's own threads are off, because they would compete with the network for the cores
(see `TOKENIZERS_PARALLELISM` in the backend).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from stages.config import ConfigError
from stages.serving import RefusalError

# Tokenizing takes 0.3 s per megabyte, even for characters that truncation drops, and delays the other texts of the
# batch. So a text is cut before it is tokenized. Prose has 4 to 6 characters per token. Only words that the
# vocabulary cannot spell (one token each, however long) average more than 64; a text of them is reported as truncated.
CHARACTERS_PER_TOKEN: Final = 64

# Other white space is left alone: BERT's tokenizers, for one, drop some of it instead of splitting there.
_BLANKS: Final = " \t\n\r"
_RUN: Final = re.compile(f"[{_BLANKS}]+")
_PROBES: Final = (("a", "b"), ("the", "of"), ("1", "2"))
"""Pairs of words between which white space is tried out; short, so that most vocabularies hold them."""
_PROBED_LENGTHS: Final = (3, 4, 5, 8, 16, 64)

SIDES: Final = ("right", "left")
"""The ends at which a longer text can be cut."""


class Encoded(NamedTuple):
    """One text as the tensors of a network.

    Attributes:
        input_ids: INT64 [max_length], `pad_id` after the text.
        attention_mask: INT64 [max_length], 1 for tokens, 0 after the text.
        token_type_ids: INT64 [max_length], 0 for a single text.
        token_count: INT32 [1], number of tokens that the network reads, special tokens included.
        truncated: BOOL [1], whether the text was longer.

    """

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.int64]
    token_count: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]


def read_text(data: bytes) -> str:
    """Return the text of UTF-8 bytes.

    Raises:
        RefusalError: `malformed_request` when they are not UTF-8, `text_empty` when the text has only white space.

    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusalError("malformed_request", "The text is not valid UTF-8.") from None
    if not text or text.isspace():
        raise RefusalError("text_empty", "The text is empty.")
    return text


def shorten(text: str, limit: int, side: str, *, squeeze: bool) -> tuple[str, bool]:
    """Return the text cut to `limit` characters at its end `side`, and whether characters were cut off.

    With `squeeze`, each run of white space in a text that is too long first becomes one blank, so that white space does
    not displace words. Other texts are returned unchanged.
    """
    if len(text) <= limit:
        return text, False
    kept = _RUN.sub(" ", text) if squeeze else text
    return (kept[:limit] if side == "right" else kept[-limit:]), len(kept) > limit


def _ignores_runs(tokenizer: Tokenizer) -> bool:
    """Tell whether a run of white space gives the same tokens as one blank, between words and at a text's ends.

    That holds for WordPiece behind BERT's splitting, not for byte-level BPE, whose tokens keep white space. A
    tokenizer's file does not say it in one place, so it is tried out.
    """
    runs = [*_BLANKS, *map("".join, product(_BLANKS, repeat=2)), *(c * n for c in _BLANKS for n in _PROBED_LENGTHS)]
    for left, right in _PROBES:
        texts = [f" {left} {right} ", *(f"{run}{left}{run}{right}{run}" for run in runs)]
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        if any(one != ids[0] for one in ids):
            return False
    return True


class Tokens:
    """A tokenizer with a fixed length."""

    def __init__(self, path: Path, max_length: int, pad_id: int = 0, side: str = "right") -> None:
        """Load a `tokenizer.json`; its own padding and truncation settings are replaced.

        `side` is the end at which a longer text is cut, one of `SIDES`.

        Raises:
            ConfigError: the file is not a tokenizer, or `max_length` leaves no room beside the special tokens.

        """
        try:
            self._tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
        except Exception as error:  # noqa: BLE001 - the library raises plain Exception, and nothing narrower
            raise ConfigError(f"'{path.name}' is not a tokenizer: {error}") from None
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        if max_length <= self._special:
            raise ConfigError(f"max_length must be more than the {self._special} special tokens.")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._squeeze = _ignores_runs(self._tokenizer)
        self._tokenizer.enable_truncation(max_length, direction=side)
        self._side = side
        self._max_length = max_length
        self._pad_id = pad_id

    def encode(self, texts: Sequence[bytes]) -> list[Encoded | RefusalError]:
        """Return the tokens of each text, or its refusal; all texts are tokenized in one call.

        A refusal is `malformed_request` (not UTF-8) or `text_empty` (no tokens except the special ones).
        """
        read = [self._read(data) for data in texts]
        good = [one for one in read if not isinstance(one, RefusalError)]
        made = iter(self._tokenizer.encode_batch_fast([text for text, _ in good]))
        return [one if isinstance(one, RefusalError) else self._encoded(next(made), was_cut=one[1]) for one in read]

    def _read(self, data: bytes) -> tuple[str, bool] | RefusalError:
        try:
            limit = self._max_length * CHARACTERS_PER_TOKEN
            return shorten(read_text(data), limit, self._side, squeeze=self._squeeze)
        except RefusalError as refusal:
            return refusal

    def _encoded(self, encoding: Encoding, *, was_cut: bool) -> Encoded | RefusalError:
        ids = encoding.ids
        if len(ids) <= self._special:
            return RefusalError("text_empty", "The text has no readable characters.")
        input_ids = np.full(self._max_length, self._pad_id, np.int64)
        input_ids[: len(ids)] = ids
        mask, types = np.zeros((2, self._max_length), np.int64)
        mask[: len(ids)] = 1
        types[: len(ids)] = encoding.type_ids
        truncated = was_cut or bool(encoding.overflowing)
        return Encoded(input_ids, mask, types, np.array([len(ids)], np.int32), np.array([truncated]))

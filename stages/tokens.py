"""Texts -> the token ids of a text network, by the Rust `tokenizers` library.

    bytes --read_text--> str --shorten--> str of bounded length --Tokens.encode--> ids and masks [n, max_length]

All texts are padded to one fixed length, because Triton batches only tensors of equal shape; the network itself cuts a
batch to its longest text. The library's own threads are off, because they would compete with the network for the cores
(see `TOKENIZERS_PARALLELISM` in the backend).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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

_SPACE: Final = re.compile(r"\s+")


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


def shorten(text: str, limit: int) -> tuple[str, bool]:
    """Return the text cut to `limit` characters, and whether characters were cut off.

    In a text that is too long, each run of white space first becomes one blank, so that white space does not displace
    words. Other texts are returned unchanged.
    """
    if len(text) <= limit:
        return text, False
    squeezed = _SPACE.sub(" ", text.strip())
    return squeezed[:limit], len(squeezed) > limit


class Tokens:
    """A tokenizer with a fixed length."""

    def __init__(self, path: Path, max_length: int, pad_id: int = 0) -> None:
        """Load a `tokenizer.json`; its own padding and truncation settings are replaced.

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
        self._tokenizer.enable_truncation(max_length)
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
            return shorten(read_text(data), self._max_length * CHARACTERS_PER_TOKEN)
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

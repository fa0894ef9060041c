"""Texts become the token ids of the raw library, at one length, in bounded time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from stages.config import ConfigError
from stages.serving import RefusalError
from stages.tokens import CHARACTERS_PER_TOKEN, Encoded, Tokens, shorten

FILE = Path(__file__).resolve().parents[2] / "models/minilm_sentiment_preprocess/tokenizer.json"
LENGTH = 128
WORDS = [
    "good",
    "Überraschung",
    "profit",
    "warned",
    "😀",
    "中文",
    "x" * 130,
    "don't",
    "3.5%",
    "\n",
    "  ",
    "naïve",
    "[SEP]",
]


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    """The bundled tokenizer."""
    return Tokens(FILE, LENGTH)


@pytest.fixture(scope="module")
def raw() -> Tokenizer:
    """The library alone, without padding and truncation."""
    tokenizer = Tokenizer.from_file(str(FILE))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def good(result: Encoded | RefusalError) -> Encoded:
    """Return a result, which must not be a refusal."""
    assert isinstance(result, Encoded)
    return result


def test_ids_are_those_of_the_library(tokens: Tokens, raw: Tokenizer) -> None:
    """Short, long and strange texts in one call: the first 127 tokens and the closing one, then zeros."""
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(1, 300))) + " end" for _ in range(100)]
    cut = 0
    for text, result in zip(texts, tokens.encode([text.encode() for text in texts]), strict=True):
        expected = raw.encode(text).ids
        cut += len(expected) > LENGTH
        one = good(result)
        assert one.truncated.tolist() == [len(expected) > LENGTH]
        if len(expected) > LENGTH:
            expected = expected[: LENGTH - 1] + expected[-1:]
        assert one.token_count.tolist() == [len(expected)]
        assert one.input_ids.tolist() == expected + [0] * (LENGTH - len(expected))
        assert one.attention_mask.tolist() == [1] * len(expected) + [0] * (LENGTH - len(expected))
    assert 0 < cut < len(texts)


def test_types_are_those_of_the_tensors(tokens: Tokens) -> None:
    """INT64 three times, INT32, BOOL."""
    one = good(tokens.encode([b"good"])[0])
    assert [array.dtype for array in one] == [np.int64, np.int64, np.int64, np.int32, np.bool_]


@pytest.mark.parametrize(("words", "truncated"), [(LENGTH - 3, False), (LENGTH - 2, False), (LENGTH - 1, True)])
def test_a_text_that_just_fits_is_not_truncated(tokens: Tokens, words: int, truncated: bool) -> None:
    """Two positions are for the special tokens."""
    one = good(tokens.encode([b"good " * words])[0])
    assert (one.token_count.item(), one.truncated.item()) == (min(words + 2, LENGTH), truncated)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "text_empty"),
        (b" \n\t ", "text_empty"),
        ("\u3000\u00a0".encode(), "text_empty"),
        ("\u200b\x00".encode(), "text_empty"),
        (b"\xff\xfe", "malformed_request"),
        (b"caf\xc3", "malformed_request"),
    ],
)
def test_texts_without_content_are_refused_alone(tokens: Tokens, data: bytes, code: str) -> None:
    """White space, characters that the tokenizer drops, broken UTF-8; other texts are answered."""
    before, refused, after = tokens.encode([b"good", data, b"bad"])
    assert isinstance(refused, RefusalError)
    assert refused.code == code
    assert [good(before).token_count.item(), good(after).token_count.item()] == [3, 3]


def test_a_batch_of_refusals_is_not_an_error(tokens: Tokens) -> None:
    """No text is left to tokenize."""
    assert [refusal.code for refusal in tokens.encode([b"", b""]) if isinstance(refusal, RefusalError)] == [
        "text_empty",
        "text_empty",
    ]


@pytest.mark.parametrize("piece", ["word ", "a", "é", "中", "[SEP]", "!", "a\u0301", "x" * 90 + " ", "\u0315\u0300a"])
def test_a_megabyte_costs_milliseconds_and_is_truncated(tokens: Tokens, piece: str) -> None:
    """Without a bound, the library takes 0.3 s and the whole batch waits for it."""
    data = (piece * (1_000_000 // len(piece))).encode()
    started = time.process_time()
    one = good(tokens.encode([data])[0])
    assert time.process_time() - started < 0.2
    assert one.truncated.item()


def test_white_space_does_not_push_words_out(tokens: Tokens) -> None:
    """A text that is long only by its white space is read to its end."""
    spaced, plain = tokens.encode([b" " * 500_000 + b"good" + b"\n" * 500_000 + b"news", b"good news"])
    assert good(spaced).input_ids.tolist() == good(plain).input_ids.tolist()
    assert not good(spaced).truncated.item()


def test_shortening_leaves_short_texts_alone() -> None:
    """White space is squeezed and the rest cut only beyond the limit."""
    assert shorten("a  b", 4) == ("a  b", False)
    assert shorten("a   b", 4) == ("a b", False)
    assert shorten("abcde", 4) == ("abcd", True)


def test_prose_is_never_cut_by_the_bound(tokens: Tokens, raw: Tokenizer) -> None:
    """The bound leaves many times more prose than the network reads."""
    prose = "Quarterly earnings surprised even the most sceptical institutional shareholders. " * 200
    kept, was_cut = shorten(prose, LENGTH * CHARACTERS_PER_TOKEN)
    assert was_cut
    assert len(raw.encode(kept).ids) > 5 * LENGTH


def test_a_file_that_is_no_tokenizer_and_a_length_too_small_are_refused(tmp_path: Path) -> None:
    """The model must not load."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a tokenizer"):
        Tokens(tmp_path / "tokenizer.json", LENGTH)
    with pytest.raises(ConfigError, match="2 special tokens"):
        Tokens(FILE, 2)

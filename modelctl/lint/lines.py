"""Where a field stands in a text-format protobuf.

The parser of `google.protobuf.text_format` gives a line only when it fails, so the text is scanned a second time.
https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections import Counter

TOKEN = re.compile(r"""(?P<skip>\#.*|\s+)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<word>[\w.+-]+)|.""")
OPENS, CLOSES = frozenset("{<"), frozenset("}>")


def locate(text: str) -> dict[str, int]:
    """Return the line of every field's path, such as `input[1].dims` or `parameters["labels"]`.

    An index 0 is omitted (`input.dims`), as in `find`, so that repeated and single fields are found by the same path.
    """
    found: dict[str, int] = {}
    counts: Counter[str] = Counter()
    parents: list[tuple[str, str]] = []  # the prefix around each open message, and its field
    prefix, field, line = "", "", 1
    tokens = [match for match in TOKEN.finditer(text) if match["skip"] is None]
    afters = [*(match[0] for match in tokens), ""][1:]
    for token, after in zip(tokens, afters, strict=True):
        line = text.count("\n", 0, token.start()) + 1
        if token[0] in OPENS:
            here = f"{field}[{counts[field]}]"
            counts[field] += 1
            found.setdefault(_plain(here), line)
            parents.append((prefix, field))
            prefix = f"{here}."
        elif token[0] in CLOSES and parents:
            prefix, field = parents.pop()
        elif token["word"] and after in (":", "[", *OPENS):
            field = prefix + token[0]
            found.setdefault(_plain(field), line)
        elif token["string"] and field == f"{prefix}key":
            found.setdefault(f'{_plain(prefix[: prefix.rindex("[")])}["{token[0][1:-1]}"]', line)
    return found


def find(lines: dict[str, int], field: str) -> int | None:
    """Return the line of a field, or of the nearest message around it."""
    path = _plain(field)
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None


def _plain(path: str) -> str:
    return path.replace("[0]", "")

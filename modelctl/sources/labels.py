"""A file of class names, as people have them -> one name per class, in the network's order.

    text   one name a line, or numbered: `0 plane`, `0,tench`, `0: tench`; Python's {0: 'tench'}
    CSV    one column of names, or an index and a name, with or without a header
    JSON   a list; {"0": "a"}; {"a": 0}; either below names, labels, id2label or label2id; a list of {"id", "name"}
    YAML   as JSON; `names` of a data.yaml

Numbers decide the order, so they must be complete: from 0, or from 1 with as many names.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from modelctl.console import say
from modelctl.errors import CommandError

NUMBERED = re.compile(r"(\d+)\s*[\s,;:=]\s*(\S.*)")
CONTAINERS = ("names", "labels", "classes", "categories", "id2label", "label2id", "class_names")
INDEX_COLUMNS = ("id", "index", "class_id", "class_index", "classid", "idx", "number")
NAME_COLUMNS = ("name", "label", "class", "class_name", "classname", "labels", "names", "display_name", "category")
SHOWN = 3
"""How many faults a sentence names."""


def read(path: Path, *, quiet: bool = False) -> list[str]:
    """Return the names in a file, by its ending; print which names are repeated, unless `quiet`.

    Raises:
        CommandError: when the file cannot be read, a name is empty, or its numbers are not those of all classes.

    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The labels {path} cannot be read: {error}.") from error
    readers = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".csv": _csv, ".tsv": _csv}
    found = readers.get(path.suffix.lower(), _lines)(text, path)
    names = [" ".join(str(name).split()) for name in found]
    if not names:
        raise CommandError(f"The labels {path} hold no name: give one a class.")
    if "" in names:
        raise CommandError(f"The labels {path} have an empty name for the class {names.index('')}: give it one.")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated and not quiet:
        more = f" and {len(repeated) - SHOWN} more" if len(repeated) > SHOWN else ""
        quoted = ", ".join(f"'{name}'" for name in repeated[:SHOWN])
        say(f"      The labels name more than one class {quoted}{more}.")
    return names


def _lines(text: str, path: Path) -> Sequence[str]:
    if text.lstrip()[:1] in ("{", "["):  # Python's or JSON's text of a mapping, as ImageNet's names often come
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return _names(ast.literal_eval(text.strip()), path)
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "" in lines[:-1]:
        raise CommandError(
            f"The labels {path} have an empty line {lines.index('') + 1}: remove it, or give that class a name."
        )
    parts = [NUMBERED.fullmatch(line) for line in lines]
    if all(parts):
        numbers = [int(part[1]) for part in parts if part]
        if sorted(numbers) in _complete(len(numbers)) and not _are_counts([part[2] for part in parts if part]):
            return _ordered(dict(zip(numbers, (part[2] for part in parts if part), strict=True)), path)
    return [line for line in lines if line]


def _are_counts(names: Sequence[str]) -> bool:
    """Tell whether the numbers before names are part of them: `1 star`, `2 stars`."""
    return len(names) > 1 and len({name.casefold().removesuffix("s") for name in names}) == 1


def _complete(count: int) -> list[list[int]]:
    return [list(range(first, first + count)) for first in (0, 1)]


def _ordered(named: Mapping[int, Any], path: Path) -> list[Any]:
    """Return names in the order of their numbers.

    Raises:
        CommandError: when a number is missing.

    """
    numbers = sorted(named)
    if numbers not in _complete(len(numbers)):
        end = min(numbers[-1], len(numbers) + SHOWN)
        missing = [number for number in range(end) if number not in named][:SHOWN]
        raise CommandError(
            f"The labels {path} have no name for {', '.join(map(str, missing))}: number every class, from 0."
        )
    return [named[number] for number in numbers]


def _csv(text: str, path: Path) -> Sequence[str]:
    """Return the names of a table: the column called like one of `NAME_COLUMNS`, else the last of one or two."""
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows = [[cell.strip() for cell in row] for row in reader if any(row)]
    if not rows:
        return []
    head = [cell.lower() for cell in rows[0]]
    has_head = any(cell in NAME_COLUMNS for cell in head)
    width = max(map(len, rows))
    if not has_head and width > 2:
        raise CommandError(
            f"The labels {path} have {width} columns and no header: leave index and name, or call a column name."
        )
    body = rows[1:] if has_head else rows
    named = [head.index(cell) for cell in NAME_COLUMNS if cell in head] if has_head else [width - 1]
    numbered = [head.index(cell) for cell in (*INDEX_COLUMNS, "") if cell in head] if has_head else [0] * (width == 2)
    if any(len(row) <= max(*named, *numbered, 0) for row in body):
        raise CommandError(f"The labels {path} have a row without a name: write every row as the first.")
    of_numbers = [at for at in named if all(row[at].isdecimal() for row in body)]  # `label,class_name`: 0,cat
    if len(of_numbers) < len(named):
        named, numbered = [at for at in named if at not in of_numbers], [*numbered, *of_numbers]
    name, index = named[0], next(iter(numbered), None)
    if index is None:
        return [row[name] for row in body]
    return _by_number([(row[index], row[name]) for row in body], path)


def _json(text: str, path: Path) -> Sequence[str]:
    try:
        return _names(json.loads(text), path)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"The labels {path} are not JSON: {error}.") from error


def _yaml(text: str, path: Path) -> Sequence[str]:
    try:
        data = YAML(typ="safe").load(text)
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CommandError(f"The labels {path} are not YAML: {' '.join(str(error).split())[:200]}.") from error
    return _names(data, path)


def _names(data: Any, path: Path) -> list[Any]:
    """Return the names in a list, or in a mapping from or to numbers."""
    if isinstance(data, Mapping):
        inside = next((data[key] for key in CONTAINERS if isinstance(data.get(key), list | dict)), None)
        if inside is not None:
            return _names(inside, path)
        pairs = list(data.items())
        if pairs and all(isinstance(value, int) and not isinstance(value, bool) for _, value in pairs):
            pairs = [(value, key) for key, value in pairs]
        return _by_number([(key, _name(value, path)) for key, value in pairs], path)
    if isinstance(data, list):
        if data and all(isinstance(one, dict) and "id" in one and "name" in one for one in data):
            return _by_number([(one["id"], _name(one["name"], path)) for one in data], path)
        return [_name(one, path) for one in data]
    raise CommandError(f"The labels {path} hold {type(data).__name__}, not names: give a list, or numbers with names.")


def _name(value: Any, path: Path) -> str:
    """Return a name; of a pair (WordNet's id, name), as Keras's file of ImageNet has it, the second."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return str(value[1])
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise CommandError(f"The labels {path} hold {str(value)[:60]!r} for a name: give text.")


def _by_number(pairs: Sequence[tuple[Any, str]], path: Path) -> list[Any]:
    """Return names in the order of their numbers, which may be text.

    Raises:
        CommandError: when a key is not a number, comes twice, or one is missing.

    """
    named: dict[int, str] = {}
    for key, name in pairs:
        if not str(key).strip().isdecimal():
            raise CommandError(f"The labels {path} have '{str(key)[:60]}' where a class's number belongs.")
        if int(key) in named:
            raise CommandError(f"The labels {path} number two classes {int(key)}: number each once.")
        named[int(key)] = name
    return _ordered(named, path) if named else []

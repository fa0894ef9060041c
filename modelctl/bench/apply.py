"""Writes a recommended setting into `model.yaml`: a few numbers change, and every other byte stays as it is.

model.yaml --positions of its keys--> the same text with other numbers --checked--> model.yaml --> configurations
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from modelctl.bench.copy import Setting
from modelctl.errors import CommandError
from modelctl.models import rendering
from modelctl.models import spec as specs
from modelctl.models.spec import FILE

Changes = Mapping[tuple[str, ...], int]
"""Path of a key -> its new value."""


def changes(setting: Setting, *, plans: bool) -> Changes:
    """Return the keys of `model.yaml` for a setting, with their values; with TensorRT plans, the plan's instances."""
    made = {
        ("network", "batching", "max_batch_size"): setting.batch,
        ("network", "batching", "queue_delay_us"): setting.delay_us,
        ("network", "tensorrt" if plans else "instances", "instances" if plans else "count"): setting.count,
    }
    return {path: value for path, value in made.items() if value is not None}


def block(values: Changes) -> str:
    """Return the part of a `model.yaml` that has these values, as text."""
    parts: dict[str, list[str]] = {}
    for (_, part, key), value in values.items():
        parts.setdefault(part, []).append(f"{key}: {value}")
    return "\n".join(["network:", *(f"  {part}: {{{', '.join(keys)}}}" for part, keys in parts.items())])


def check(models: Path, name: str) -> None:
    """Raise CommandError when a model has no `model.yaml`, or configurations that do not match it."""
    if not (models / name / FILE).is_file():
        raise CommandError(f"{name} has no {FILE} to write to: omit --apply, and change its config.pbtxt.")
    differing = rendering.differing(specs.read(models / name / FILE), models)
    if differing:
        raise CommandError(f"{differing[0][0]} does not match {FILE}: run modelctl render {name} first.")


def write(models: Path, name: str, values: Changes) -> None:
    """Change `model.yaml` and render it.

    Raises:
        CommandError: when that fails; the file then stays as it was.

    """
    path = models / name / FILE
    before = path.read_bytes()
    after = changed(before.decode(), values)
    try:
        path.write_bytes(after.encode())
        rendering.write(specs.read(path), models)
    except (OSError, CommandError) as error:
        path.write_bytes(before)
        raise CommandError(f"{path} stays as it was: {error}") from error


def changed(text: str, values: Changes) -> str:
    """Return the text of a YAML file with other values.

    Raises:
        CommandError: when the file's layout does not allow a change that keeps everything else.

    """
    expected = _load(text)
    for path, value in values.items():
        place = expected
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
        text = _put(text, path, value)
    if _load(text) != expected:
        raise CommandError(f"The layout of {FILE} does not allow a safe change: write the block yourself.")
    return text


def _load(text: str) -> Any:
    try:
        return _unshared(YAML(typ="safe").load(text))
    except Exception as error:
        raise CommandError(f"The {FILE} cannot be changed: {error}") from error


def _unshared(data: Any) -> Any:
    """Return a copy whose parts are not shared, as YAML's anchors share them."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(value) for value in data] if isinstance(data, list) else data


def _put(text: str, path: tuple[str, ...], value: int) -> str:
    """Write one value: over the old one, or as a new key at the end of the deepest mapping that is there."""
    node = YAML().compose(text)
    for depth, key in enumerate(path):
        found = _value(node, key)
        if found is None:
            assert isinstance(node, MappingNode)  # noqa: S101 - the spec refuses anything else
            return _added(text, node, path[depth:], value)
        node = found
    return f"{text[: node.start_mark.index]}{value}{text[node.end_mark.index :]}"


def _value(node: Node, key: str) -> Node | None:
    pairs = node.value if isinstance(node, MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _added(text: str, mapping: MappingNode, keys: tuple[str, ...], value: int) -> str:
    entry = str(value)
    for key in reversed(keys[1:]):
        entry = f"{{{key}: {entry}}}"
    entry = f"{keys[0]}: {entry}"
    if not mapping.value:
        start = mapping.start_mark.index + 1
        return f"{text[:start]}{entry}{text[start:]}"
    if mapping.flow_style:
        end = mapping.value[-1][1].end_mark.index
        return f"{text[:end]}, {entry}{text[end:]}"
    column = mapping.value[0][0].start_mark.column
    end = text.find("\n", _end(mapping))  # after a comment on the same line
    end = len(text) if end < 0 else end
    return f"{text[:end]}\n{' ' * column}{entry}{text[end:]}"


def _end(node: Node) -> int:
    """Return where a node's last scalar or bracket ends; ruamel ends a block only where the next one begins."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, MappingNode) else last)
    end: int = node.end_mark.index
    return end

"""A model on its way into the repository."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelctl.errors import CommandError
from modelctl.reference.model import Arrays
from modelctl.spec import ModelSpec

HUB = "hf:"


@dataclass
class Draft:
    """What a source has found.

    Attributes:
        spec: complete but for the network's checksum and the canary.
        network: the ONNX file, in the working folder.
        labels: of the network's classes; empty for a tensor model.
        tokenizer: `tokenizer.json`, for a text model.
        original: the network as its own framework runs it, by parts; what the ONNX is compared with.
        extra: more files for the network's version folder, by name.
        notes: sentences for the model card and the screen.

    """

    spec: ModelSpec
    network: Path
    labels: list[str]
    tokenizer: Path | None = None
    original: Callable[[Arrays], Arrays] | None = None
    extra: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """What the user asked for.

    Attributes:
        source: as given, or as a recipe names it.
        name: of the model.
        options: the command's other options; None where not given.
        work: an empty folder for files on the way.

    """

    source: str
    name: str
    options: argparse.Namespace
    work: Path


def labels_of(path: Path, classes: int | None) -> list[str]:
    """Return the lines of a labels file; a network with one class more than labels has a background before them.

    Raises:
        CommandError: when their number does not fit.

    """
    try:
        labels = [line.strip() for line in path.read_text("utf-8").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The labels {path} cannot be read: {error}.") from error
    if "" in labels:
        raise CommandError(f"The labels {path} have an empty line {labels.index('') + 1}.")
    if classes == len(labels) + 1:
        labels.insert(0, "background")
    if classes not in (None, len(labels)):
        raise CommandError(f"The network has {classes} classes, {path} has {len(labels)} labels: give one a line.")
    return labels

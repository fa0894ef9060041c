"""Rules about files and folders: what Triton looks for, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from modelctl.lint.repository import VERSION, Model, Repository
from modelctl.lint.rule import CONFIGURATION, LAYOUT, MEASURED, PROTO, Finding, Rule

# The files that a backend loads when the config names none; PyTorch's takes TorchScript or a Python module.
MODEL_FILES = {
    **{"onnxruntime": ("model.onnx",), "python": ("model.py",), "openvino": ("model.xml",)},
    "pytorch": ("model.pt", "model.py"),
}

UNREADABLE = Rule(
    code="TG001",
    title="The config cannot be read",
    severity="error",
    evidence="refuses",
    why="Triton's parser accepts no unknown fields, unknown values or repeated single fields; its log says only "
    "'failed to read text proto', without a line.",
    fix="Correct the line; the fields are those of model_config.proto.",
    source=PROTO,
)
NAME = Rule(
    code="TG002",
    title="The folder is not named as the model",
    severity="error",
    evidence="refuses",
    why="Triton knows a model by its folder, and refuses a config that says another name.",
    fix="Rename the folder, or change `name`, or omit `name`: Triton then uses the folder's name.",
    source=LAYOUT,
)
NO_VERSION = Rule(
    code="TG003",
    title="There is no version to load",
    severity="error",
    evidence="refuses",
    why="Every model needs a folder named by a number that its version_policy admits, an ensemble too, although "
    "the folder stays empty.",
    fix="Make the folder `1` (for git with a file `.gitkeep` in it), or correct version_policy.",
    source=LAYOUT,
)
STRAY = Rule(
    code="TG004",
    title="A folder beside the models is not a model",
    severity="error",
    evidence="refuses",
    why="Unless it is started with --model-control-mode=explicit, Triton tries every folder in the repository as a "
    "model, hidden ones too, and exits when one fails.",
    fix="Move it out of the repository.",
    source=f"{MEASURED}: a folder of notes, or .git, keeps the server from starting",
)
NO_MODEL_FILE = Rule(
    code="TG005",
    title="The model's file is missing",
    severity="error",
    evidence="refuses",
    why="A backend loads `<version>/<default_model_filename>`, or its own default name. Without its model.py the "
    "Python backend of 24.10 does not even refuse: loading never ends.",
    fix="Put the file there, or name the one that is there by `default_model_filename`.",
    source=LAYOUT,
)
VERSION_NAME = Rule(
    code="TG006",
    title="A version folder is ignored",
    severity="warning",
    evidence="serves wrongly",
    why="A version is a number without leading zeros; Triton passes over `01` and `v2`, and serves an older version.",
    fix="Rename the folder to the bare number.",
    source=LAYOUT,
)
GIT_DROPS = Rule(
    code="TG007",
    title="Git drops the version folder",
    severity="warning",
    evidence="refuses",
    why="Git keeps no empty folders: in a clone the version folder is missing, and Triton refuses the model.",
    fix="Put an empty file `.gitkeep` into it.",
    source="https://git-scm.com/docs/gitfaq#Documentation/gitfaq.txt-HowdoIcommitanemptydirectory",
)
COMPLETED = Rule(
    code="TG008",
    title="The config is left to auto-complete",
    severity="warning",
    evidence="refuses",
    why="--disable-auto-complete-config, as `modelctl serve` uses, switches auto-completion off. Then Triton refuses a "
    "folder without config.pbtxt, a network with inputs that the config lacks, and an ensemble over a step without "
    "tensors; a Python model without them loads and takes no input.",
    fix="Write config.pbtxt with its inputs and outputs. To see what Triton would complete, start tritonserver without "
    "that option and read the config with tritonclient's `get_model_config`.",
    source=f"{CONFIGURATION}#auto-generated-model-configuration; {MEASURED}",
)
RULES = (UNREADABLE, NAME, NO_VERSION, STRAY, NO_MODEL_FILE, VERSION_NAME, GIT_DROPS, COMPLETED)


def check_folder(repository: Repository) -> Iterator[Finding]:
    """Check the folders beside the models."""
    for path in repository.strays:
        sentence = f"'{path.name}' is not a model: it has no config.pbtxt, and Triton tries to load it."
        yield Finding(STRAY, path.name, path, "", None, sentence)
    for path in repository.bare:
        sentence = f"'{path.name}' has no config.pbtxt, which is left to auto-complete."
        yield Finding(COMPLETED, path.name, path, "", None, sentence)


def check(model: Model) -> Iterator[Finding]:
    """Check one model's folder."""
    name = model.message.name
    if name and name != model.name:
        yield model.finding(NAME, f"The folder is '{model.name}', the config says '{name}'.", "name")
    kinds = [f"{kind}s" for kind in ("input", "output") if model.is_completed(kind)]
    if kinds:
        sentence = f"Its {' and '.join(kinds)} are left to auto-complete."
        yield model.finding(COMPLETED, sentence, kinds[0].removesuffix("s"))
    yield from _versions(model)
    yield from _model_file(model)


def _versions(model: Model) -> Iterator[Finding]:
    folders = [path for path in sorted(model.folder.iterdir()) if path.is_dir()]
    for path in folders:
        if re.fullmatch(r"[vV]?\d+", path.name) and not VERSION.fullmatch(path.name):
            sentence = f"The folder '{path.name}' is not a version to Triton, which ignores it."
            yield Finding(VERSION_NAME, model.name, path, "", None, sentence)
        elif VERSION.fullmatch(path.name) and not any(path.iterdir()) and _in_git(path):
            sentence = f"The folder '{path.name}' is empty: git drops it, and a clone does not load."
            yield Finding(GIT_DROPS, model.name, path, "", None, sentence)
    if not model.versions:
        policy = "that the version_policy admits" if model.message.HasField("version_policy") else "such as 1"
        yield model.finding(NO_VERSION, f"There is no version folder {policy}.", "version_policy")


def _model_file(model: Model) -> Iterator[Finding]:
    if model.backend == "tensorrt":  # rules/tensorrt.py: a plan is often built later, on the machine that serves it
        return
    given = model.message.default_model_filename
    names = (given,) if given else MODEL_FILES.get(model.backend, ())
    for version in model.versions if names else ():
        name = names[0]
        if model.backend == "onnxruntime" and (model.folder / str(version) / name).is_dir():
            names = (f"{name}/model.onnx",)
        if not any(model.has_file(version, one) for one in names):
            yield model.finding(NO_MODEL_FILE, f"There is no file {version}/{names[0]}.", "default_model_filename")


def _in_git(path: Path) -> bool:
    return any((parent / ".git").exists() for parent in path.resolve().parents)

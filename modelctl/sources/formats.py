"""Files that are not served as they are: what each holds, and the command that makes an ONNX file of it."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from modelctl.errors import CommandError

TF2ONNX = "python -m tf2onnx.convert"
KERAS = f"is of Keras: export it by model.export('folder') and {TF2ONNX} --saved-model folder --output model.onnx"
OTHERS = {
    ".h5": KERAS,
    ".keras": KERAS,
    ".pb": f"is of TensorFlow: convert it by {TF2ONNX} --graphdef FILE --output model.onnx --inputs X:0 --outputs Y:0",
    ".engine": "is a TensorRT plan, which fits one GPU and one version: add the ONNX file that it was made of, with "
    "--tensorrt",
    ".plan": "is a TensorRT plan, which fits one GPU and one version: add the ONNX file that it was made of, with "
    "--tensorrt",
    ".mlmodel": "is of Core ML: export the network that it was made of to ONNX",
    ".mlpackage": "is of Core ML: export the network that it was made of to ONNX",
    ".pkl": "is a pickle, whose reading would run its code: export the model to ONNX (scikit-learn: skl2onnx)",
    ".joblib": "is a pickle, whose reading would run its code: export the model to ONNX (scikit-learn: skl2onnx)",
    ".gguf": "is a language model of llama.cpp, which is not served here",
    ".pdmodel": "is of Paddle: convert it by paddle2onnx --model_dir . --model_filename FILE --save_file model.onnx",
}
"""By the file's ending: a sentence without its subject and its stop."""
WEIGHTS = (".safetensors", ".bin", ".ckpt")
"""Endings of files that hold weights without the network."""
BESIDE = "config.json"


def refuse_other(path: Path) -> None:
    """Raise CommandError for a file of a kind that must be exported first; it says how."""
    ending = path.suffix.lower()
    if ending in OTHERS:
        raise CommandError(f"{path} {OTHERS[ending].replace('FILE', path.name)}.")
    if ending in WEIGHTS:
        refuse_weights(path)


def refuse_weights(path: Path) -> None:
    """Raise CommandError for weights without a network."""
    if (path.parent / BESIDE).is_file():
        raise CommandError(
            f"{path} is a state_dict, weights without a network. The {BESIDE} beside it describes the network: "
            f"give the folder, {path.parent}."
        )
    raise CommandError(
        f"{path} is a state_dict, weights without a network: load it into its network in Python and export that first "
        "(torch.onnx.export), then add the .onnx file."
    )


def refuse_pickle(path: Path) -> None:
    """Raise CommandError for a file of PyTorch that holds no network which can be exported without its own code.

    The file is read, never unpickled: the names of what it would import tell what it is.
    """
    modules = _imports(path)
    if modules is None or any(name.partition(".")[0] in ("ultralytics", "models") for name in modules):
        return  # of Ultralytics: `models` is what YOLOv5 called its package
    foreign = sorted(
        name for name in modules if name.partition(".")[0] not in ("torch", "collections", "numpy", "_codecs")
    )
    layers = [name for name in modules if name.startswith(("torch.nn.modules", "torchvision"))]
    if foreign or layers:
        raise CommandError(
            f"{path} is a pickled network of {(foreign or layers)[0]}, whose reading would run its code: export it to "
            "ONNX (torch.onnx.export) or TorchScript (torch.jit.script) first."
        )
    refuse_weights(path)


def _imports(path: Path) -> set[str] | None:
    """Return the modules that a pickle of PyTorch names; None when it is no such file."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                return _modules(archive.read(name))
        with path.open("rb") as file:
            return _modules(file.read(1 << 24))
    except (OSError, StopIteration, ValueError, zipfile.BadZipFile, EOFError):
        return None


def _modules(data: bytes) -> set[str]:
    found: set[str] = set()
    texts: list[str] = []
    try:
        for code, value, _ in pickletools.genops(data):
            if code.name == "GLOBAL":
                found.add(str(value).partition(" ")[0])
            elif code.name == "STACK_GLOBAL" and len(texts) > 1:
                found.add(texts[-2])
            elif isinstance(value, str):
                texts.append(value)
    except ValueError:
        if not found:
            raise
    return found

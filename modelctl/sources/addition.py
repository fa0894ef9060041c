"""From any model to a served endpoint.

    source -> draft -> precision -> compare with the original -> write -> lint -> move -> load -> ask -> endpoint

Everything is made in a folder beside the repository and moved there when it has passed. Whatever fails, and Ctrl-C,
leaves the repository as it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelctl.console import say
from modelctl.embedded import running
from modelctl.embedded.ports import port_text
from modelctl.errors import CommandError
from modelctl.graphs import surgery
from modelctl.graphs.precision import LIMITS, convert
from modelctl.lint.linter import lint
from modelctl.models import spec as specs
from modelctl.models.spec import ModelSpec, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.models.tasks import TASKS
from modelctl.reference import served
from modelctl.reference.agreement import PIXELS, agreement
from modelctl.reference.model import Reference, onnx_run
from modelctl.sources import find, folders
from modelctl.sources.draft import Draft, Order

STEPS = ("read", "convert", "compare", "write", "check", "load", "ask")
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LEAST_OVERLAP = 0.7
"""Smallest intersection over union of a box before and after a conversion to fp16 or int8."""
OF_TASKS = ("labels", "activation", "resize", "scale", "mean", "std", "decoder", "tokenizer", "max_length")
"""Options that only models with a task have."""


def add(arguments: argparse.Namespace) -> int:
    """Add one model; return 0 when it is in the repository and, where a server runs, served."""
    source = find.expand(arguments.source, arguments)
    name = arguments.name or _name(source)
    if not re.fullmatch(specs.NAME, name):
        raise CommandError(f"'{name}' is no name for a model: give letters, digits, '_', '-' and '.' by --name.")
    ending = Ending()
    repository = arguments.models.resolve()
    if not repository.is_dir():
        raise CommandError(f"There is no model repository at {repository}: give its folder by --models.")
    taken = [other for other in _folders(name) if (repository / other).exists()]
    if taken:
        raise CommandError(f"{repository / taken[0]} is there: remove that model first, or give another --name.")
    with _workshop(repository) as work:
        return Addition(Order(source, name, arguments, work), repository, ending).run()


def _name(source: str) -> str:
    stem = Path(source.rpartition(":")[2].rstrip("/")).name
    stem = stem.removesuffix(Path(stem).suffix) if Path(stem).suffix in (".onnx", *find.TORCH_FILES) else stem
    return re.sub(r"[^a-z0-9_]+", "_", stem.lower()).strip("_")


def _folders(name: str) -> list[str]:
    return [name, *(f"{name}_{step}" for step in ("preprocess", "network", "postprocess"))]


@contextmanager
def _workshop(repository: Path) -> Iterator[Path]:
    """Yield an empty folder to build the model in, on the repository's file system if possible."""
    if not os.access(repository, os.W_OK):
        raise CommandError(f"{repository} cannot be written: let this user write there, or give another by --models.")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".modelctl-", dir=repository.parent))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="modelctl-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Ending:
    """Ctrl-C, and the signals that end the command like it.

    The first one raises KeyboardInterrupt where it arrives. Python drops what is raised while an object is finalized,
    as gRPC's are: `check` raises it again. Others that follow within `AGAIN_S` raise nothing, so that an impatient
    user does not interrupt the undoing before it has switched them off.
    """

    AGAIN_S = 2

    def __init__(self) -> None:
        self._came_at = -math.inf
        for number in ENDINGS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._come)

    def _come(self, *_: object) -> None:
        before, self._came_at = self._came_at, time.monotonic()
        # What libraries' half-made objects complain about, as they are thrown away, would follow our sentence.
        sys.unraisablehook = lambda _: None
        if self._came_at - before > self.AGAIN_S:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt when a signal has arrived."""
        if self._came_at > -math.inf:
            raise KeyboardInterrupt


class Addition:
    """One model on its way into the repository; errors name the step that failed."""

    def __init__(self, order: Order, repository: Path, ending: Ending) -> None:
        self._ending = ending
        self._order = order
        self._options = order.options
        self._repository = repository
        self._made = order.work / "repository"
        self._moved: list[Path] = []
        self._loaded = False
        self._step = ""
        self._lines: list[str] = []

    def run(self) -> int:
        """Do every step; undo them all when one fails."""
        try:
            self._all()
        except (CommandError, OSError) as error:
            raise CommandError(f"{self._where()}: {str(error).rstrip('.')}. {self._undo()}") from error
        except KeyboardInterrupt:
            raise CommandError(f"{self._where()}: stopped. {self._undo()}") from None
        except BaseException:
            self._undo()
            raise
        return 0

    def _all(self) -> None:
        self._begin("read", f"reading {self._order.source}")
        draft = find.draft(self._order)
        self._settle(draft)
        self._begin("convert", f"storing the network as {self._options.precision}")
        self._convert(draft)
        self._begin("compare", "comparing with the original")
        self._lines = self._compare(draft)
        self._begin("write", f"writing {', '.join(_written(draft.spec))}")
        spec = folders.write(draft, self._made, self._lines)
        self._begin("check", "checking the configurations")
        self._check()
        self._begin("load", "loading it into the running server")
        self._load(spec)
        self._ending.check()
        self._show(spec)

    def _settle(self, draft: Draft) -> None:
        """Hold the draft against what was asked for."""
        if isinstance(draft.spec, TensorModel) and self._options.task is None:
            given = [name for name in OF_TASKS if getattr(self._options, name) is not None]
            if given:
                options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
                raise CommandError(
                    f"The network's inputs and outputs fit no task, so {options} would have no effect: "
                    "give --task, or omit them to serve it by its tensors."
                )

    def _begin(self, step: str, text: str) -> None:
        self._ending.check()
        self._step = step
        say(f"[{STEPS.index(step) + 1}/{len(STEPS)}] {text}")

    def _where(self) -> str:
        return f"{self._order.name} was not added, at the step '{self._step}'"

    def _convert(self, draft: Draft) -> None:
        if self._options.precision != "fp32":
            self._lower(draft)
        outputs = draft.spec.network.outputs
        sizes = surgery.declare(draft.network, {tensor.name: tensor.dims or [] for tensor in outputs.values()})
        draft.spec = folders.with_sizes(draft.spec, sizes)

    def _lower(self, draft: Draft) -> None:
        if isinstance(draft.spec, TensorModel):
            raise CommandError("A tensor model is stored as it is: omit --precision.")
        reference = Reference(draft.spec, draft.labels, draft.tokenizer, onnx_run(draft.network, draft.spec))
        names = {role: tensor.name for role, tensor in draft.spec.network.inputs.items()}
        items = folders.items(draft.spec, self._options.examples)
        examples = [
            {names[role]: array for role, array in reference.inputs(item)[0].items()} for item in items.values()
        ]
        text = not isinstance(draft.spec.preprocess, ImagePreprocess)
        convert(draft.network, self._options.precision, examples, text=text)

    def _compare(self, draft: Draft) -> list[str]:
        """Hold the stored network against the original on our samples; return what the model card says of it."""
        if isinstance(draft.spec, TensorModel) or draft.original is None:
            return []
        stored = Reference(draft.spec, draft.labels, draft.tokenizer, onnx_run(draft.network, draft.spec))
        original = Reference(draft.spec, draft.labels, draft.tokenizer, draft.original)
        items = folders.items(draft.spec, None)
        limit = LIMITS[self._options.precision]
        pairs = {name: (stored.answer(item), original.answer(item)) for name, item in items.items()}
        found = agreement(pairs, draft.spec, limit)
        line = found.sentence()
        say(f"      {line}")
        apart = found.pixels > PIXELS if self._options.precision == "fp32" else found.overlap < LEAST_OVERLAP
        if found.score > limit or found.missing or found.best < found.items or apart:
            raise CommandError(f"The stored network differs too much ({line}; a score may differ by {limit}).")
        return [line]

    def _check(self) -> None:
        """Lint what was written; an error refuses it, a warning is shown."""
        _, found = lint(self._made)
        for line in dict.fromkeys(f"{one.rule.code} {one.model}: {one.sentence} {one.rule.fix}" for one in found):
            say(f"      {line}")
        errors = [finding for finding in found if finding.rule.severity == "error"]
        if errors:
            raise CommandError(f"modelctl lint finds an error in what was written: {errors[0].sentence}")

    def _move(self) -> None:
        for part in sorted(self._made.iterdir()):
            target = self._repository / part.name
            if target.exists():
                raise CommandError(f"{target} was made by somebody else meanwhile: give another --name.")
            self._moved.append(target)
            shutil.move(part, target)  # which copies where the repository is a file system of its own

    def _load(self, spec: ModelSpec) -> None:
        triton = running.reach(self._options.grpc_port)
        if triton is None:
            self._move()
            say("      no server runs: ./dev_start.sh serves it")
            return
        with triton:
            states = triton.states()
            foreign = [one for one in _written(spec) if one in states and not (self._repository / one).exists()]
            if foreign:
                raise CommandError(
                    f"The running server has a model {foreign[0]} from another repository: "
                    "give --name, --grpc-port or --models."
                )
            self._move()
            self._loaded = True
            triton.load(spec.name)
            if not isinstance(spec, TensorModel):
                self._begin("ask", "asking the served model")
                served.check(spec, self._repository, self._options.grpc_port)
                if not running.wait_for_gateway(spec.name):
                    say("      the gateway does not serve it yet: see GET /readyz")

    def _undo(self) -> str:
        """Unload and delete what was added; return a sentence on how things are now."""
        text = "The repository is as before."
        # A second Ctrl-C would leave half of it.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
        try:
            if self._loaded:
                running.unload_all(self._options.grpc_port, [path.name for path in self._moved])
        except CommandError as error:
            text += f" The running server may still hold the model ({str(error).rstrip('.')}): restart it."
        finally:
            for path in self._moved:
                shutil.rmtree(path, ignore_errors=True)
            for number, action in before.items():
                signal.signal(number, action)
        return text

    def _show(self, spec: ModelSpec) -> None:
        place = "served" if self._loaded else "in the repository"
        if isinstance(spec, TensorModel):
            base = f"grpc://127.0.0.1:{self._options.grpc_port}/{spec.name}"
        else:
            base = f"http://127.0.0.1:{port_text('GATEWAY_PORT')}/v1/{TASKS[spec.task].route}?model={spec.name}"
        if self._options.json:
            row = {"name": spec.name, "task": spec.task, "served": self._loaded, "url": base, "compared": self._lines}
            print(json.dumps(row, indent=2))
            return
        if isinstance(spec, TensorModel):
            print(
                f"{spec.name} is {place}. Its tensors: gRPC at 127.0.0.1:{self._options.grpc_port}, model {spec.name}"
            )
            return
        print(f"{spec.name} is {place}: POST {base}")
        if isinstance(spec.preprocess, ImagePreprocess):
            print(f"  curl -F image=@{self._options.models / spec.name / 'canary.jpg'} '{base}'")
        else:
            text = "The battery lasts for days."
            print(f"  curl -H 'Content-Type: application/json' -d '{{\"text\": \"{text}\"}}' '{base}'")


def _written(spec: ModelSpec) -> list[str]:
    return [spec.name] if isinstance(spec, TensorModel) else _folders(spec.name)

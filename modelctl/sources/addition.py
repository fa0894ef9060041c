"""From any model to a served endpoint.

    source -> draft -> precision -> compare with original -> judge -> write -> lint -> move -> load -> ask -> endpoint

All files are written in a folder beside the repository and moved into it once they have passed. A failure or Ctrl-C
leaves the repository as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelctl.console import say
from modelctl.embedded import running
from modelctl.embedded.ports import port_text
from modelctl.errors import CommandError
from modelctl.lint.linter import lint
from modelctl.models import spec as specs
from modelctl.models.spec import ModelSpec, TensorModel
from modelctl.models.steps import ImagePreprocess
from modelctl.models.tasks import TASKS
from modelctl.reference import served
from modelctl.reference import tensors as served_tensors
from modelctl.sources import conversion, expectations, find, folders, folding, judging, signals
from modelctl.sources.draft import Draft, Order, Sample

STEPS = ("read", "convert", "compare", "judge", "write", "check", "load", "ask")
NO_LOAD = "--no-load adds the model without an answer"


def add(arguments: argparse.Namespace) -> int:
    """Add one model; return 0 when it is served and has answered, or, with `--no-load`, is in the repository."""
    source = find.expand(arguments.source, arguments)
    name = arguments.name or _name(source)
    if not re.fullmatch(specs.NAME, name):
        raise CommandError(f"'{name}' is not a model name: give letters, digits, '_', '-' and '.' by --name.")
    stop = signals.StopRequest()
    repository = arguments.models.resolve()
    if not repository.is_dir():
        raise CommandError(f"There is no model repository at {repository}: give its folder by --models.")
    taken = [other for other in _folders(name) if (repository / other).exists()]
    if taken:
        raise CommandError(f"{repository / taken[0]} exists: remove that model first, or give another --name.")
    with _workshop(repository) as work:
        return Addition(Order(source, name, arguments, work), repository, stop).run()


def _name(source: str) -> str:
    stem = Path(source.rpartition(":")[2].rstrip("/")).name
    stem = stem.removesuffix(Path(stem).suffix) if Path(stem).suffix.lower() in find.FILES else stem
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


class Addition:
    """Adds one model, step by step; an error names the step that failed."""

    def __init__(self, order: Order, repository: Path, stop: signals.StopRequest) -> None:
        self._stop = stop
        self._order = order
        self._options = order.options
        self._repository = repository
        self._made = order.work / "repository"
        self._moved: list[Path] = []
        self._loaded = False
        self._step = ""
        self._lines: list[str] = []
        self._judgement = judging.Judgement()

    def run(self) -> int:
        """Do every step; undo them all when one fails. Return 0."""
        try:
            self._do_all()
        except (CommandError, OSError) as error:
            raise CommandError(f"{self._where()}: {str(error).rstrip('.')}. {self._undo()}") from error
        except KeyboardInterrupt:
            raise CommandError(f"{self._where()}: stopped. {self._undo()}") from None
        except BaseException:
            self._undo()
            raise
        return 0

    def _do_all(self) -> None:
        self._begin("read", f"reading {self._order.source}")
        draft = find.draft(self._order)
        if not self._options.no_load:  # before the long steps
            running.require(self._options.grpc_port, NO_LOAD).close()
        judging.doubt(draft)
        self._begin("convert", f"storing the network as {self._options.precision}")
        conversion.convert(draft, self._options.precision, self._options.examples)
        self._begin("compare", "comparing with the original")
        self._lines = conversion.compare(draft, self._options.precision)
        self._begin("judge", "answering the samples")
        self._judge(draft)
        if not self._options.no_fold:
            folding.fold(draft)  # last, because all before it speaks of the recipe that the user gave
        self._begin("write", f"writing {', '.join(_written(draft.spec))}")
        spec = folders.write(draft, self._made, self._lines)
        expectations.keep(self._judgement.wishes, self._made / spec.name)
        self._begin("check", "checking the configurations")
        self._check()
        self._begin("load", "loading it into the running server")
        self._load(spec, draft.sample)
        self._stop.check()
        self._show(spec)

    def _judge(self, draft: Draft) -> None:
        """Show what the draft answers, ask about its warnings, and note them and what is expected."""
        made = self._judgement = judging.judge(draft, self._options)
        judging.confirm(made.warnings, self._options)
        draft.notes += [f"Warning of `modelctl add`: {warning}" for warning in made.warnings]
        if made.wishes:
            draft.spec = draft.spec.model_copy(update={"expect": [wish.expected for wish in made.wishes]})

    def _begin(self, step: str, text: str) -> None:
        self._stop.check()
        self._step = step
        say(f"[{STEPS.index(step) + 1}/{len(STEPS)}] {text}")

    def _where(self) -> str:
        return f"{self._order.name} was not added, at the step '{self._step}'"

    def _check(self) -> None:
        """Lint the written files: refuse an error, show a warning."""
        _, found = lint(self._made)
        for line in dict.fromkeys(f"{one.rule.code} {one.model}: {one.sentence} {one.rule.fix}" for one in found):
            say(f"      {line}")
        errors = [finding for finding in found if finding.rule.severity == "error"]
        if errors:
            raise CommandError(f"modelctl lint finds an error in the written files: {errors[0].sentence}")

    def _move(self) -> None:
        for part in sorted(self._made.iterdir()):
            target = self._repository / part.name
            if target.exists():
                raise CommandError(f"{target} was made by another process meanwhile: give another --name.")
            self._moved.append(target)
            shutil.move(part, target)  # copies when the repository is on another file system

    def _load(self, spec: ModelSpec, sample: Sample | None) -> None:
        if self._options.no_load:
            self._move()
            say(f"      not loaded, as --no-load asks: modelctl load {spec.name} does it, and modelctl verify asks it")
            return
        with running.require(self._options.grpc_port, NO_LOAD) as triton:
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
            self._begin("ask", "asking the served model")
            self._ask(spec, sample)

    def _ask(self, spec: ModelSpec, sample: Sample | None) -> None:
        if not isinstance(spec, TensorModel):
            served.check(spec, self._repository, self._options.grpc_port)
            if not running.wait_for_gateway(spec.name):
                say("      the gateway does not serve it yet: see GET /readyz")
        elif sample is not None:
            port, steady = self._options.grpc_port, sample.is_steady
            said = served_tensors.check(spec.name, sample.given, sample.made, port, values=steady)
            say(f"      one random item gives {said}")

    def _undo(self) -> str:
        """Unload and delete the added model; return a sentence on the state of the repository and the server."""
        text = "The repository is as before."
        with signals.ignored():  # a second Ctrl-C would leave half of the model
            try:
                if self._loaded:
                    running.unload_all(self._options.grpc_port, [path.name for path in self._moved])
            except CommandError as error:
                text += f" The running server may still hold the model ({str(error).rstrip('.')}): restart it."
            finally:
                for path in self._moved:
                    shutil.rmtree(path, ignore_errors=True)
        return text

    def _show(self, spec: ModelSpec) -> None:
        place = "served" if self._loaded else "in the repository"
        if isinstance(spec, TensorModel):
            base = f"grpc://127.0.0.1:{self._options.grpc_port}/{spec.name}"
        else:
            base = f"http://127.0.0.1:{port_text('GATEWAY_PORT')}/v1/{TASKS[spec.task].route}?model={spec.name}"
        if self._options.json:
            row = {"name": spec.name, "task": spec.task, "served": self._loaded, "url": base, "compared": self._lines}
            print(json.dumps(row | self._judgement.as_object(), indent=2))
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

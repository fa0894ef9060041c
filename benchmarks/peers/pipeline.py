"""The three tasks in one process: the functions of the gateway's Triton steps (`stages`) around ONNX Runtime.

    pictures or texts --read--> inputs --one run of the network--> outputs --answer--> JSON-able answers

The facts about the models come from their `config.pbtxt`, as a JSON file that PEER_FACTS names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from stages import boxes, decoding, imaging, scores
from stages.config import StepConfig
from stages.decoders import Head
from stages.recipe import Recipe
from stages.serving import RefusalError
from stages.tokens import Tokens

Arrays = Mapping[str, npt.NDArray[Any]]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """Facts for a peer.

    Attributes:
        cores: number that it may keep busy.
        repository: the model repository.
        triton: address of Triton's gRPC, host:port.
        tasks: configs of each route's ensemble and of its steps, in Triton's JSON form.

    """

    cores: int
    repository: str
    triton: str
    tasks: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls) -> Facts:
        """Read the file that PEER_FACTS names."""
        return cls(**json.loads(Path(os.environ["PEER_FACTS"]).read_text("utf-8")))

    @property
    def workers(self) -> int:
        """Number of processes of a peer: PEER_WORKERS, by default one per core."""
        return int(os.environ.get("PEER_WORKERS", self.cores))

    @property
    def threads(self) -> int:
        """Number of threads of one run of a network: PEER_THREADS, by default 1."""
        return int(os.environ.get("PEER_THREADS", 1))

    @staticmethod
    def batch(default: int) -> int:
        """Largest batch of a peer, in requests: PEER_BATCH, by default the peer's own."""
        return int(os.environ.get("PEER_BATCH", default))

    def step(self, task: str, step: str) -> StepConfig:
        """Return the config of one step, as the step reads it."""
        return StepConfig.of(self._arguments(task, step))

    def _arguments(self, task: str, step: str) -> dict[str, str]:
        config = self.tasks[task][step]
        return {"model_config": json.dumps(config), "model_repository": f"{self.repository}/{config['name']}"}


def item(task: str, body: bytes) -> bytes:
    """Return the picture or the text of a request's body."""
    return str(json.loads(body)["text"]).encode() if task == "sentiment" else body


def port() -> int:
    """Return the port for this peer to listen on."""
    return int(os.environ["PEER_PORT"])


class Steps(Protocol):
    """The steps of a task before and after the network."""

    def read(self, items: Sequence[bytes]) -> list[Arrays]:
        """Return the arrays of each picture or UTF-8 text for the network and for `answer`; raises RefusalError."""

    def answer(self, outputs: Arrays, item: Arrays) -> Answer:
        """Return the answer of one item, from its part of the network's outputs."""


class Pipeline:
    """One task with a session of its own."""

    def __init__(self, facts: Facts, task: str) -> None:
        """Load the network."""
        self._steps: Steps = STEPS[task](facts, task)
        self._inputs, self._outputs = _links(facts.tasks[task])
        self._session = _session(facts, task)

    def __call__(self, items: Sequence[bytes]) -> list[Answer]:
        """Answer encoded pictures or UTF-8 texts, as one batch of the network."""
        read = self._steps.read(items)
        feed = {name: np.stack([item[made] for item in read]) for name, made in self._inputs.items()}
        made = self._session.run(list(self._outputs.values()), feed)
        return [
            self._steps.answer(dict(zip(self._outputs, rows, strict=True)), item)
            for *rows, item in zip(*made, read, strict=True)
        ]


class Pictures:
    """The step before a vision network."""

    def __init__(self, facts: Facts, task: str) -> None:
        config = facts.step(task, "preprocess")
        self._recipe = Recipe.from_parameters(config.parameters)
        names = (name for name in config.outputs if name not in ("image_size", "geometry"))
        self._tensor = next(names)
        self._type = imaging.DATA_TYPES[config.outputs[self._tensor].data_type]
        decoding.prepare_pillow(self._recipe.max_pixels)

    def read(self, items: Sequence[bytes]) -> list[Arrays]:
        """Decode, fit and normalise each picture."""
        return [self._one(item) for item in items]

    def _one(self, data: bytes) -> Arrays:
        image = decoding.upright_rgb(decoding.open_encoded(data, self._recipe.max_pixels), self._recipe.alpha)
        pixels, geometry = imaging.fit(image, self._recipe)
        make = imaging.arrange if self._type is np.uint8 else imaging.normalise
        return {
            self._tensor: make(pixels, self._recipe).astype(self._type, copy=False),
            "image_size": np.array(image.size, np.int32),
            "geometry": np.array(geometry, np.float32),
        }


class Classify(Pictures):
    """From pictures to their best labels."""

    def __init__(self, facts: Facts, task: str) -> None:
        super().__init__(facts, task)
        config = facts.step(task, "postprocess")
        self._labels = config.labels(config.inputs["logits"].dims[-1])
        self._activation = config.choice("activation", scores.ACTIVATIONS, "softmax")
        self._top_k = config.integer("top_k", 1, len(self._labels), 5)

    def answer(self, outputs: Arrays, item: Arrays) -> Answer:
        """Return the best labels."""
        ranking = scores.best(probabilities(outputs["logits"], self._activation), self._top_k)
        rows = zip(ranking.class_ids.tolist(), ranking.scores.tolist(), strict=True)
        predictions = [{"label": self._labels[index], "class_id": index, "score": score} for index, score in rows]
        return {"image": size(item), "predictions": predictions}


class Detect(Pictures):
    """From pictures to labelled boxes."""

    def __init__(self, facts: Facts, task: str) -> None:
        super().__init__(facts, task)
        config = facts.step(task, "postprocess")
        self._head = Head.of(config)
        self._labels = config.labels(self._head.classes(config))
        self._options = boxes.Options.from_config(config, self._labels)

    def answer(self, outputs: Arrays, item: Arrays) -> Answer:
        """Return the boxes, best first."""
        found = boxes.detect(
            outputs, self._head, self._options, item["geometry"], item["image_size"], len(self._labels)
        )
        rows = zip(found.boxes.tolist(), found.class_ids.tolist(), found.scores.tolist(), strict=True)
        predictions = [
            {"label": self._labels[index], "class_id": index, "score": score, "box": dict(zip(SIDES, box, strict=True))}
            for box, index, score in rows
        ]
        return {"image": size(item), "predictions": predictions}


class Sentiment:
    """From texts to all labels with their scores."""

    def __init__(self, facts: Facts, task: str) -> None:
        # As in the step: tokenizing one text takes less time than handing it to a thread.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokens = facts.step(task, "preprocess")
        length, pad = tokens.integer("max_length", 1, 1_000_000), tokens.integer("pad_id", 0, 2**31 - 1, 0)
        self._tokens = Tokens(tokens.path("tokenizer"), length, pad)
        config = facts.step(task, "postprocess")
        self._labels = config.labels(config.inputs["logits"].dims[-1])
        self._activation = config.choice("activation", scores.ACTIVATIONS, "softmax")

    def read(self, items: Sequence[bytes]) -> list[Arrays]:
        """Tokenize the texts in one call."""
        made: list[Arrays] = []
        for one in self._tokens.encode(items):
            if isinstance(one, RefusalError):
                raise one
            made.append(one._asdict())
        return made

    def answer(self, outputs: Arrays, item: Arrays) -> Answer:
        """Return the labels, best first."""
        ranking = scores.best(probabilities(outputs["logits"], self._activation), len(self._labels))
        rows = zip(ranking.class_ids.tolist(), ranking.scores.tolist(), strict=True)
        return sentiment([(self._labels[index], score) for index, score in rows], item)


STEPS: dict[str, Callable[[Facts, str], Steps]] = {"classify": Classify, "detect": Detect, "sentiment": Sentiment}
SIDES = ("xmin", "ymin", "xmax", "ymax")


def size(item: Arrays) -> dict[str, int]:
    """Return a picture's size, from its `image_size` [2]."""
    width, height = item["image_size"].tolist()
    return {"width": width, "height": height}


def sentiment(ranked: Sequence[tuple[str, float]], item: Arrays) -> Answer:
    """Return the answer about a text; `ranked` has its labels, best first, `item` its token_count and truncated [1]."""
    found = [{"label": label, "score": score} for label, score in ranked]
    usage = {"tokens": int(item["token_count"][0]), "truncated": bool(item["truncated"][0])}
    return {**found[0], "scores": found, "usage": usage}


def probabilities(logits: npt.NDArray[Any], activation: str) -> npt.NDArray[np.float32]:
    """Return the probabilities of one row of logits; raises RefusalError when they are not finite."""
    (row,) = scores.probabilities([logits], activation)
    if isinstance(row, RefusalError):
        raise row
    return row


def _links(configs: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the network's inputs by name with the outputs that feed them, and the last step's with the network's."""
    first, network, last = configs["ensemble"]["ensemble_scheduling"]["step"]
    return _link(first, network), _link(network, last)


def _link(giver: Mapping[str, Any], taker: Mapping[str, Any]) -> dict[str, str]:
    given = {tensor: name for name, tensor in giver["output_map"].items()}
    return {name: given[tensor] for name, tensor in taker["input_map"].items() if tensor in given}


def _session(facts: Facts, task: str) -> Any:
    """Return the network's session, with the gateway's settings except the number of threads."""
    config = facts.tasks[task]["network"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = facts.threads, 1
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    options.enable_mem_pattern = parameters.get("enable_mem_pattern", "true") == "true"
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = Path(facts.repository) / config["name"] / "1" / (config.get("default_model_filename") or "model.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

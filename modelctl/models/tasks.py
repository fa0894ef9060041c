"""The tasks that a `model.yaml` can name.

An entry of `TASKS` holds everything that `modelctl` knows about a task, except its class in `modelctl.models.spec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NO_TASK = "none"
"""The `task` of a network that is served without steps."""

Tensors = Mapping[str, tuple[str, list[int]]]  # name -> data type, dims without the batch
SIZE: Tensors = {"image_size": ("INT32", [2])}
GEOMETRY: Tensors = {"geometry": ("FP32", [4])}
RANKING: Tensors = {"label": ("STRING", [-1]), "class_id": ("INT32", [-1]), "score": ("FP32", [-1])}


@dataclass(frozen=True)
class Task:
    """One task: its route, a sample, and the tensors that its steps exchange.

    Attributes:
        route: what follows `/v1/` in the gateway's URL.
        input: what callers send, and the name of that tensor.
        sample: an input that shows the task: a picture's path in this repository, or a text.
        preprocess: the backend of the first step.
        extras: outputs of the preprocess step beside the network's inputs.
        postprocess: the backend of the last step.
        carried: the extras that the postprocess step reads.
        answer: outputs of the postprocess step.

    """

    route: str
    input: Literal["image", "text"]
    sample: str
    preprocess: str
    extras: Tensors
    postprocess: str
    carried: Tensors
    answer: Tensors

    @property
    def given(self) -> Tensors:
        """The ensemble's one input."""
        return {self.input: ("STRING", [1])}


TASKS: Mapping[str, Task] = {
    "image-classification": Task(
        route="classify",
        input="image",
        sample="docs/samples/coffee.jpg",
        preprocess="image_preprocess",
        extras=SIZE,
        postprocess="classification_postprocess",
        carried={},
        answer=RANKING,
    ),
    "object-detection": Task(
        route="detect",
        input="image",
        sample="docs/samples/astronaut.jpg",
        preprocess="image_preprocess",
        extras={**SIZE, **GEOMETRY},
        postprocess="detection_postprocess",
        carried={**GEOMETRY, **SIZE},
        answer={"box": ("FP32", [-1, 4]), **RANKING},
    ),
    "text-classification": Task(
        route="sentiment",
        input="text",
        sample="The pictures are sharp and the battery lasts for days.",
        preprocess="text_tokenize",
        extras={"token_count": ("INT32", [1]), "truncated": ("BOOL", [1])},
        postprocess="text_classification_postprocess",
        carried={},
        answer={"label": ("STRING", [-1]), "score": ("FP32", [-1])},
    ),
}
"""By the `task` in a `model.yaml`."""

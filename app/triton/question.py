"""One inference as the gateway sees it: a Question, made by a task's route, and the Answer to it.

route: Question -> scheduling -> servers -> client -> message (`app.triton.messages`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.context import Deadline
from app.errors import BatchFailedError, GatewayError
from app.tasks.base import Parameter, Tensors
from app.triton.served import ServedModel

LATE_S = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """One call of a model.

    Attributes:
        version: the model's version; None for the newest.
        items: encoded images or UTF-8 texts: one, or several that were coalesced.
        parameters: the options that the model's steps read.
        deadline: when nobody waits for the answer any more.
        late_s: seconds that the call may go on after the deadline, on a server where a cancelled call does harm. Then
            gRPC cancels it all the same.
        resent: whether it is sent once more, alone, because a batch with it has failed.

    """

    model: ServedModel
    version: str | None
    items: tuple[bytes, ...]
    parameters: Mapping[str, Parameter]
    request_id: str
    traceparent: str
    deadline: Deadline
    late_s: float = LATE_S
    resent: bool = False

    def may_suffer(self, error: GatewayError) -> bool:
        """Return whether the error may be the fault of an item that Triton has batched with this one."""
        return isinstance(error, BatchFailedError) and self.model.max_batch_size > 1 and not self.resent


def coalesced(questions: Sequence[Question]) -> Question:
    """Return one question for the items of all, which have the same model, version and parameters.

    It has the id and the trace of the first, and the earliest deadline.
    """
    first = questions[0]
    if len(questions) == 1:
        return first
    items = tuple(item for question in questions for item in question.items)
    return replace(first, items=items, deadline=min(question.deadline for question in questions))


class Answer:
    """The tensors of one inference, by name, and the version of the model that gave them."""

    def __init__(self, version: str, tensors: Tensors) -> None:
        self.version = version
        self.tensors = tensors

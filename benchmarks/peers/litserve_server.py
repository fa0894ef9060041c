"""The three tasks in LitServe: a queue and worker processes for each, one process per core with one thread.

Nothing is batched, which is LitServe's default: on a CPU, batches of up to 8 with a wait of up to 2 ms took more CPU
time per picture and no less per text. One process with two threads was not better than two with one.
"""

# LitServe reads the type of `decode_request`'s argument at run time: no postponed annotations here.

from typing import Annotated, Any

import litserve
from fastapi import Body
from pydantic import BaseModel

from benchmarks.peers.pipeline import Answer, Facts, Pipeline, port

MAX_BATCH, BATCH_TIMEOUT_S = 1, 0.002


class Text(BaseModel):
    """The body of a request about a text."""

    text: str


class Task(litserve.LitAPI):  # type: ignore[misc]  # a package of the peer's own environment
    """One task."""

    def __init__(self, task: str, max_batch: int) -> None:
        timeout = BATCH_TIMEOUT_S if max_batch > 1 else 0.0
        super().__init__(max_batch_size=max_batch, batch_timeout=timeout, api_path=f"/v1/{task}")
        self._task = task

    def setup(self, device: str) -> None:
        """Load the network, in each worker."""
        self._pipeline = Pipeline(Facts.read(), self._task)

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Leave batching to the pipeline."""
        return inputs

    def predict(self, x: Any) -> Any:
        """Answer a batch, or a single item when nothing is batched."""
        return self._pipeline(x) if isinstance(x, list) else self._pipeline([x])[0]

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """Return the answers one by one."""
        return output

    def encode_response(self, output: Answer) -> Answer:
        """Leave JSON to LitServe."""
        return output


class PictureTask(Task):
    """One task about pictures."""

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        """Return the body unchanged."""
        return request


class TextTask(Task):
    """One task about texts."""

    def decode_request(self, request: Text) -> bytes:
        """Return the text of the JSON body."""
        return request.text.encode()


if __name__ == "__main__":
    facts = Facts.read()
    tasks = [(TextTask if name == "sentiment" else PictureTask)(name, facts.batch(MAX_BATCH)) for name in facts.tasks]
    server = litserve.LitServer(tasks, accelerator="cpu", workers_per_device=facts.workers)
    server.run(host="127.0.0.1", port=port(), num_api_servers=1, generate_client_file=False, log_level="warning")

"""One bad item fails a whole batch of Triton, as with NVIDIA's backends, and through the gateway only itself."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

NAME = "fragile"
MISBEHAVING = Path(__file__).parents[1] / "standins" / "models" / "misbehaving"


@pytest.fixture
def fragile(stack: Any, http: httpx.Client) -> Iterator[str]:
    """Serve a classifier whose `execute` raises for one text, and whose requests of a tenth of a second are a batch."""
    folder = stack.models / NAME
    shutil.copytree(MISBEHAVING, folder)
    config = folder / "config.pbtxt"
    text = config.read_text().replace('"misbehaving"', f'"{NAME}"')
    single = "preferred_batch_size: 1 default_queue_policy { max_queue_size: 128 }"
    assert single in text
    config.write_text(text.replace(single, "max_queue_delay_microseconds: 100000"))
    with closing(stack.control()) as triton:
        triton.load(NAME)
        end = time.monotonic() + 10
        while http.post(f"/v1/sentiment?model={NAME}", json={"text": "a"}).status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        yield NAME
        triton.unload(NAME)
    shutil.rmtree(folder)


def test_the_other_items_of_a_failed_batch_are_answered(stack: Any, http: httpx.Client, fragile: str) -> None:
    """Callers, and items of one request, get their own answers; Triton itself fails them all."""
    texts = ["a", "b", "raise", "c", "d", "e"]

    def directly(text: str) -> bool:
        try:
            stack.infer(fragile, text=np.array([[text.encode()]], np.object_))
        except InferenceServerException:
            return False
        return True

    def code(text: str) -> int:
        return http.post(f"/v1/sentiment?model={fragile}", json={"text": text}).status_code

    with ThreadPoolExecutor(len(texts)) as pool:
        assert not any(pool.map(directly, texts))
        assert list(pool.map(code, texts)) == [502 if text == "raise" else 200 for text in texts]
    answer = http.post(f"/v1/sentiment/batch?model={fragile}", json={"texts": texts}).json()
    assert Counter("error" in row for row in answer["results"]) == {False: 5, True: 1}
    assert answer["results"][2]["error"]["code"] == "backend_error"

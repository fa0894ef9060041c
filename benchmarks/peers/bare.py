"""The upper bound: a process that reads, runs and answers in a loop, without a server. The command starts one per core.

Each line of standard input is a JSON list: task, file, seconds. It prints the number of its answers and the seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.peers.pipeline import Facts, Pipeline, item


def main() -> None:
    """Load every task, print `"ready"`, and carry out each line of standard input."""
    facts = Facts.read()
    pipelines = {task: Pipeline(facts, task) for task in facts.tasks}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        task, file, seconds = json.loads(line)
        print(json.dumps(loop(pipelines[task], task, Path(file).read_bytes(), seconds)), flush=True)


def loop(pipeline: Pipeline, task: str, body: bytes, seconds: float) -> dict[str, object]:
    """Answer the same request for `seconds`, at least once; write each answer as JSON, as a server does."""
    begun, count = time.perf_counter(), 0
    while True:
        written = json.dumps(pipeline([item(task, body)])[0]).encode()
        count += 1
        if time.perf_counter() - begun >= seconds:
            break
    return {"count": count, "seconds": time.perf_counter() - begun, "answer": json.loads(written)}


if __name__ == "__main__":
    main()

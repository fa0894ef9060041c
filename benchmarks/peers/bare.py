"""The limit: one process that reads, runs and answers in a loop, without any server. The command starts one a core.

Told on standard input, line by line, `TASK FILE SECONDS`; says how many answers it made in how many seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.peers.pipeline import Facts, Pipeline, item


def main() -> None:
    """Load every task, say so, and do what is asked."""
    facts = Facts.read()
    pipelines = {task: Pipeline(facts, task) for task in facts.tasks}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        task, file, seconds = json.loads(line)
        print(json.dumps(loop(pipelines[task], task, Path(file).read_bytes(), seconds)), flush=True)


def loop(pipeline: Pipeline, task: str, body: bytes, seconds: float) -> dict[str, object]:
    """Answer the same request for so long, at least once; as a server would, write each answer as JSON."""
    begun, count = time.perf_counter(), 0
    while True:
        written = json.dumps(pipeline([item(task, body)])[0]).encode()
        count += 1
        if time.perf_counter() - begun >= seconds:
            break
    return {"count": count, "seconds": time.perf_counter() - begun, "answer": json.loads(written)}


if __name__ == "__main__":
    main()

"""What the supervisor starts: processes that end with it, and that start at all."""

from __future__ import annotations

import subprocess
import sys

FORKS = """
import os, time
from modelctl.triton import Triton

Triton("127.0.0.1:1").is_live()
if os.fork() == 0:
    time.sleep(0.1)
    print(len(os.listdir("/proc/self/task")), flush=True)
    os._exit(0)
os.wait()
"""


def test_a_process_starts_after_calls_over_grpc() -> None:
    """gRPC's threads come back in a forked process, and may abort it before it is another; modelctl keeps them away."""
    result = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n", result.stderr

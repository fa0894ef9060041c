"""Processes that the supervisor starts: they end with it, and they do start."""

from __future__ import annotations

import subprocess
import sys

from modelctl.embedded import processes

FORKS = """
import os, time
from modelctl.embedded.triton import Triton

Triton("127.0.0.1:1").is_live()
if os.fork() == 0:
    time.sleep(0.1)
    print(len(os.listdir("/proc/self/task")), flush=True)
    os._exit(0)
os.wait()
"""


NAMED = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"\\xff) \\xfe")  # PR_SET_NAME
print("named", flush=True)
time.sleep(30)
"""


def test_a_process_may_have_any_name() -> None:
    """A name that is not UTF-8, and looks like the end of a name, hides no process and breaks nothing."""
    process = subprocess.Popen([sys.executable, "-c", NAMED], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"named\n"
    try:
        assert processes.living(process.pid) == [process.pid]
        assert processes.groups(process.pid) == {process.pid}
        assert processes.start_time(process.pid)
    finally:
        process.kill()
        process.communicate()


def test_a_process_starts_after_calls_over_grpc() -> None:
    """gRPC's threads in a forked process may abort it before exec; modelctl prevents that."""
    result = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n", result.stderr

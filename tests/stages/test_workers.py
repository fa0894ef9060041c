"""Slow work does not delay other requests."""

import threading
import time

import pytest

from stages.serving import RefusalError
from stages.workers import LARGE_WORK, SMALL_WORK, Gates, Workers


@pytest.fixture
def workers():
    made = Workers(threads=4, patience_s=0.05)
    yield made
    made.close()


def test_run_returns_when_all_jobs_are_done(workers):
    done = []
    workers.run([lambda n=n: done.append(n) for n in range(20)])
    assert sorted(done) == list(range(20))


def test_run_leaves_a_long_job_behind_and_serves_the_next(workers):
    release, done = threading.Event(), []
    workers.run([release.wait, lambda: done.append("neighbour")])
    assert done == ["neighbour"]
    workers.run([lambda: done.append("next")])
    assert done == ["neighbour", "next"]
    release.set()


def test_run_waits_while_every_thread_is_taken(workers):
    release = threading.Event()
    workers.run([release.wait] * 4)
    began = threading.Event()
    caller = threading.Thread(target=workers.run, args=([began.set],))
    caller.start()
    assert not began.wait(0.2)
    release.set()
    assert began.wait(5)
    caller.join()


def test_a_failing_job_is_logged_and_frees_its_thread(workers, caplog):
    def fail():
        raise ValueError("on purpose")

    for _ in range(10):
        workers.run([fail])
    workers.run([lambda: None])
    assert len([record for record in caplog.records if "on purpose" in str(record.exc_info[1])]) == 10


def test_close_lets_what_began_finish_and_may_be_repeated():
    workers, done = Workers(threads=2, patience_s=0), []
    workers.run([lambda: (time.sleep(0.1), done.append(1))])
    workers.close()
    workers.close()
    assert done == [1]
    with pytest.raises(RuntimeError):
        workers.run([lambda: None])


def enters(gates, pixels):
    """Start a thread that waits for its turn; return the event that it sets when its turn has come."""
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with gates.enter(pixels):
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    return inside, leave, thread


def test_large_pictures_take_turns_and_leave_room_for_ordinary_ones():
    gates = Gates(cores=2)
    entered = [enters(gates, pixels) for pixels in (LARGE_WORK + 1, LARGE_WORK, LARGE_WORK)]
    assert all(inside.wait(5) for inside, _, _ in entered)
    waiting = [enters(gates, pixels) for pixels in (LARGE_WORK + 1, LARGE_WORK)]
    assert not any(inside.wait(0.1) for inside, _, _ in waiting)
    for _, leave, _ in entered + waiting:
        leave.set()
    assert all(inside.wait(5) for inside, _, _ in waiting)
    for _, _, thread in entered + waiting:
        thread.join()


def test_large_pictures_at_their_gate_do_not_delay_a_small_one():
    """Any number of large pictures leaves a thread, and a turn, for a small one."""
    workers, gates, release = Workers(patience_s=0), Gates(cores=2), threading.Event()

    def decode(pixels, wait):
        with gates.enter(pixels):
            wait()

    def send():
        workers.run([lambda: decode(LARGE_WORK + 1, release.wait)] * 128)
        workers.run([lambda: decode(1, served.set)])

    served, sender = threading.Event(), threading.Thread(target=send)
    sender.start()
    try:
        assert served.wait(5)
    finally:
        release.set()
        sender.join()
        workers.close()


@pytest.mark.parametrize("pixels", [1, LARGE_WORK + 1])
def test_a_picture_that_fails_leaves_its_turn_to_the_next(pixels):
    gates = Gates(cores=1)
    with pytest.raises(ValueError, match="broken"), gates.enter(pixels):
        raise ValueError("broken")
    inside, leave, thread = enters(gates, pixels)
    assert inside.wait(5)
    leave.set()
    thread.join()


def test_small_pictures_wait_for_no_others():
    """When all other turns are taken, as many small pictures as cores still come in."""
    gates = Gates(cores=2)
    held = [enters(gates, work) for work in (LARGE_WORK + 1, LARGE_WORK, LARGE_WORK)]
    assert all(inside.wait(5) for inside, _, _ in held)
    small = [enters(gates, SMALL_WORK) for _ in range(2)]
    assert all(inside.wait(5) for inside, _, _ in small)
    for _, leave, thread in held + small:
        leave.set()
        thread.join()


def test_a_turn_that_does_not_come_in_time_is_refused():
    """Waiting ends at the deadline."""
    gates = Gates(cores=1)
    with gates.enter(1), pytest.raises(RefusalError) as caught, gates.enter(1, time.monotonic() + 0.05):
        pass
    assert caught.value.code == "deadline_exceeded"

"""The context of a request: its deadline and its id."""

from __future__ import annotations

import pytest

from app.context import Context, Deadline, request_id
from app.errors import InvalidParameterError
from app.settings import Settings


def test_deadlines_are_capped() -> None:
    """A caller may ask for less than the server's cap, not for more."""
    settings = Settings(default_timeout_ms=1000, max_timeout_ms=2000)
    context = Context("id")
    for header, expected in ((None, 1.0), ("500", 0.5), ("999999", 2.0)):
        context.set_deadline(header, settings)
        assert context.deadline.at - context.started == pytest.approx(expected)
    for header in ("0", "-1", "1.5", "", "²"):
        with pytest.raises(InvalidParameterError):
            context.set_deadline(header, settings)


def test_new_request_ids_are_uuids_in_order() -> None:
    """They sort by time, as version 7 of RFC 9562 says."""
    ids = [request_id(None) for _ in range(3)]
    assert {identifier[14] for identifier in ids} == {"7"}
    assert {identifier[19] for identifier in ids} <= set("89ab")
    assert [identifier[:13] for identifier in ids] == sorted(identifier[:13] for identifier in ids)


def test_the_earlier_deadline_counts() -> None:
    """A body must arrive within its own timeout and within the request's deadline."""
    soon, late = Deadline.after(1), Deadline.after(60)
    assert min(late, soon) is soon
    assert soon.within(30) is soon
    assert 29 < late.within(30).left_s() <= 30
    assert Deadline.after(-1).left_s() < 0

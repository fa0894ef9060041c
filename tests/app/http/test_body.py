"""Small parts of the gateway that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.context import Context, request_id
from app.errors import InvalidParameterError, OverloadedError
from app.memory import Budget
from app.settings import Settings, unknown_variables


def test_the_budget_is_never_exceeded() -> None:
    """What does not fit is refused and not counted."""
    budget = Budget(10)
    budget.take(8)
    with pytest.raises(OverloadedError):
        budget.take(3)
    budget.give_back(8)
    budget.take(10)
    assert budget.held == 10


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


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """GATEWAY_* and Triton's port are read; hosts are a list; settings cannot change."""
    monkeypatch.setenv("GATEWAY_IMAGE_URL_HOSTS", "a.example, B.example")
    monkeypatch.setenv("TRITON_GRPC_PORT", "9001")
    settings = Settings()
    assert settings.image_url_hosts == ("a.example", "b.example")
    assert settings.triton_addresses == ("127.0.0.1:9001",)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_variables_that_no_setting_reads_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt GATEWAY_ variable, of the environment or of .env, is found with the setting it is most like."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PORT", "1")
    monkeypatch.setenv("GATEWAY_TIMEOUT", "1")
    monkeypatch.setenv("GATEWAY_XYZ", "1")
    monkeypatch.setenv("OTHER_HOTS", "1")
    Path(".env").write_text("GATEWAY_HOTS=a\nGATEWAY_LOG_LEVEL=info\nTRITON_METRICS_PORT=1\n")
    unknown = unknown_variables()
    assert unknown.keys() == {"GATEWAY_HOTS", "GATEWAY_TIMEOUT", "GATEWAY_XYZ"}
    assert unknown["GATEWAY_HOTS"] == "GATEWAY_HOSTS"
    monkeypatch.setenv("GATEWAY_TRITON_GRPC_PORT", "1")
    assert unknown_variables()["GATEWAY_TRITON_GRPC_PORT"] == "TRITON_GRPC_PORT"

"""Settings come from the environment and `.env`; unknown variables are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings, unknown_variables


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
    """A misspelt GATEWAY_ variable, of the environment or of .env, is found with the most similar setting."""
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

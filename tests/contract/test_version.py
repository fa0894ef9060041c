"""The version stands in pyproject.toml; the client, a separate package, and the changelog agree with it."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from app.main import version

ROOT = Path(__file__).resolve().parents[2]
VERSION = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def test_the_gateway_tells_the_version_of_the_project() -> None:
    assert version() == VERSION
    assert "COPY pyproject.toml /srv/" in (ROOT / "Dockerfile.app").read_text()


def test_no_code_repeats_the_version() -> None:
    """No file has it except pyproject.toml, the client's project and the changelog."""
    lines = ["git", "grep", "-l", "--fixed-strings", f'"{VERSION}"', "--", "*.py", "*.toml", "*.yml", "*.yaml", "*.sh"]
    done = subprocess.run(lines, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["client/pyproject.toml", "pyproject.toml"]


def test_the_client_and_the_changelog_go_with_it() -> None:
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (client, newest and newest[1]) == (VERSION, VERSION)

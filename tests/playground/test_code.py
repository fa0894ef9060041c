"""The playground's code works in a shell and in Python, and gives the answer on the page."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NASTY = 'it\'s "a"; $HOME,`id` <img src=x onerror=alert(1)> ä\\1 & 50%.jpg'


def pasted(visit: Any, folder: Path) -> list[Any]:
    """Return the answers of the curl line and the Python lines."""
    curl = visit.page.inner_text("#code-text")
    visit.page.click("#tab-python")
    python = visit.page.inner_text("#code-text")
    visit.page.click("#tab-curl")

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    # Python's own prompt reads line by line: it shall take them too.
    prompt = subprocess.run(
        [sys.executable, "-q", "-i"], cwd=folder, input=f"{python}\n", capture_output=True, text=True, timeout=120
    )
    return [
        json.loads(run("bash", "-c", curl)),
        ast.literal_eval(run(sys.executable, "-c", python)),
        ast.literal_eval(prompt.stdout),
    ]


def test_the_code_for_a_sample_fetches_it(visit: Any, tmp_path: Path) -> None:
    """It needs nothing but the gateway."""
    answer = visit.sample("coffee")
    for again in pasted(visit, tmp_path):
        assert again["predictions"] == answer["predictions"]


def test_options_and_any_file_name_are_repeated(visit: Any, tmp_path: Path, astronaut: bytes) -> None:
    """A name with all special characters of shells and forms; the slider's score becomes the threshold."""
    (tmp_path / NASTY).write_bytes(astronaut)
    visit.pick("detect")
    visit.page.fill("#classes", "person, 41")
    visit.page.fill("#iou_threshold", "0.9")
    file = {"name": NASTY, "mimeType": "image/jpeg", "buffer": astronaut}
    answer = visit.answer(visit.page.set_input_files, "#file", file)
    assert visit.page.inner_text("#file-name") == NASTY
    assert visit.page.inner_text("#code-hint") == f"Run it in the folder that holds {NASTY}."
    for threshold in ("0.05", "0.5"):
        visit.page.locator("#threshold").fill(threshold)
        expected = [found for found in answer["predictions"] if found["score"] >= float(threshold)]
        for again in pasted(visit, tmp_path):
            assert again["predictions"] == expected
        assert expected


@pytest.mark.parametrize(
    "text", ["I love it.", 'It\'s "fine" \\ $HOME `id` !x\nsecond line \u2028 <script>alert(1)</script> 😀 %41&a=b']
)
def test_any_text_is_repeated(visit: Any, tmp_path: Path, text: str) -> None:
    """A text with quotes, line ends and characters that are special in a shell."""
    visit.pick("sentiment")
    visit.page.fill("#text", text)
    answer = visit.answer(visit.page.click, "#ask")
    for again in pasted(visit, tmp_path):
        assert again["scores"] == answer["scores"]
        assert again["usage"] == answer["usage"]


def test_the_answer_is_shown_and_copied(visit: Any) -> None:
    """The third tab holds the JSON answer; the button copies the visible text."""
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer = visit.sample("coffee")
    visit.page.click("#tab-json")
    assert json.loads(visit.page.inner_text("#code-text")) == answer
    visit.page.click("#copy")
    visit.page.wait_for_selector("#copied:text-is('Copied.')")
    assert json.loads(visit.page.evaluate("navigator.clipboard.readText()")) == answer

"""Makes the README's pictures from a running gateway: `.venv/bin/python docs/screenshots.py [http://127.0.0.1:8080]`.

Needs what the tests need: Chromium, and the packages of `requirements/dev.txt`.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

DOCS = Path(__file__).resolve().parent
SIZE: ViewportSize = {"width": 1180, "height": 860}


def playground(page: Page, url: str) -> None:
    """Show a detection on the playground."""
    page.goto(url)
    page.wait_for_selector("#models li")
    page.click("label:has([value=detect])")
    page.click("[data-sample='coffee.jpg']")
    page.wait_for_selector(".rows li:visible")
    page.evaluate("document.getElementById('picture').decode()")
    shot = Image.open(io.BytesIO(page.screenshot()))
    # 256 colours: a third of the bytes, and no difference to be seen.
    shot.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(DOCS / "images" / "playground.png", optimize=True)


def detection(url: str) -> bytes:
    """Return the picture answer to the astronaut."""
    image = (DOCS / "samples" / "astronaut.jpg").read_bytes()
    headers = {"Content-Type": "image/jpeg", "Accept": "image/jpeg"}
    return httpx.post(f"{url}/v1/detect", content=image, headers=headers).raise_for_status().content


def main(url: str) -> None:
    """Write both pictures to `docs/images`."""
    (DOCS / "images").mkdir(exist_ok=True)
    (DOCS / "images" / "detection.jpg").write_bytes(detection(url))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        playground(browser.new_page(viewport=SIZE, color_scheme="light"), url)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080")

"""A headless Chromium on the playground of a real stack. Any complaint of the browser fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

LIGHT, DARK = "light", "dark"
DESK, PHONE = (1280, 900), (360, 740)


@dataclass
class Visit:
    """One page, with its requests and the browser's complaints."""

    page: Page
    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Parts of the complaints that this test brings about: Chromium reports every refusal that a page asks for."""

    def open(self) -> None:
        """Load the page, and wait for the list of models."""
        self.page.on("request", lambda request: self.requests.append((request.method, request.url)))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.url)
        self.page.wait_for_selector("#models li")
        self.page.wait_for_selector("#readiness[data-state=ready]")

    def pick(self, task: str) -> None:
        """Pick a task by clicking its label."""
        self.page.click(f"label:has([value={task}])")

    def answer(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Act, and return the gateway's JSON answer once it is shown."""
        with self.page.expect_response(lambda response: response.request.method == "POST") as caught:
            act(*arguments)
        self.page.wait_for_selector("#result[aria-busy=false]")
        return caught.value.json()

    def sample(self, name: str) -> Any:
        """Click on a sample; return the answer."""
        return self.answer(self.page.click, f"[data-sample='{name}.jpg']")

    def asked(self) -> list[str]:
        """Return the addresses of the requests for answers."""
        return [url for method, url in self.requests if method == "POST"]

    def status(self) -> str:
        """Return the status text that a screen reader announces."""
        return self.page.inner_text("#status")

    def _hear(self, message: ConsoleMessage) -> None:
        # Readiness is asked for all the time, and on a busy machine may be red for a moment: Chromium reports that too.
        if message.type in ("error", "warning") and not message.location["url"].endswith("/readyz"):
            self.complaints.append(message.text)

    def check(self) -> None:
        """Check the rules that hold for every visit."""
        foreign = [url for _, url in self.requests if not url.startswith((f"{self.url}/", f"blob:{self.url}/"))]
        assert foreign == []
        unexpected = [text for text in self.complaints if not any(part in text for part in self.expected)]
        assert unexpected == []
        heard = [part for part in self.expected if any(part in text for text in self.complaints)]
        assert heard == self.expected


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return Chromium, one for each test file: while it runs, nothing else in this process can use asyncio."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("Chromium is needed to test the playground: install it (Debian: apt-get install chromium).")
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, stack: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Return the opened playground; parameters are its colour scheme and size."""
    scheme, (width, height) = getattr(request, "param", (LIGHT, DESK))
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce", accept_downloads=True
    )
    context.set_default_timeout(60_000)
    made = Visit(context.new_page(), stack.url)
    made.open()
    yield made
    made.check()
    context.close()

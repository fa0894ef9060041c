"""Accessibility: keyboard, screen reader, phone, dark mode."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

DESK, PHONE, NARROW = (1280, 900), (390, 844), (320, 640)
SCHEMES = [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE), ("light", NARROW)]
REACH = 60  # presses of the tab key; more would be no way to work


def hold(visit: Any) -> None:
    """Check the current page by axe-core's rules and for sideways scrolling."""
    found = Axe().run(visit.page).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"]) for one in found] == []
    width = visit.page.evaluate("document.documentElement.scrollWidth")
    assert width <= visit.page.viewport_size["width"]


@pytest.mark.parametrize("visit", SCHEMES, indirect=True, ids=lambda value: f"{value[0]}-{value[1][0]}")
def test_every_state_is_accessible(visit: Any) -> None:
    """Empty, with each kind of answer, with each tab, and with a problem."""
    visit.expected = ["status of 422"]
    hold(visit)
    visit.sample("coffee")
    hold(visit)
    visit.pick("detect")
    visit.page.wait_for_selector(".rows")
    visit.page.fill("#floor", "0.01")
    visit.sample("astronaut")
    visit.page.locator("#threshold").fill("0.01")
    visit.page.click("#tab-python")
    hold(visit)
    visit.page.fill("#iou_threshold", "7")
    visit.answer(visit.page.click, "#ask")
    hold(visit)
    visit.pick("sentiment")
    visit.answer(visit.page.click, "[data-text]")
    visit.page.click("#tab-json")
    hold(visit)


def test_the_rules_find_faults(visit: Any) -> None:
    """A select without a label and text of low contrast are found, so passing means something."""
    visit.page.evaluate(
        "document.getElementById('model').closest('label').replaceWith(document.getElementById('model'))"
    )
    visit.page.evaluate("document.getElementById('status').style.color = '#b8b8b8'")
    found = {one["id"]: one["impact"] for one in Axe().run(visit.page).response["violations"]}
    assert found == {"select-name": "critical", "color-contrast": "serious"}


@pytest.mark.parametrize("visit", [("dark", DESK), ("light", DESK)], indirect=True, ids=["dark", "light"])
def test_the_scheme_follows_the_system(visit: Any) -> None:
    """Dark background in dark mode, light background in light mode."""
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    level = int(ground.removeprefix("rgb(").split(",")[0])
    assert level < 40 if dark else level > 200


def reach(visit: Any, selector: str) -> None:
    """Press the tab key until this element has the focus, and check that the focus is visible."""
    for _ in range(REACH):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} is not reached by the keyboard")


def test_everything_works_by_keyboard(visit: Any) -> None:
    """From the top of the page to a box, the slider and the code."""
    keys = visit.page.keyboard
    # Playwright asks Chromium for these events once somebody listens, and does not wait until it hears.
    visit.page.on("filechooser", lambda _: None)
    keys.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the input"
    reach(visit, "[name=task]")
    keys.press("ArrowRight")
    assert visit.page.is_checked("[value=detect]")
    assert visit.page.evaluate("getComputedStyle(document.activeElement.parentElement).outlineStyle") == "solid"
    reach(visit, "#file")
    with visit.page.expect_file_chooser():
        keys.press("Enter")
    assert visit.page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    reach(visit, "[data-sample='astronaut.jpg']")
    answer = visit.answer(keys.press, "Enter")
    reach(visit, "#ask")
    assert visit.answer(keys.press, "Space")["predictions"] == answer["predictions"]
    reach(visit, "#threshold")
    keys.press("Home")
    count = len(answer["predictions"])
    assert visit.status().startswith(f"{count} of {count} boxes have a score of 0.05 or more; best: person")
    keys.press("End")
    assert visit.status().startswith(f"0 of {count}")
    keys.press("Home")
    reach(visit, ".rows button")
    assert visit.page.locator("g.lit").count() == 1
    reach(visit, "[role=tab]")
    keys.press("ArrowRight")
    assert visit.page.inner_text("#code-text").startswith("import httpx")
    keys.press("End")
    assert visit.page.inner_text("#code-text").startswith("{")
    reach(visit, "#code-text")


@pytest.mark.parametrize("visit", [("light", PHONE)], indirect=True, ids=["phone"])
def test_the_phone_scrolls_to_the_answer(visit: Any) -> None:
    """There, the answer lies below the input."""
    visit.sample("coffee")
    visit.page.wait_for_selector(".bars")
    top = visit.page.locator("#result-title").bounding_box()["y"]
    assert 0 <= top < PHONE[1] / 2

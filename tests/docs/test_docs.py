"""The documentation: the site builds strictly, all links lead somewhere, and the text agrees with the code."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from app.settings import Settings
from docs import build, generate
from modelctl import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS, SITE = ROOT / "docs", ROOT / "build" / "site"
PAGES = sorted(DOCS.rglob("*.md"))
BESIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
"""What a browser fetches by itself, by element and attribute."""


@dataclass
class Page(HTMLParser):
    """One built page: where its links lead, what it loads, and what may be linked to."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag points to."""
        given = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag in LOADED and given.get(LOADED[tag]):
            self.loaded.append(given[LOADED[tag]] or "")


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    """Build the site, strictly; return its pages, parsed."""
    done = subprocess.run([sys.executable, "-m", "docs.build"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: Page() for path in sorted(SITE.rglob("*.html"))}
    for path, page in pages.items():
        page.feed(path.read_text("utf-8"))
    assert len(pages) > len(PAGES)  # and the page for what is not found
    return pages


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    """A strict build with the same configuration fails with one more page."""
    shutil.copy(build.CONFIG, tmp_path)
    shutil.copytree(build.stage(), tmp_path / "build" / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(tmp_path / "mkdocs.yml")]
    assert subprocess.run(command, capture_output=True, timeout=240).returncode == 0
    for fault in ("[no page](nowhere.md)", "[no anchor](tasks.md#nowhere)"):
        (tmp_path / "build" / "docs" / "index.md").write_text(f"# A page\n\n{fault}\n")
        assert subprocess.run(command, capture_output=True, timeout=240).returncode == 1


def test_every_link_and_picture_of_the_site_is_there(site: dict[Path, Page]) -> None:
    missing = []
    for path, page in site.items():
        for link in (*page.links, *page.loaded):
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            base = SITE if target.path.startswith("/") else path.parent
            file = (base / unquote(target.path).lstrip("/")).resolve() if target.path else path
            file = file / "index.html" if file.is_dir() else file
            anchored = not target.fragment or unquote(target.fragment) in site.get(file, Page()).anchors
            if not file.is_file() or not anchored:
                missing.append(f"{path.relative_to(SITE)}: {link}")
    assert not missing


def test_the_site_loads_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    """No font, script, style or picture. Zensical would fetch Mermaid for diagrams, so there are none."""
    outside = re.compile(r"^(https?:)?//")
    assert [(path.name, url) for path, page in site.items() for url in page.loaded if outside.match(url)] == []
    styles = [
        path for path in SITE.rglob("*.css") if re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text())
    ]
    assert styles == []
    assert [path.name for path in site if 'class="mermaid"' in path.read_text("utf-8")] == []


def test_every_page_is_in_the_navigation() -> None:
    named: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, str):
            named.append(entry)
        elif isinstance(entry, dict):
            for one in entry.values():
                walk(one)
        elif isinstance(entry, list):
            for one in entry:
                walk(one)

    walk(yaml.safe_load(build.CONFIG.read_text())["nav"])
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: path.name)
def test_links_beside_the_site_lead_somewhere(path: Path, site: dict[Path, Page]) -> None:
    for link in build.LINK.finditer(path.read_text("utf-8")):
        if "://" in link["target"]:
            continue
        target = (path.parent / link["target"]).resolve()
        assert target.exists(), link[0]
        if link["anchor"]:
            page = (SITE / target.relative_to(DOCS)).with_suffix(".html")
            assert link["anchor"].removeprefix("#") in site[page].anchors, link[0]


def test_what_is_read_from_the_code_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, f"run: python -m docs.generate\n{capsys.readouterr().out}"


def test_outdated_blocks_are_rewritten() -> None:
    """The block comes from the code, and the text around it stays."""
    page = (DOCS / "configuration.md").read_text("utf-8")
    damaged = page.replace("`GATEWAY_WORKERS` | `1`", "`GATEWAY_WORKERS` | `2`")
    assert damaged != page
    assert generate.filled(damaged) == page
    assert {block[2] for path in PAGES for block in generate.BLOCK.finditer(path.read_text("utf-8"))} == set(
        generate.BLOCKS
    )


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def _command_lines() -> list[str]:
    """Return every line of a shell block that runs modelctl, without comments."""
    found = []
    for path in (*PAGES, *BESIDE):
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                line = re.sub(r"docker compose run --rm plans", "modelctl plan", line)
                found += re.findall(r"(?:^|[\s/])modelctl (.+)", line.partition(" #")[0])
    return sorted(set(found))


@pytest.mark.parametrize("line", _command_lines())
def test_every_command_line_is_valid(line: str) -> None:
    """Each command, option and value parses as the documentation spells it."""
    words = shlex.split(line.rstrip(" &"))
    cli.build(words[:1]).parse_args(words)


def test_every_command_in_the_text_exists() -> None:
    """In `modelctl lint --strict`, lint is a command and --strict one of its options."""
    page = (DOCS / "modelctl.md").read_text("utf-8")
    sections = {part.partition("`")[0]: part for part in page.split("## `modelctl ")[1:]}
    wrong = []
    for path in (*PAGES, *BESIDE):
        for span in re.findall(r"`modelctl ([^`]+)`", path.read_text("utf-8")):
            words = span.split()
            known = "".join(part for name, part in sections.items() if name.split()[0] == words[0])
            options = [word for word in words if re.fullmatch(r"--[\w-]+", word)]
            if not known or [option for option in options if f"`{option}`" not in known]:
                wrong.append(f"{path.name}: modelctl {span}")
    assert not wrong


ROOMS = "app|backends|stages|modelctl|client|benchmarks|training|notebooks|docs|deploy|requirements|tests"
NAMED = re.compile(rf"(?<![\w./-])(?:{ROOMS})/[\w./-]*[\w/](?![\w*<{{])")
EXAMPLE = re.compile("NAME|nnn")


def test_every_file_named_in_a_page_exists() -> None:
    """A path in backticks, such as `app/main.py`, must follow when files move."""
    missing = []
    for path in (*PAGES, *BESIDE, ROOT / "SECURITY.md", *sorted(ROOT.glob("models/*/MODEL_CARD.md"))):
        for span in re.findall(r"`([^`\n]+)`", path.read_text("utf-8")):
            named = [] if "://" in span else NAMED.findall(span)
            missing += [
                f"{path.name}: {name}" for name in named if not EXAMPLE.search(name) and not (ROOT / name).exists()
            ]
    assert not missing

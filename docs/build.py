"""Builds the documentation as a site: `python -m docs.build`, into build/site; with `--serve` it is shown at once.

    docs/*.md --stage--> build/docs --Zensical, strict--> build/site

What lies outside this folder is in the repository and not on the site: links there become paths, pictures are copied.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS, CONFIG = ROOT / "docs", ROOT / "mkdocs.yml"
STAGE = ROOT / "build" / "docs"
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)]*)?\)")
PICTURES = (".svg", ".png", ".jpg")


def stage() -> Path:
    """Copy the pages to where the site is built from; return that folder."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in sorted(path for path in DOCS.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")):
        target = STAGE / path.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(LINK.sub(lambda link, page=path: _settled(link, page), path.read_text("utf-8")), "utf-8")  # type: ignore[misc]
        else:
            shutil.copyfile(path, target)
    return STAGE


def _settled(link: re.Match[str], page: Path) -> str:
    """Return a link as it is to stand on the site."""
    path = (page.parent / link["target"]).resolve()
    if "://" in link["target"] or path.is_relative_to(DOCS) or not path.exists():
        return link[0]
    inside = path.relative_to(ROOT)
    if not link["picture"]:
        text = link["text"].strip("`")
        return f"`{inside}`" if text in str(inside) else f"{link['text']} (`{inside}`)"
    target = STAGE / "images" / "outside" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return f"![{link['text']}]({'../' * (len(page.relative_to(DOCS).parts) - 1)}images/outside/{path.name})"


def main(arguments: list[str]) -> int:
    """Build; return Zensical's exit code, which is 1 when there was a warning."""
    stage()
    command = ["serve"] if "--serve" in arguments else ["build", "--clean", "--strict"]
    return subprocess.run([sys.executable, "-m", "zensical", *command, "-f", str(CONFIG)], check=False).returncode  # noqa: S603 - our own line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

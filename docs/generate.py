"""Writes the parts of the pages that are read from the code: settings, errors and commands.

python -m docs.generate            writes what stands between <!-- generated: NAME --> and <!-- end -->
python -m docs.generate --check    writes nothing; exit code 1 when a page is not as the code says
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic.fields import FieldInfo

from app import errors
from app.http import problems
from app.settings import VARIABLES, Settings, choices, limits
from modelctl import cli

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIELDS = {
    "title": "The kind of problem, in words.",
    "status": "The HTTP status. For an item of a batch: the status of the same item sent as a single request.",
    "request_id": "The request's id, as in the answer's header `X-Request-ID` and in the logs.",
    "model": "The model of the request, if known.",
}
"""Fields of a problem whose name says enough for the OpenAPI document."""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table of Markdown; bars and angle brackets in a cell are escaped."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_escaped, row))} |" for row in rows)])


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


def settings() -> str:
    """Return the table of the gateway's settings."""
    rows = []
    for variable, name in VARIABLES.items():
        field = Settings.model_fields[name]
        default = "none" if field.default == () else f"`{field.default}`".replace("True", "true")
        rows.append((f"`{variable}`", default, _range(field), field.description or ""))
    return table(("variable", "default", "range", "meaning"), rows)


def _range(field: FieldInfo) -> str:
    return ", ".join(f"`{word}`" for word in choices(field)) or limits(field)


def problem_example() -> str:
    """Return one problem, as it is answered."""
    example = problems.problem(errors.TextEmptyError("The text is empty."), problems.EXAMPLE_REQUEST_ID)
    return f"```json\n{example.model_dump_json(exclude_none=True, indent=2)}\n```"


def problem_fields() -> str:
    """Return the table of a problem's fields."""
    fields = problems.Problem.model_fields.items()
    return table(("field", ""), [(f"`{name}`", field.description or FIELDS[name]) for name, field in fields])


def problem_codes() -> str:
    """Return the table of all codes."""
    rows = []
    for error in sorted(errors.ERRORS, key=lambda error: error.status):
        wait = "" if error.retry_after_s is None else "yes"
        rows.append((str(error.status), f"`{error.code}`", error.__doc__ or "", "yes" if error.retryable else "", wait))
    return table(("status", "code", "when", "retryable", "`Retry-After`"), rows)


def commands() -> str:
    """Return a section for each of modelctl's commands."""
    parser = cli.build(cli.COMMANDS)
    made = _subparsers(parser)
    return "\n\n".join(_section(name, made[name], text) for name, (_, text) in cli.COMMANDS.items())


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def _section(name: str, parser: argparse.ArgumentParser, text: str) -> str:
    parts = [f"## `modelctl {name}`", f"{text[:1].upper()}{text[1:]}."]
    inner = _subparsers(parser)
    if inner:
        return "\n\n".join([*parts, *(_section(f"{name} {word}", one, _about(one)) for word, one in inner.items())])
    rows = [(_called(action), action.help or "") for action in parser._actions if _is_shown(action)]
    return "\n\n".join([*parts, table(("", ""), rows)])


def _is_shown(action: argparse.Action) -> bool:
    return action.dest != "help" and action.help != argparse.SUPPRESS


def _about(parser: argparse.ArgumentParser) -> str:
    """Return the description of a command, without its full stop."""
    return (parser.description or "").rstrip(".")


def _called(action: argparse.Action) -> str:
    value: object = action.metavar or action.dest.upper()
    if action.choices is not None:
        value = "|".join(map(str, action.choices))
    shown = f"`{' '.join(value) if isinstance(value, tuple) else value}`"
    if not action.option_strings:
        return shown
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} {shown}"


BLOCKS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "problem-example": problem_example,
    "problem-fields": problem_fields,
    "problem-codes": problem_codes,
    "commands": commands,
}


def filled(page: str) -> str:
    """Return a page with its blocks as the code says."""
    return BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block[2]]()}\n{block[3]}", page)


def main(arguments: list[str]) -> int:
    """Write the pages that differ, or only name them."""
    check = "--check" in arguments
    pages = {path: path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}
    differing = {path: made for path, page in pages.items() if (made := filled(page)) != page}
    for path, made in differing.items():
        if not check:
            path.write_text(made, "utf-8")
        print(f"{'differs' if check else 'written'}: docs/{path.relative_to(DOCS)}")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

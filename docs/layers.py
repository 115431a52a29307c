"""The picture of the floors in docs/architecture.md, made from the code: `python docs/layers.py` writes it, a test compares it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, PAGE = ROOT / "actkit", ROOT / "docs/architecture.md"
BEGIN, END = "<!-- layers: made by `python docs/layers.py` -->\n", "<!-- layers end -->"

# From the roof to the ground; rooms of one floor know nothing of each other, but for the ground's own two.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["python"],
    ["reports"],
    ["training"],
    ["evaluation"],
    ["models", "probes"],
    ["attacks", "datasets", "networks"],
    ["findings"],
    ["config"],
    ["losses", "files", "machine", "signals"],
    ["errors", "noise", "display"],
]


def files_of(room: str) -> list[Path]:
    """The Python files of a room: those of a folder, or the one file at the top."""
    alone = PACKAGE / f"{room}.py"
    return (
        [alone]
        if alone.is_file()
        else sorted(p for p in (PACKAGE / room).rglob("*.py") if not {"templates", "new"} & set(p.parts))
    )


def said_of(path: Path) -> str:
    """The first sentence of a file's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<!et al)\. ", doc.split("\n\n")[0].replace("\n", " "))[0].rstrip(".")


def picture() -> str:
    """Floors as a drawing, rooms as tables of their files."""
    drawn = "\n".join(
        f"{len(FLOORS) - i:>3}  {'   '.join(room + '/' * (PACKAGE / room).is_dir() for room in floor)}"
        for i, floor in enumerate(FLOORS)
    )
    parts = [f"```\n{drawn}\n```"]
    for room in (room for floor in FLOORS for room in floor):
        rows = [
            f"| `{path.relative_to(PACKAGE)}` | {said_of(path)} |"
            for path in files_of(room)
            if path.name != "__init__.py" or said_of(path)
        ]
        parts.append("\n".join([f"| {room} | |", "|---|---|", *rows]) if len(rows) > 1 else "")
    alone = [room for floor in FLOORS for room in floor if (PACKAGE / f"{room}.py").is_file()]
    parts.append(
        "\n".join(
            ["| files at the top | |", "|---|---|", *(f"| `{r}.py` | {said_of(PACKAGE / f'{r}.py')} |" for r in alone)]
        )
    )
    return "\n\n".join(filter(None, parts)) + "\n\n"


def page() -> str:
    """The page with the picture put in anew."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + picture() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT), file=sys.stderr)

"""A table as it is printed: text, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from actkit.errors import InputError, nearest


@dataclass(frozen=True)
class Grid:
    """A table as it is printed: the first `left` columns are text, the others numbers."""

    titles: list[str]
    body: list[list[str]]
    caption: list[str]
    left: int


def as_text(made: Grid) -> str:
    lines = [made.titles, *made.body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(made.titles))]
    text = [
        "  ".join(
            cell.ljust(w) if i < made.left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*text, *made.caption])


def as_markdown(made: Grid) -> str:
    lines = ["| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in [made.titles, *made.body]]
    rule = "|" + "|".join("---" if i < made.left else "---:" for i in range(len(made.titles))) + "|"
    return "\n".join([lines[0], rule, *lines[1:], "", *(f"- {line}" for line in made.caption)])


_LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": "$|$",
}  # fmt: skip


def as_latex(made: Grid) -> str:
    """A tabular for booktabs."""

    def line(texts: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(c, c) for c in t) for t in texts) + r" \\"

    columns = "l" * made.left + "r" * (len(made.titles) - made.left)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(made.titles), r"\midrule"]
    notes = ["% " + text for text in made.caption]
    return "\n".join([*notes, *head, *map(line, made.body), r"\bottomrule", r"\end{tabular}"])


FORMATS = ("table", "markdown", "csv", "latex", "json")


_PRINTED: Mapping[str, Callable[[Grid], str]] = {"table": as_text, "markdown": as_markdown, "latex": as_latex}


def assert_format(how: str) -> None:
    """Raises `InputError` for a format that is not there."""
    if how not in FORMATS:
        raise InputError(f"there is no format {how!r}", help=nearest(how, FORMATS))


def printed(made: Grid, how: str) -> str:
    """As text, Markdown or LaTeX."""
    return _PRINTED[how](made)

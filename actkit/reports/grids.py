"""A table as it is printed: text, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from actkit.errors import InputError, nearest


@dataclass(frozen=True)
class Grid:
    """A table as it is printed: the first `left` columns are text, the others numbers.

    `notes` are its footnotes, counted from 1; a cell that has some ends in their numbers, '50.00 UNVERIFIED [1,2]'.
    """

    titles: list[str]
    body: list[list[str]]
    caption: list[str]
    left: int
    notes: list[str] = field(default_factory=list)

    @property
    def numbered_notes(self) -> list[str]:
        """The footnotes as they stand below the table."""
        return [f"[{i}] {note}" for i, note in enumerate(self.notes, 1)]


class Notes(list[str]):
    """The footnotes of a table that is being made, each once."""

    def marked(self, cell: str, why: Sequence[str]) -> str:
        """The cell with the numbers of its notes, which are added where they are new."""
        self.extend(note for note in why if note not in self)
        return f"{cell} [{','.join(str(self.index(note) + 1) for note in why)}]" if why else cell


# What a cell with notes ends in.
_MARK = re.compile(r" \[([\d,]+)\]$")


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
    return "\n".join([*text, *made.numbered_notes, *made.caption])


def as_markdown(made: Grid) -> str:
    lines = ["| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in [made.titles, *made.body]]
    rule = "|" + "|".join("---" if i < made.left else "---:" for i in range(len(made.titles))) + "|"
    return "\n".join([lines[0], rule, *lines[1:], "", *(f"- {line}" for line in [*made.numbered_notes, *made.caption])])


_LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": "$|$",
}  # fmt: skip


def as_latex(made: Grid) -> str:
    """A tabular for booktabs, its notes below it."""

    def text(cell: str) -> str:
        mark = _MARK.search(cell) if made.notes else None
        own, number = (cell[: mark.start()], rf"\textsuperscript{{{mark[1]}}}") if mark else (cell, "")
        return "".join(_LATEX.get(c, c) for c in own) + number

    def line(texts: Sequence[str]) -> str:
        return " & ".join(map(text, texts)) + r" \\"

    columns = "l" * made.left + "r" * (len(made.titles) - made.left)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(made.titles), r"\midrule"]
    notes = ["% " + text for text in made.caption]
    foot = [rf"\par{{\footnotesize\textsuperscript{{{i}}} {text(note)}\par}}" for i, note in enumerate(made.notes, 1)]
    return "\n".join([*notes, *head, *map(line, made.body), r"\bottomrule", r"\end{tabular}", *foot])


FORMATS = ("table", "markdown", "csv", "latex", "json")


def as_csv(made: Grid) -> str:
    """Titles and cells as they stand, without the caption."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([made.titles, *made.body])
    return out.getvalue().rstrip("\n")


_PRINTED: Mapping[str, Callable[[Grid], str]] = {
    "table": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}


def assert_format(how: str) -> None:
    """Raises `InputError` for a format that is not there."""
    if how not in FORMATS:
        raise InputError(f"there is no format {how!r}", help=nearest(how, FORMATS))


def printed(made: Grid, how: str) -> str:
    """As text, Markdown, LaTeX or CSV."""
    return _PRINTED[how](made)

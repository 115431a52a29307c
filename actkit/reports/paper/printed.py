"""An item as it is printed: ours, the paper's, the difference, how each column was measured."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actkit.reports.grids import Grid, printed
from actkit.reports.paper.outcome import ItemOutcome, Line
from actkit.reports.paper.terms import PublishedColumn


def item_grid(made: ItemOutcome) -> Grid:
    """Ours, below it the paper's, below that the difference, where the two are of the same thing."""
    item = made.item
    grouped = len({line.row.group for line in made.lines}) > 1
    titles = [*(["group"] if grouped else []), "model", "", *(c.title for c in item.columns)]
    body, before = [], ""
    for line in made.lines:
        group = line.row.group if line.row.group != before else ""
        before = line.row.group
        whose = f"{item.scale.whose}, n = {len(line.seeds)}"
        printed_lines = [[line.row.method, whose, *_ours(line, item.columns)]]
        if line.paper:
            printed_lines.append(["", "paper", *_papers(line, item.columns)])
        if line.paper and item.scale.comparable:
            printed_lines.append(["", "difference", *_differences(line, item.columns)])
        for i, cells in enumerate(printed_lines):
            body.append([*([group if i == 0 else ""] if grouped else []), *cells])
    return Grid(titles, body, item_caption(made), left=2 + grouped)


def _ours(line: Line, columns: Sequence[PublishedColumn]) -> list[str]:
    # A number that is none, such as a mean over no image, or none at all.
    none = "-" if line.seeds else "missing"
    return [
        line.ours[c.title].shown(len(line.seeds), c.digits)
        if c.title in line.ours
        else none
        if c.label(line.row.reading)
        else ""
        for c in columns
    ]


def _papers(line: Line, columns: Sequence[PublishedColumn]) -> list[str]:
    return [
        line.paper[c.title].shown() if c.title in line.paper else "-" if c.label(line.row.reading) else ""
        for c in columns
    ]


def _differences(line: Line, columns: Sequence[PublishedColumn]) -> list[str]:
    apart = [(line.difference(column), 2 if column.percent else column.digits) for column in columns]
    return ["-" if difference is None else f"{difference:+.{digits}f}" for difference, digits in apart]


def item_caption(made: ItemOutcome) -> list[str]:
    """What the table is, how each column was measured, what the paper claims and whether it holds here, and what is missing."""
    item = made.item
    lines = [f"{item.title}. {item.scale.said[0].upper()}{item.scale.said[1:]}."]
    if not item.scale.comparable and any(line.paper for line in made.lines):
        why = item.scale.unlike or "settings are changed"
        lines.append(
            f"The paper's numbers stand beside ours to show what the item is; no difference is given, since {why}."
        )
    return [*lines, *protocol(made), *map(str, made.verdicts), *missing(made), made_by(made)]


def protocol(made: ItemOutcome) -> list[str]:
    """How each column was measured, on which data, and what else is to be known."""
    lines = ["Mean ± standard deviation of the sample over n seeds; percent unless a column says otherwise."]
    for column in made.item.columns:
        looked = sorted({line.images[column.title] for line in made.lines if column.title in line.images})
        on = f", on {' or '.join(f'{n:,}' for n in looked)} images" if looked else ""
        lines.append(f"{column.title}: {column.protocol}{on}{'' if column.percent else ', not in percent'}")
    data: dict[str, list[str]] = {}
    for block, told in made.about["data"].items():
        prints = ", ".join(f"{split} {fingerprint}" for split, fingerprint in told["fingerprint"].items())
        data.setdefault(f"{told['data']}, fingerprint of {prints}", []).append(block)
    lines += [f"data: {said}" + (f" ({', '.join(blocks)})" if len(data) > 1 else "") for said, blocks in data.items()]
    return [*lines, *made.item.notes]


def missing(made: ItemOutcome) -> list[str]:
    """What is missing, the seeds of one training together."""
    found: dict[tuple[str, str], list[int]] = {}
    for one in made.missing:
        seeds = found.setdefault((one.what, one.why), [])
        seeds += [] if one.seed is None else [one.seed]
    lines = []
    for (what, why), seeds in found.items():
        which = f", seed {', '.join(map(str, seeds))}" if seeds else ""
        lines.append(f"missing: {what}{which}: {why}")
    return lines


def made_by(made: ItemOutcome) -> str:
    about = made.about
    return (
        f"Made by `{about['command']}`, actkit {about['actkit']} at {about['commit'] or 'an installed release'}, torch {about['torch']}, "
        f"{about['gpu'] or about['processor']}"
        + "".join(f"; measured by {said}" for said in about["examined_by"])
        + "."
    )


def item_json(made: ItemOutcome) -> dict[str, Any]:
    """Everything that is known of an item, as JSON."""
    item = made.item
    return {
        "item": item.name,
        "title": item.title,
        "scale": item.scale.name,
        "said": item.scale.said,
        "rows": [
            {
                "group": line.row.group,
                "model": line.row.method,
                "seeds": list(line.seeds),
                "recipe": line.row.training.recipe,
                "settings": [*line.row.training.settings, *item.scale.changed],
                "cells": {c.title: _cell_json(line, c, comparable=item.scale.comparable) for c in item.columns},
            }
            for line in made.lines
        ],
        "examination": None if item.examination is None else dataclasses.asdict(item.examination),
        "claims": [
            {"said": v.claim.said, "column": v.claim.column, "answer": v.answer, "because": list(v.because)}
            for v in made.verdicts
        ],
        "notes": list(item.notes),
        "missing": list(map(str, made.missing)),
        "about": made.about,
    }


def _cell_json(line: Line, column: PublishedColumn, *, comparable: bool) -> dict[str, Any]:
    ours, published = line.ours.get(column.title), line.paper.get(column.title)
    paper = None if published is None else dataclasses.asdict(published)
    return {
        "ours": None if ours is None else ours.to_json(),
        "paper": paper and {key: value for key, value in paper.items() if value not in (None, "")},
        "difference": line.difference(column) if comparable else None,
        "protocol": column.protocol,
        "percent": column.percent,
        "images": line.images.get(column.title),
    }


def items_csv(made: Sequence[ItemOutcome]) -> str:
    """Every cell on a line of its own, unrounded; ours as a fraction where the column is in percent, the paper's as it prints it."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    titles = (
        "item scale group model column mean std n seeds verified images paper paper_std paper_note difference protocol"
    )
    table.writerow(titles.split())
    for one in made:
        for line in one.lines:
            for column in one.item.columns:
                table.writerow(_csv_cells(one, line, column))
    return out.getvalue().rstrip("\n")


def _csv_cells(made: ItemOutcome, line: Line, column: PublishedColumn) -> list[Any]:
    ours, paper = line.ours.get(column.title), line.paper.get(column.title)
    found: dict[str, Any] = ours.to_json() if ours else {"mean": None, "std": None, "n": 0, "verified": None}
    where = [made.item.name, made.item.scale.name, line.row.group, line.row.method, column.title]
    own = [found["mean"], found["std"], found["n"], " ".join(map(str, found.get("seeds", ()))), found["verified"]]
    published = [paper.value, paper.std, paper.note] if paper else [None, None, None]
    difference = line.difference(column) if made.item.scale.comparable else None
    return [*where, *own, line.images.get(column.title), *published, difference, column.protocol]


def write(folder: Path, made: Sequence[ItemOutcome]) -> None:
    """Each item as Markdown, CSV, LaTeX and JSON, and its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        for picture in one.pictures:
            picture.save(folder)
        text = printed(item_grid(one), "markdown")
        table, _, notes = text.partition("\n\n")
        drawn = [f"![{p.title}]({p.name}.svg)" for p in one.pictures]
        parts = [f"# {one.item.title}", table, *drawn, notes]
        files = {
            "md": "\n\n".join(parts),
            "csv": items_csv([one]),
            "tex": printed(item_grid(one), "latex"),
            "json": json.dumps(item_json(one), indent=1),
        }
        for suffix, content in files.items():
            (folder / f"{one.item.name}.{suffix}").write_text(content + "\n", encoding="utf-8")

"""An item as it is printed: ours, the paper's, the difference, how each column was measured."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actkit.reports.grids import Grid, printed
from actkit.reports.paper.items import PublishedColumn
from actkit.reports.paper.outcome import ItemOutcome, Line


def item_grid(made: ItemOutcome) -> Grid:
    """Ours, below it the paper's, below that the difference, where the two are of the same thing."""
    item = made.item
    grouped = len({line.row.group for line in made.lines}) > 1
    titles = [*(["group"] if grouped else []), "model", "", *(c.title for c in item.columns)]
    body, before = [], ""
    for line in made.lines:
        group = line.row.group if line.row.group != before else ""
        before = line.row.group
        none = "-" if line.seeds else "missing"  # a number that is none, such as a mean over no image, or none at all
        ours = [
            line.ours[c.title].shown(len(line.seeds), c.digits) if c.title in line.ours else none if c.label(line.row.reading) else ""
            for c in item.columns
        ]  # fmt: skip
        whose = f"ours, n = {len(line.seeds)}" if item.scale.comparable else f"digits, n = {len(line.seeds)}"
        body.append([*([group] if grouped else []), line.row.method, whose, *ours])
        if not line.paper:
            continue
        printed = [
            line.paper[c.title].shown() if c.title in line.paper else "-" if c.label(line.row.reading) else ""
            for c in item.columns
        ]
        body.append([*([""] if grouped else []), "", "paper", *printed])
        if item.scale.comparable:
            apart = [line.difference(c) for c in item.columns]
            shown = ["-" if d is None else f"{d:+.{2 if c.percent else c.digits}f}" for c, d in zip(item.columns, apart, strict=True)]  # fmt: skip
            body.append([*([""] if grouped else []), "", "difference", *shown])
    return Grid(titles, body, item_caption(made), left=2 + grouped)


def item_caption(made: ItemOutcome) -> list[str]:
    """What the table is, how each column was measured, what the paper claims and whether it holds here, and what is missing."""
    item = made.item
    lines = [f"{item.title}. {item.scale.said[0].upper()}{item.scale.said[1:]}."]
    if not item.scale.comparable and any(line.paper for line in made.lines):
        lines.append(
            "The paper's numbers stand beside ours to show what the item is; no difference is given, since digits are not CIFAR-10."
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
    found: dict[tuple[str, str], list[str]] = {}
    for said in made.missing:
        parts = re.fullmatch(r"(.*) seed (\d+): (.*)", said)
        what, seed, why = parts.groups() if parts else (said, "", "")
        found.setdefault((what, why), []).append(seed)
    return [
        f"missing: {what}{', seed ' + ', '.join(seeds) if seeds != [''] else ''}{': ' + why if why else ''}" for (what, why), seeds in found.items()
    ]  # fmt: skip


def made_by(made: ItemOutcome) -> str:
    about = made.about
    return (
        f"Made by `{about['command']}`, actkit {about['actkit']} at {about['commit'] or 'an installed release'}, torch {about['torch']}, "
        f"{about['gpu'] or about['processor']}"
        + "".join(f"; measured by {said}" for said in about["examined_by"])
        + "."
    )


def item_json(made: ItemOutcome) -> dict[str, Any]:
    def cell(line: Line, column: PublishedColumn) -> dict[str, Any]:
        ours, printed = line.ours.get(column.title), line.paper.get(column.title)
        return {
            "ours": None if ours is None else ours.to_json(),
            "paper": None if printed is None else {k: v for k, v in dataclasses.asdict(printed).items() if v not in (None, "")},
            "difference": line.difference(column) if made.item.scale.comparable else None,
            "protocol": column.protocol, "percent": column.percent, "images": line.images.get(column.title),
        }  # fmt: skip

    return {
        "item": made.item.name, "title": made.item.title, "scale": made.item.scale.name, "said": made.item.scale.said,
        "rows": [
            {
                "group": line.row.group, "model": line.row.method, "seeds": list(line.seeds), "recipe": line.row.training.recipe,
                "settings": [*line.row.training.settings, *made.item.scale.changed], "cells": {c.title: cell(line, c) for c in made.item.columns},
            }
            for line in made.lines
        ],
        "examination": None if made.item.examination is None else dataclasses.asdict(made.item.examination),
        "claims": [{"said": v.claim.said, "column": v.claim.column, "answer": v.answer, "because": list(v.because)} for v in made.verdicts],
        "notes": list(made.item.notes), "missing": list(made.missing), "about": made.about,
    }  # fmt: skip


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
                ours, printed = line.ours.get(column.title), line.paper.get(column.title)
                found: dict[str, Any] = (
                    ours.to_json() if ours else {"mean": None, "std": None, "n": 0, "verified": None}
                )
                table.writerow([
                    one.item.name, one.item.scale.name, line.row.group, line.row.method, column.title, found["mean"], found["std"], found["n"],
                    " ".join(map(str, found.get("seeds", ()))), found["verified"],
                    line.images.get(column.title), printed and printed.value, printed and printed.std, printed and printed.note,
                    line.difference(column) if one.item.scale.comparable else None, column.protocol,
                ])  # fmt: skip
    return out.getvalue().rstrip("\n")


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
            "md": "\n\n".join(parts), "csv": items_csv([one]), "tex": printed(item_grid(one), "latex"), "json": json.dumps(item_json(one), indent=1)
        }  # fmt: skip
        for suffix, content in files.items():
            (folder / f"{one.item.name}.{suffix}").write_text(content + "\n", encoding="utf-8")

"""Pictures of a study as a whole: its methods beside each other, and all its trainings on the same axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from actkit.probes.pictures import Picture
from actkit.reports import curves
from actkit.reports.tables import Finished, Table, TableRow


def of_study(made: Table) -> list[Picture]:
    """What compares the table's groups, by the headline model of each; nothing of a table that has one."""
    rows = _headlines(made)
    drawn = [methods(made, rows), trainings(rows)] if len(rows) > 1 else []
    return [picture for picture in drawn if picture is not None]


def pictures(made: Table, runs: Sequence[Finished]) -> list[Picture]:
    """Everything that there is to see of these runs: what compares them, the sweep, and each of them."""
    return [*of_study(made), *curves.pictures(made, runs)]


def _headlines(made: Table) -> list[TableRow]:
    """Of each group the model that its table begins with."""
    first: dict[str, TableRow] = {}
    for row in made.rows:
        first.setdefault(row.group, row)
    return list(first.values())


def methods(made: Table, rows: Sequence[TableRow]) -> Picture | None:
    """The rates of each method, such as clean and under attack: single seeds, mean and deviation. None where no rate was measured."""
    series: dict[str, dict[str, Any]] = {}
    for column in made.columns:
        numbers = [row.numbers.get(column) for row in rows]
        if not any(number is not None and number.percent for number in numbers):
            continue
        known = [n if n is not None and math.isfinite(n.mean) else None for n in numbers]
        series[column] = {
            "y": [None if n is None else n.mean for n in known],
            "error": [None if n is None or math.isnan(n.std) else n.std for n in known],
            "values": [[] if n is None else list(n.values) for n in known],
            "doubted": [n is not None and not n.verified for n in known],
        }
    if not series:
        return None
    seeds = sorted({len(row.seeds) for row in rows})
    caption = f"{made.caption[0].partition(';')[0]}; pale: single seeds (n = {' or '.join(map(str, seeds))})"
    if any(any(one["doubted"]) for one in series.values()):
        caption += "; hollow: unverified, the notes below the table say why"
    data = {"groups": [_title(row, rows) for row in rows], "series": series, "x_label": "%", "percent": True}
    return Picture("methods", "dots", "The methods, mean and deviation over seeds", data, caption)


def trainings(rows: Sequence[TableRow]) -> Picture | None:
    """What each training's monitor saw of the headline model after each epoch, a small picture a method, a line a seed. None where nothing was seen."""
    panels = []
    for row in rows:
        series: dict[str, dict[str, Any]] = {}
        for seed, folder in zip(row.seeds, row.folders, strict=True):
            seen = curves.curves(folder)
            for name, one in (seen.data["series"] if seen else {}).items():
                if one["as"] == row.model:
                    label = name.rpartition(", ")[2]
                    series[f"{label}, seed {seed}"] = {
                        "x": one["x"], "y": one["y"], "dashed": one["dashed"], "as": label,
                    }  # fmt: skip
        panels.append({"title": _title(row, rows), "series": series})
    if not any(panel["series"] for panel in panels):
        return None
    data = {"panels": panels, "x_label": "epoch", "y_label": "accuracy", "percent": True}
    caption = "As monitored after each epoch, on few images; a line a seed, dashed without an attack."
    return Picture("trainings", "panels", "All trainings, on the same axes", data, caption)


def _title(row: TableRow, rows: Sequence[TableRow]) -> str:
    """The group; with its model where those of others are called otherwise."""
    return row.group if len({one.model for one in rows}) == 1 else f"{row.group} {row.model}"

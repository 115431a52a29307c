"""What `actkit report` prints: a table of the runs that belong together, one after another, and a line for each run that has no place in one."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from actkit.reports.grids import assert_format, printed
from actkit.reports.runs import Damaged, Finished, Runs, Unfinished, comparable, list_grid, listed
from actkit.reports.tables import Table, same_runs, table, table_csv, table_grid, table_json


@dataclass(frozen=True)
class Overview:
    """Tables and what stands below the last.

    Args:
        groups: the runs of each table.
        copies: runs that are left out, each with the one that it is a copy of.
    """

    tables: tuple[Table, ...]
    groups: tuple[tuple[Finished, ...], ...]
    copies: tuple[tuple[Finished, Finished], ...]
    unfinished: tuple[Unfinished, ...]
    damaged: tuple[Damaged, ...]

    @property
    def notes(self) -> list[str]:
        """A line for each run that is in no table."""
        return [
            *(f"left out: {run.folder}: the same settings and seed as {first.folder}" for run, first in self.copies),
            *(f"not finished: {run}" for run in self.unfinished),
            *(f"damaged: {run}" for run in self.damaged),
        ]

    def to_json(self) -> dict[str, Any]:
        """With a single table also that table's own keys, as `table_json` has them."""
        tables = [table_json(made) for made in self.tables]
        return {
            **(tables[0] if len(tables) == 1 else {}),
            "tables": tables,
            "unfinished": [str(run.folder) for run in self.unfinished],
            "states": {str(run.folder): str(run.state) for run in self.unfinished},
            "damaged": {str(run.folder): run.error.message for run in self.damaged},
            "left_out": {str(run.folder): str(first.folder) for run, first in self.copies},
        }


def overview(runs: Runs) -> Overview:
    """Nothing refuses the rest: what cannot stand in one table stands in several."""
    groups, copies = [], []
    for group in comparable(runs.finished):
        twice = same_runs(group)
        copies += twice
        again = [id(run) for run, _ in twice]
        groups.append(tuple(run for run in group if id(run) not in again))
    tables = tuple(table(group) for group in groups)
    return Overview(tables, tuple(groups), tuple(copies), tuple(runs.unfinished), tuple(runs.damaged))


def formatted(made: Overview, how: str) -> str:
    """Raises `InputError` for a format that is not there."""
    assert_format(how)
    if how == "csv":
        return table_csv(*made.tables)
    if how == "json":
        return json.dumps(made.to_json())
    grids = [table_grid(one) for one in made.tables]
    if grids:
        grids[-1] = dataclasses.replace(grids[-1], caption=[*grids[-1].caption, *made.notes])
    text = [printed(grid, how) for grid in grids]
    return "\n\n".join(text or ["\n".join(made.notes)])


def formatted_list(runs: Runs, how: str) -> str:
    """A line a run. Raises `InputError` for a format that is not there."""
    assert_format(how)
    lines = listed(runs)
    if how == "json":
        return json.dumps([one.to_json() for one in lines])
    return printed(list_grid(lines), how)

"""Tables of several runs: grouped by what they differ in, mean and standard deviation over seeds, with n; as text, Markdown, CSV, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actkit.config.compare import canonical, diff, flat, flats
from actkit.config.spec import Spec
from actkit.errors import InputError, raise_all
from actkit.reports.grids import Grid, Notes, assert_format, printed
from actkit.reports.rows import UNVERIFIED, titles, unit
from actkit.reports.runs import Finished, Unfinished, examined_alike, tested_alike
from actkit.reports.runs import find as runs_in


@dataclass(frozen=True)
class Number:
    """A number over seeds. `values` are fractions where `percent`; an unverified one has a red flag on at least one of its models.

    Args:
        because: these flags, each with its seed.
        within: where each value is itself a mean over draws, the deviation over these, a value each; not a number where it is not known.
    """

    values: tuple[float, ...]
    percent: bool
    verified: bool = True
    seeds: tuple[int, ...] = ()
    because: tuple[str, ...] = ()
    within: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Of the sample, over n - 1; not a number for a single seed."""
        return (
            statistics.stdev(self.values) if len(self.values) > 1 and all(map(math.isfinite, self.values)) else math.nan
        )

    def shown(self, among: int | None = None, digits: int = 4) -> str:
        """`among`: how many seeds the row has; a number of fewer says so. `digits` of what is no percentage."""
        scale, digits = (100, 2) if self.percent else (1, digits)
        text = f"{scale * self.mean:.{digits}f}"
        if len(self.values) > 1:
            text += f" ± {scale * self.std:.{digits}f}"
        if among is not None and len(self.values) != among:
            text += f" (n = {len(self.values)})"
        return text if self.verified else f"{text} {UNVERIFIED}"

    def to_json(self) -> dict[str, Any]:
        """Fractions where `percent`; what is not finite is null."""
        values = [v if math.isfinite(v) else None for v in self.values]
        return {
            "values": values,
            "mean": self.mean if math.isfinite(self.mean) else None,
            "std": None if math.isnan(self.std) else self.std,
            "n": len(values),
            "seeds": list(self.seeds),
            "percent": self.percent,
            "verified": self.verified,
            "because": list(self.because),
            **({"within": [w if math.isfinite(w) else None for w in self.within]} if self.within else {}),
        }


@dataclass(frozen=True)
class TableRow:
    group: str  # what this one differs in: 'act alpha=0.5'
    model: str
    seeds: tuple[int, ...]
    numbers: dict[str, Number]
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    caption: tuple[str, ...]
    unfinished: tuple[Unfinished, ...] = ()


def find(paths: Iterable[Path]) -> tuple[list[Finished], list[Unfinished]]:
    """The finished runs at or below these folders, and those that are not finished. Raises `InputError` where there is no run, or one is damaged."""
    found = runs_in(paths)
    raise_all(one.error for one in found.damaged)
    return found.finished, found.unfinished


def _assert_alike(runs: Sequence[Finished]) -> None:
    """Raise `InputError` for runs whose numbers do not mean the same."""
    first = runs[0]
    for other in runs[1:]:
        if not tested_alike(first, other):
            tested = [f"{one.summary.data} {one.summary.data_fingerprint}" for one in (first, other)]
            raise InputError(
                f"these runs were tested on different data: {' and '.join(tested)}",
                where=f"{first.folder}, {other.folder}",
                help="make a table of each",
            )
        if not examined_alike(first, other):
            mine, theirs = (Spec("", "run", {"evaluation": list(r.summary.evaluation)}) for r in (first, other))
            path, a, b = diff(mine, theirs)[0]
            raise InputError(
                f"these runs were examined differently: {path.removeprefix('run.')} is {a!r} in one and {b!r} in another",
                where=f"{first.folder}, {other.folder}",
                help="examine them alike: actkit probe --ckpt A --ckpt B --evaluation FILE, or make a table of each",
            )


_ASIDE = ("run.seed", "run.evaluation", "run.keep", "run.save_every")  # what no result depends on, or what is equal


def differences(runs: Sequence[Finished]) -> list[str]:
    """What tells each run from the others, its seed aside: the names of its components where they differ, and the settings that differ within those."""
    # What a run looks at while it trains changes nothing, unless it chooses or ends by it.
    chooses = any(run.spec.kwargs.get(key) is not None for run in runs for key in ("best", "stop_on_drop"))
    aside = _ASIDE if chooses else (*_ASIDE, "run.monitor")
    # Components are named wherever there are any: their defaults, and so they themselves, are not needed for that.
    settings = [flat(run.spec, defaults=False) for run in runs]
    roles = dict.fromkeys(path for s in settings for path in s if path.endswith(".backbone"))
    named = ["run.objective", "run.data", *roles]
    titles: list[list[str]] = [[] for _ in runs]
    for path in named:
        values = [str(s[path]).rpartition(".")[2] if path in s else None for s in settings]
        if len(set(values) - {None}) > 1:
            for title, value in zip(titles, values, strict=True):
                if value is not None and value not in title:
                    title.append(value)
    kin = [tuple(title) for title in titles]
    out = [" ".join(title) for title in titles]
    for group in dict.fromkeys(kin):
        members = [i for i, k in enumerate(kin) if k == group]
        own = _settings([runs[i] for i in members], aside)
        for path, name in _varying(own).items():
            for i, setting in zip(members, own, strict=True):
                out[i] += f" {name}={setting.get(path)}"
    return [title.strip() or runs[0].folder.parent.name for title in out]


def _settings(runs: Sequence[Finished], aside: tuple[str, ...]) -> list[dict[str, Any]]:
    """The settings of runs that are to be compared."""
    kept = [
        {name: value for name, value in run.spec.kwargs.items() if not f"run.{name}".startswith(aside)} for run in runs
    ]
    made = flats([Spec("", "run", kwargs) for kwargs in kept])
    return [{path: value for path, value in one.items() if not path.startswith(aside)} for one in made]


def _varying(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The settings that differ, by path, and the shortest name that tells each from the others; what differs alike in every role is named once."""
    paths: list[str] = []
    seen: set[str] = set()
    for path in dict.fromkeys(p for s in settings for p in s):
        values = tuple(repr(canonical(s.get(path))) for s in settings)
        in_a_role = (path.split(".")[3:], values) if path.startswith("run.roles.") else None
        if len(set(values)) < 2 or (in_a_role and repr(in_a_role) in seen):
            continue
        if in_a_role:
            seen.add(repr(in_a_role))
        paths.append(path)
    names = {}
    for path in paths:
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if sum(other == path or other.endswith(f".{name}") for other in paths) == 1:
                break
        names[path] = name
    return names


@dataclass(frozen=True)
class _Cell:
    """A number of one run; `because`: the red flags on it."""

    seed: int
    value: float
    verified: bool
    because: tuple[str, ...] = ()


def table(runs: Sequence[Finished], unfinished: Sequence[Unfinished] = ()) -> Table:
    """Mean and deviation over seeds of every number that the runs' own tables show. Raises `InputError` for runs that cannot stand in one table."""
    if not runs:
        listed = "; ".join(map(str, unfinished[:3]))
        raise InputError(f"no run here is finished ({listed})", help="the same `actkit run` again goes on with it")
    _assert_alike(runs)
    named = titles(pair for run in runs for pair in run.summary.results.items())
    found: dict[tuple[str, str], dict[str, list[_Cell]]] = {}
    members: dict[tuple[str, str], list[Finished]] = {}
    percents: dict[str, bool] = {}
    for run, group in zip(runs, differences(runs), strict=True):
        for name, result in run.summary.results.items():
            if not result.columns:
                continue
            cells = found.setdefault((group, name.model), {})
            own = members.setdefault((group, name.model), [])
            if run not in own:
                own.append(run)
            for column in result.columns:
                value, title = result.numbers.get(column.number), named[name.label, column.number]
                if value is not None:
                    percents[title] = column.percent
                    cell = _Cell(run.seed, value, not result.unverified, result.because)
                    cells.setdefault(title, []).append(cell)
    columns = [title for title in named.values() if title in percents]
    rows = [
        _row(group, model, members[group, model], {t: cells[t] for t in columns if t in cells}, percents)
        for (group, model), cells in found.items()
    ]
    first = runs[0].summary
    caption = [f"{first.data}; mean ± standard deviation of the sample over n seeds; {unit(percents)}"]
    caption += [f"{spec.title}: {spec!r}" for spec in first.evaluation]
    caption += [f"not finished: {run}" for run in unfinished]
    return Table(tuple(columns), tuple(rows), tuple(caption), tuple(unfinished))


def same_runs(runs: Sequence[Finished]) -> list[tuple[Finished, Finished]]:
    """Runs with the settings and the seed of an earlier one, each with that: copies, which no mean may count twice."""
    seen: dict[tuple[str, int], Finished] = {}
    found = []
    for run, group in zip(runs, differences(runs), strict=True):
        first = seen.setdefault((group, run.seed), run)
        if first is not run:
            found.append((run, first))
    return found


def _row(
    group: str, model: str, runs: Sequence[Finished], cells: Mapping[str, Sequence[_Cell]], percents: Mapping[str, bool]
) -> TableRow:
    """One model's numbers over seeds. Raises `InputError` where a seed is there twice."""
    seeds = [run.seed for run in runs]
    if twice := {s for s in seeds if seeds.count(s) > 1}:
        where = ", ".join(str(run.folder) for run in runs if run.seed in twice)
        raise InputError(
            f"two runs have the same settings and the seed {min(twice)}", where=where, help="leave one out"
        )
    numbers = {
        title: Number(
            tuple(cell.value for cell in own),
            percents[title],
            all(cell.verified for cell in own),
            tuple(cell.seed for cell in own),
            _because(own),
        )
        for title, own in cells.items()
    }
    return TableRow(group, model, tuple(seeds), numbers, tuple(run.folder for run in runs))


def _because(cells: Sequence[_Cell]) -> tuple[str, ...]:
    """Why a number over seeds is unverified: each red flag with the seeds that have it."""
    seeds: dict[str, list[int]] = {}
    for cell in cells:
        if not cell.verified:
            for said in cell.because or ("its summary does not say why",):
                seeds.setdefault(said, []).append(cell.seed)
    return tuple(f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {said}" for said, own in seeds.items())


def table_grid(made: Table) -> Grid:
    """A number that no run has is a dash; one that is unverified names the notes that say why."""
    grouped = len({row.group for row in made.rows}) > 1
    titles = [*(["group"] if grouped else []), "model", "n", *made.columns]
    body, notes = [], Notes()
    for row in made.rows:
        cells = []
        for column in made.columns:
            number = row.numbers.get(column)
            why = [f"{row.group}, {said}" for said in number.because] if number else []
            cells.append(notes.marked(number.shown(len(row.seeds)), why) if number else "-")
        body.append([*([row.group] if grouped else []), row.model, str(len(row.seeds)), *cells])
    return Grid(titles, body, list(made.caption), left=1 + grouped, notes=[f"{UNVERIFIED}: {said}" for said in notes])


def table_csv(*tables: Table) -> str:
    """Every number of every row on a line of its own, unrounded: a fraction where `percent` is true. Several tables are told apart by their number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    titles = ["group", "model", "number", "mean", "std", "percent", "n", "seeds", "verified", "because", "table"]
    writer.writerow(titles)
    for i, row in ((i, row) for i, made in enumerate(tables, 1) for row in made.rows):
        for name, number in row.numbers.items():
            std = "" if math.isnan(number.std) else number.std
            writer.writerow(
                [
                    row.group,
                    row.model,
                    name,
                    number.mean,
                    std,
                    number.percent,
                    len(number.values),
                    " ".join(map(str, number.seeds)),
                    number.verified,
                    "; ".join(number.because),
                    i,
                ]
            )
    return out.getvalue().rstrip("\n")


def table_json(made: Table) -> dict[str, Any]:
    return {
        "columns": list(made.columns),
        "caption": list(made.caption),
        "unfinished": [str(run.folder) for run in made.unfinished],
        "rows": [
            {
                "group": row.group,
                "model": row.model,
                "seeds": list(row.seeds),
                "numbers": {title: number.to_json() for title, number in row.numbers.items()},
                "runs": [str(folder) for folder in row.folders],
            }
            for row in made.rows
        ],
    }


def formatted(made: Table, how: str) -> str:
    """Raises `InputError` for a format that is not there."""
    assert_format(how)
    if how == "csv":
        return table_csv(made)
    return json.dumps(table_json(made)) if how == "json" else printed(table_grid(made), how)

"""Tables of several runs: grouped by what they differ in, mean and standard deviation over seeds, with n; as text, Markdown, CSV, LaTeX, JSON."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actkit import config
from actkit.errors import InputError, nearest
from actkit.pictures import Picture
from actkit.report import UNVERIFIED, robust_number
from actkit.run import marked
from actkit.spec import Spec, amount


@dataclass(frozen=True)
class Finished:
    """A run and what its examination found."""

    folder: Path
    spec: Spec
    summary: dict[str, Any]

    @property
    def seed(self) -> int:
        return int(self.spec.kwargs.get("seed", 0))


@dataclass(frozen=True)
class Number:
    """A number over seeds. `values` are fractions where `percent`; an unverified one has a red flag on at least one of its models."""

    values: tuple[float, ...]
    percent: bool
    verified: bool = True

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Of the sample, over n - 1; not a number for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def shown(self, plus_minus: str = " ± ") -> str:
        scale, digits = (100, 2) if self.percent else (1, 4)
        text = f"{scale * self.mean:.{digits}f}"
        if len(self.values) > 1:
            text += f"{plus_minus}{scale * self.std:.{digits}f}"
        return text if self.verified else f"{text} {UNVERIFIED}"


@dataclass(frozen=True)
class Row:
    group: str  # what this one differs in: 'act alpha=0.5'
    model: str
    seeds: tuple[int, ...]
    numbers: dict[str, Number]
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...]
    unfinished: tuple[Path, ...] = ()


def find(paths: Iterable[Path]) -> tuple[list[Finished], list[Path]]:
    """The finished runs at or below these folders, and those that are not finished. Raises `InputError` where there is no run."""
    finished: list[Finished] = []
    unfinished: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise InputError("there is no such folder", where=str(path), help="give runs, or folders that hold runs")
        kept = [path / "config.json"] if (path / "config.json").is_file() else sorted(path.rglob("config.json"))
        runs = [
            file.parent
            for file in kept
            if (file.parent / "metrics.jsonl").is_file()
            or (file.parent / "checkpoints").is_dir()
            or (file.parent / "summary.json").is_file()
        ]
        if not runs:
            raise InputError(
                "this folder is no run and holds none", where=str(path), help="a run has config.json and checkpoints"
            )
        for folder in runs:
            if not (folder / "summary.json").is_file():
                unfinished.append(folder)
                continue
            try:
                spec = Spec.from_json(json.loads((folder / "config.json").read_text(encoding="utf-8")))
                summary = marked(folder, json.loads((folder / "summary.json").read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"this run cannot be read: {error}", where=str(folder)) from error
            if not any(folder.resolve() == one.folder.resolve() for one in finished):
                finished.append(Finished(folder, spec, summary))
    return finished, unfinished


def _assert_alike(runs: Sequence[Finished]) -> None:
    """Raise `InputError` for runs whose numbers do not mean the same."""
    first = runs[0]
    for other in runs[1:]:
        if other.summary["data_fingerprint"] != first.summary["data_fingerprint"]:
            raise InputError(
                "these runs were tested on different data: "
                f"{first.summary['data']} {first.summary['data_fingerprint']} and {other.summary['data']} {other.summary['data_fingerprint']}",
                where=f"{first.folder}, {other.folder}", help="make a table of each",
            )  # fmt: skip
        mine, theirs = (
            Spec("", "run", {"evaluation": Spec.from_json(r.summary["evaluation"])}) for r in (first, other)
        )
        if changes := config.diff(mine, theirs):
            path, a, b = changes[0]
            raise InputError(
                f"these runs were examined differently: {path.removeprefix('run.')} is {a!r} in one and {b!r} in another",
                where=f"{first.folder}, {other.folder}",
                help="examine them alike: actkit probe --ckpt A --ckpt B --evaluation FILE, or make a table of each",
            )


_ASIDE = (
    "run.seed",
    "run.evaluation",
    "run.monitor",
    "run.keep",
    "run.save_every",
)  # settings that no result depends on, or that are equal


def differences(runs: Sequence[Finished]) -> list[str]:
    """What tells each run from the others, its seed aside: the names of its components where they differ, and the settings that differ within those."""
    settings = [
        {path: value for path, value in config.flat(run.spec).items() if not path.startswith(_ASIDE)} for run in runs
    ]
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
        paths = dict.fromkeys(p for i in members for p in settings[i])
        varying = [p for p in paths if len({repr(settings[i].get(p)) for i in members}) > 1]
        seen: set[tuple[Any, ...]] = set()
        for path in varying:
            each = tuple(repr(settings[i].get(path)) for i in members)
            if each in seen:  # the same setting in every role is said once
                continue
            seen.add(each)
            for i in members:
                out[i] += f" {path.rpartition('.')[2]}={settings[i].get(path)}"
    return [title.strip() or runs[0].folder.parent.name for title in out]


def table(runs: Sequence[Finished], unfinished: Sequence[Path] = ()) -> Table:
    """Mean and deviation over seeds of every number that the runs' own tables show. Raises `InputError` for runs that cannot stand in one table."""
    if not runs:
        listed = ", ".join(map(str, unfinished[:3]))
        raise InputError(f"no run here is finished ({listed})", help="the same `actkit run` again goes on with it")
    _assert_alike(runs)
    groups: dict[tuple[str, str], list[tuple[Finished, dict[str, Number]]]] = {}
    columns: dict[str, None] = {}
    for run, title in zip(runs, differences(runs), strict=True):
        by_model: dict[str, dict[str, Number]] = {}
        for name, result in run.summary["results"].items():
            model = name.rpartition(".")[0]
            for column in result["columns"]:
                value = result["numbers"].get(column["number"])
                shown = column["title"]
                if value is not None:
                    by_model.setdefault(model, {})[shown] = Number(
                        (value,), column["percent"], result.get("verified", True)
                    )
                    columns.setdefault(shown)
        for model, numbers in by_model.items():
            groups.setdefault((title, model), []).append((run, numbers))
    rows = []
    for (title, model), members in groups.items():
        seeds = [run.seed for run, _ in members]
        if twice := {s for s in seeds if seeds.count(s) > 1}:
            where = ", ".join(str(run.folder) for run, _ in members if run.seed in twice)
            raise InputError(
                f"two runs have the same settings and the seed {min(twice)}", where=where, help="leave one out"
            )
        numbers = {}
        for column in columns:
            found = [n[column] for _, n in members if column in n]
            if found:
                numbers[column] = Number(
                    tuple(n.values[0] for n in found), found[0].percent, all(n.verified for n in found)
                )
        rows.append(Row(title, model, tuple(seeds), numbers, tuple(run.folder for run, _ in members)))
    first = runs[0].summary
    caption = [f"{first['data']}; mean and standard deviation over n seeds; percent unless the title says otherwise"]
    caption += [f"{spec.title}: {spec!r}" for spec in map(Spec.from_json, first["evaluation"])]
    caption += [f"not finished: {folder}" for folder in unfinished]
    return Table(tuple(columns), tuple(rows), tuple(caption), tuple(unfinished))


def cells(made: Table, plus_minus: str = " ± ") -> tuple[list[str], list[list[str]]]:
    """Titles and rows as text; a number that no run has is a dash."""
    grouped = len({row.group for row in made.rows}) > 1
    titles = [*(["group"] if grouped else []), "model", "n", *made.columns]
    body = [
        [
            *([row.group] if grouped else []), row.model, str(len(row.seeds)),
            *(row.numbers[c].shown(plus_minus) if c in row.numbers else "-" for c in made.columns),
        ]
        for row in made.rows
    ]  # fmt: skip
    return titles, body


def as_text(made: Table) -> str:
    titles, body = cells(made)
    widths = [max(len(line[i]) for line in [titles, *body]) for i in range(len(titles))]
    texts = sum(title in ("group", "model") for title in titles)
    lines = [
        "  ".join(
            cell.ljust(w) if i < texts else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [titles, *body]
    ]
    return "\n".join([*lines, *made.caption])


def as_markdown(made: Table) -> str:
    titles, body = cells(made)
    lines = ["| " + " | ".join(line) + " |" for line in [titles, *body]]
    rule = "|" + "|".join("---" if title in ("group", "model") else "---:" for title in titles) + "|"
    return "\n".join([lines[0], rule, *lines[1:], "", *(f"- {line}" for line in made.caption)])


def as_csv(made: Table) -> str:
    """Every number of every row on a line of its own, unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "model", "number", "mean", "std", "n", "seeds", "verified"])
    for row in made.rows:
        for name, number in row.numbers.items():
            std = "" if math.isnan(number.std) else number.std
            writer.writerow(
                [
                    row.group,
                    row.model,
                    name,
                    number.mean,
                    std,
                    len(number.values),
                    " ".join(map(str, row.seeds)),
                    number.verified,
                ]
            )
    return out.getvalue().rstrip("\n")


_LATEX = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def as_latex(made: Table) -> str:
    """A tabular for booktabs."""
    titles, body = cells(made, plus_minus=" \0 ")

    def line(texts: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(c, c) for c in t).replace("\0", r"$\pm$") for t in texts) + r" \\"

    left = sum(title in ("group", "model") for title in titles)
    head = [rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(titles) - left)}}}", r"\toprule", line(titles), r"\midrule"]
    notes = ["% " + text for text in made.caption]
    return "\n".join([*notes, *head, *map(line, body), r"\bottomrule", r"\end{tabular}"])


def to_json(made: Table) -> dict[str, Any]:
    def number(n: Number) -> dict[str, Any]:
        return {
            "values": list(n.values),
            "mean": n.mean,
            "std": None if math.isnan(n.std) else n.std,
            "n": len(n.values),
            "verified": n.verified,
        }

    return {
        "columns": list(made.columns), "caption": list(made.caption), "unfinished": [str(p) for p in made.unfinished],
        "rows": [
            {"group": r.group, "model": r.model, "seeds": list(r.seeds), "numbers": {k: number(n) for k, n in r.numbers.items()}, "runs": [str(f) for f in r.folders]}
            for r in made.rows
        ],
    }  # fmt: skip


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "table": as_text, "markdown": as_markdown, "csv": as_csv, "latex": as_latex, "json": lambda made: json.dumps(to_json(made)),
}  # fmt: skip


def formatted(made: Table, how: str) -> str:
    """Raises `InputError` for a format that is not there."""
    if how not in FORMATS:
        raise InputError(f"there is no format {how!r}", help=nearest(how, FORMATS))
    return FORMATS[how](made)


# -- pictures --------------------------------------------------------------------------------------------------------------


def curves(folder: Path) -> Picture | None:
    """A run's training: what the monitor saw of each model after each epoch, the best and the last marked. None where nothing was monitored."""
    series: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a torn last line
                entry = json.loads(line)
                for name, found in entry.get("monitor", {}).items():
                    model = name.rpartition(".")[0]
                    value = robust_number(found)
                    what = "clean" if value is None else "under attack"
                    one = series.setdefault(
                        f"{model}, {what}", {"x": [], "y": [], "dashed": what == "clean", "as": model}
                    )
                    one["x"].append(entry["epoch"])
                    one["y"].append(found.get("clean") if value is None else value)
    if not series:
        return None
    for name, one in series.items():
        if name.endswith("under attack"):
            best = max(range(len(one["y"])), key=one["y"].__getitem__)
            marks = {best: "best", len(one["y"]) - 1: "last"}
            one["marks"] = [{"x": one["x"][i], "y": one["y"][i], "text": text} for i, text in marks.items()]
    data = {"series": series, "x_label": "epoch", "y_label": "accuracy", "percent": True}
    return Picture(
        f"training-{folder.parent.name}-{folder.name}", "lines", "Accuracy while training, as monitored", data
    )


def sweep_of(made: Table) -> list[Picture]:
    """Each column as a function of the one number that the rows differ in, such as alpha (ACT, Table 1); none where they differ in more."""
    points = []
    for row in made.rows:
        name, _, value = row.group.rpartition(" ")[2].partition("=")
        place = amount(value)
        if place is None:
            return []
        points.append((row.group.rpartition(" ")[0], name, float(place), row))
    if len({(kin, name) for kin, name, _, _ in points}) != 1 or len({value for _, _, value, _ in points}) < 2:
        return []
    series: dict[str, dict[str, Any]] = {}
    for _, _, where, row in sorted(points, key=lambda p: p[2]):
        for column, number in row.numbers.items():
            if not number.percent:
                continue
            one = series.setdefault(f"{row.model}, {column}", {"x": [], "y": [], "low": [], "high": []})
            spread = 0.0 if math.isnan(number.std) else number.std
            for key, at in (
                ("x", where),
                ("y", number.mean),
                ("low", number.mean - spread),
                ("high", number.mean + spread),
            ):
                one[key].append(at)
    name = points[0][1]
    data = {"series": series, "x_label": name, "y_label": "mean and deviation over seeds", "percent": True}
    return [Picture(f"sweep-{name}", "lines", f"Accuracy as {name} changes", data)] if series else []


def pictures(made: Table, runs: Sequence[Finished]) -> list[Picture]:
    """Everything that there is to see of these runs: the sweep, each training, what each evaluation showed."""
    found = sweep_of(made)
    for run in runs:
        drawn = curves(run.folder)
        found += [drawn] if drawn else []
        for file in sorted((run.folder / "probes").glob("*.picture.json")):
            try:
                picture = Picture.from_json(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"this picture cannot be read: {error}", where=str(file), help="examine the run again"
                ) from error
            found.append(
                dataclasses.replace(picture, name=f"{picture.name}-{run.folder.parent.name}-{run.folder.name}")
            )
    return found

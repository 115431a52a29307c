"""What came of a paper's tables and figures: ours over seeds beside what the paper prints, its claims held against ours, the pictures.

Nothing is run here: what the study (`paper.study`) has not trained or examined is missing, and said to be.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from actkit.evaluation.summary import Summary
from actkit.machine import provenance
from actkit.probes.pictures import Picture, averaged, merged, of_model
from actkit.reports.paper.study import PaperStudy, paper_study, slug
from actkit.reports.paper.terms import Claim, Item, Paper, Published, PublishedColumn, PublishedRow
from actkit.reports.tables import Number


@dataclass(frozen=True)
class Line:
    """A row: ours over the seeds that are there, and the paper's."""

    row: PublishedRow
    ours: Mapping[str, Number]
    seeds: tuple[int, ...]
    paper: Mapping[str, Published]
    # How many each number looked at.
    images: Mapping[str, int]

    def difference(self, column: PublishedColumn) -> float | None:
        """Ours less the paper's, in the unit that both are printed in."""
        ours, printed = self.ours.get(column.title), self.paper.get(column.title)
        if ours is None or printed is None or printed.note:
            return None
        return (100 if column.percent else 1) * ours.mean - printed.value


Answer = Literal["holds here", "does not hold here", "not clear here", "not known"]


@dataclass(frozen=True)
class Verdict:
    """Whether our numbers bear out what the paper says of its own.

    Clear is a difference of the means over the common seeds that is larger than their deviations together: over the seeds, and, of a number that is a mean over
    draws itself, over these. A single draw is never clear; 'not known' where a number is missing or unverified.
    """

    claim: Claim
    answer: Answer
    because: tuple[str, ...]

    def __str__(self) -> str:
        return f"The paper: {self.claim.said} [{self.claim.column}]: {self.answer}{'; ' * bool(self.because)}{'; '.join(self.because)}"


@dataclass(frozen=True)
class Missing:
    """A result that is not there: of which training or examination, at which seed, and why."""

    what: str
    seed: int | None
    why: str

    @staticmethod
    def of(title: str, seed: int, why: str) -> Missing:
        """By a title that ends in its seed."""
        return Missing(title.removesuffix(f" seed {seed}"), seed, why)

    def __str__(self) -> str:
        return f"{self.what}{'' if self.seed is None else f' seed {self.seed}'}: {self.why}"


@dataclass(frozen=True)
class ItemOutcome:
    item: Item
    lines: tuple[Line, ...]
    missing: tuple[Missing, ...]
    verdicts: tuple[Verdict, ...]
    pictures: tuple[Picture, ...]
    about: dict[str, Any]


def outcome_of(made: PaperStudy, item: Item, command: str) -> ItemOutcome:
    """What there is of an item: nothing is run. Cells that are not there are missing, and said to be."""
    absent: list[Missing] = []
    data: dict[str, dict[str, Any]] = {}
    origins: set[str] = set()
    lines = [_line(made, item, row, data, origins, absent) for row in item.rows]
    cells = dict.fromkeys(made.cell(row, seed) for row in item.rows for seed in made.seeds_of(item))
    about = {
        "command": command,
        "scale": item.scale.name,
        "data": data,
        **provenance(),
        "trainings": {cell.title: str(cell.folder) for cell in cells},
        "examined_by": sorted(origins),
    }
    pictures = [
        dataclasses.replace(p, name=f"{item.name}-{p.name}", caption=_picture_caption(item, p), about=about)
        for p in [*_sweep(item, lines), *_seen(made, item)]
    ]
    verdicts = tuple(_verdict(claim, item, lines) for claim in item.claims)
    return ItemOutcome(item, tuple(lines), tuple(dict.fromkeys(absent)), verdicts, tuple(pictures), about)


def _line(
    made: PaperStudy,
    item: Item,
    row: PublishedRow,
    data: dict[str, dict[str, Any]],
    origins: set[str],
    absent: list[Missing],
) -> Line:
    """A row over the seeds that are there.

    Args:
        data: by block what its models were tested on, filled in; a model that was tested on other data is absent.
        origins: which software and machine measured, filled in; `absent`: what is missing, likewise.
    """
    found: dict[str, list[_Seen]] = {}
    images: dict[str, int] = {}
    seeds = []
    block = row.block
    for seed in made.seeds_of(item):
        got = _result(made, item, row, seed)
        if isinstance(got, Missing):
            absent.append(got)
            continue
        summary, model = got
        tested = {"data": summary.data, "fingerprint": summary.data_fingerprint}
        if data.setdefault(block, tested) != tested:
            title, other = made.cell(row, seed).title, tested["fingerprint"]
            absent.append(Missing.of(title, seed, f"tested on other data than the rest of {block}: {other}"))
            continue
        seeds.append(seed)
        origins.add(_origin(summary))
        own = summary.of(model)
        for column in item.columns:
            result = own.get(column.label(row.reading) or "")
            value = result.numbers.get(column.number) if result else None
            if result is not None and value is not None:
                spread = result.numbers.get(column.deviation or "")
                within = math.nan if spread is None else float(spread)
                found.setdefault(column.title, []).append(_Seen(seed, float(value), not result.unverified, within))
                if result.images:
                    images[column.title] = result.images
    numbers = {c.title: _number(found[c.title], c) for c in item.columns if c.title in found}
    printed = {
        column.title: published
        for column, published in zip(item.columns, row.paper, strict=False)
        if published is not None and column.label(row.reading) is not None
    }
    return Line(row, numbers, tuple(seeds), printed, images)


class _Seen(NamedTuple):
    """A number of one seed; `within` is its deviation over draws, not a number where there is none."""

    seed: int
    value: float
    verified: bool
    within: float


def _number(found: Sequence[_Seen], column: PublishedColumn) -> Number:
    seeds, values, verified, within = zip(*found, strict=True)
    return Number(values, column.percent, all(verified), seeds, within=within if column.deviation else ())


def _origin(summary: Summary) -> str:
    by = summary.versions
    commit = by.get("commit") or "an installed release"
    return f"actkit {by.get('actkit')} at {commit}, torch {by.get('torch')}, {by.get('gpu') or by.get('processor')}"


def _result(made: PaperStudy, item: Item, row: PublishedRow, seed: int) -> tuple[Summary, str] | Missing:
    """A summary and what it calls the row's model, or what is missing."""
    own = made.cell(row, seed)
    if not own.done:
        return Missing.of(own.title, seed, "not trained")
    task = made.task(item, row, seed)
    if task is None:
        found = Summary.load(own.folder)
        model = row.role or found.headline
        none = Missing.of(own.title, seed, "its evaluation has no probe")
        return (found, model) if model and found.results else none
    summary = task.summary
    if summary is None or not task.done:
        return Missing.of(task.title, seed, "not examined")
    for name, model_facts in summary.models.items():
        inside = own.folder.resolve() in Path(model_facts.file).resolve().parents
        if inside and row.role in ("", model_facts.role):
            return summary, name
    return Missing.of(task.title, seed, f"no model with the role {row.role}")


def _verdict(claim: Claim, item: Item, lines: Sequence[Line]) -> Verdict:
    groups = list(dict.fromkeys(line.row.group for line in lines)) if isinstance(claim.left, str) else [""]
    unit = " %" if next(c.percent for c in item.columns if c.title == claim.column) else ""

    def ours(side: str | tuple[str, str], group: str) -> Number | None:
        key = side if isinstance(side, tuple) else (group, side)
        return next((line.ours.get(claim.column) for line in lines if (line.row.group, line.row.method) == key), None)

    answers: list[Answer] = []
    because = []
    for group in groups:
        sides = [ours(side, group) for side in (claim.left, *claim.right)]
        if None in sides:
            answers.append("not known")
            continue
        left, *right = [number for number in sides if number is not None]
        answers.append(_held(left, right, claim.sense))
        which = f"{group}: {answers[-1]}: " if len(groups) > 1 else ""
        draws = _over_draws([left, *right], unit)
        because.append(
            f"{which}{left.shown()}{unit} against {', '.join(other.shown() + unit for other in right)}{draws}"
        )
    order: tuple[Answer, ...] = ("does not hold here", "not known", "not clear here", "holds here")
    return Verdict(claim, min(answers, key=order.index), tuple(because))


def _over_draws(numbers: Sequence[Number], unit: str) -> str:
    """How far the draws lie apart of which each number is a mean: ' (over draws ± 2.90, 3.10 %)'; nothing where they are no such means."""
    if not any(number.within for number in numbers):
        return ""
    spread = [_within(number, number.seeds) for number in numbers]
    if any(map(math.isnan, spread)):
        return " (of a single draw)"
    scale = 100 if unit else 1
    return f" (over draws ± {', '.join(f'{scale * one:.2f}' for one in spread)}{unit})"


def _within(number: Number, seeds: Sequence[int]) -> float:
    """The deviation over draws of what a number is the mean of, on these seeds; 0 where it is no such mean, not a number where it is not known."""
    if not number.within:
        return 0.0
    return math.sqrt(statistics.fmean(number.within[number.seeds.index(seed)] ** 2 for seed in seeds))


def _held(left: Number, right: Sequence[Number], sense: str) -> Answer:
    if not all(number.verified for number in (left, *right)):
        return "not known"
    found: set[Answer] = set()
    for other in right:
        seeds = [seed for seed in left.seeds if seed in other.seeds]
        one, two = ([n.values[n.seeds.index(seed)] for seed in seeds] for n in (left, other))
        if not seeds:
            return "not known"
        apart = statistics.fmean(one) - statistics.fmean(two)
        spread = math.hypot(statistics.stdev(one), statistics.stdev(two)) if len(seeds) > 1 else math.inf
        spread = math.hypot(spread, *(_within(number, seeds) for number in (left, other)))
        # Not known is not clear.
        if not abs(apart) > spread:
            found.add("not clear here")
        else:
            found.add("holds here" if (apart > 0) == (sense == "higher") else "does not hold here")
    return (
        "does not hold here"
        if "does not hold here" in found
        else "not clear here"
        if "not clear here" in found
        else "holds here"
    )


def _picture_caption(item: Item, picture: Picture) -> str:
    return " ".join(filter(None, [picture.caption, f"Ours, {item.scale.label}."]))


def _sweep(item: Item, lines: Sequence[Line]) -> Iterator[Picture]:
    """Where the groups are the values of one setting, as in Table 1: every number as it changes, the paper's dashed where they are of the same thing."""
    axis = [line.row.at for line in lines if line.row.at is not None]
    if not axis or len(axis) < len(lines):
        return
    series: dict[str, dict[str, Any]] = {}
    for line, at in zip(lines, axis, strict=True):
        for column in (column for column in item.columns if column.percent):
            ours, printed = line.ours.get(column.title), line.paper.get(column.title)
            known = [("", ours.mean, ours.std if len(ours.values) > 1 else 0.0)] if ours else []
            if printed and item.scale.comparable:
                known.append((" (paper)", printed.value / 100, (printed.std or 0.0) / 100))
            for whose, mean, spread in known:
                name = f"{line.row.method}, {column.title}"
                empty = {"x": [], "y": [], "low": [], "high": [], "dashed": bool(whose), "as": name}
                one = series.setdefault(f"{name}{whose}", empty)
                point = {"x": at[1], "y": mean, "low": mean - spread, "high": mean + spread}
                for key, value in point.items():
                    one[key].append(value)
    if series:
        name = axis[0][0]
        data = {"series": series, "x_label": name, "y_label": "accuracy", "percent": True}
        yield Picture(f"by-{name}", "lines", f"{item.swept} as {name} changes", data)


def _seen(made: PaperStudy, item: Item) -> Iterator[Picture]:
    """What the item's probes show, a model a series, the mean over seeds."""
    for block in dict.fromkeys(row.block for row in item.rows):
        rows = {(r.training, r.role): r for r in item.rows if r.block == block}
        for name in item.pictures:
            by_method: dict[str, Picture] = {}
            for row in rows.values():
                seeds = [p for seed in made.seeds_of(item) if (p := _picture(made, item, row, seed, name))]
                if seeds:
                    try:
                        by_method[row.method] = averaged(seeds)
                    # Seeds of another length or network: the first alone is shown.
                    except ValueError:
                        by_method[row.method] = seeds[0]
            if by_method:
                only = len({row.block for row in item.rows}) == 1
                for shown in merged(by_method):
                    yield dataclasses.replace(shown, name=name if only else f"{name}-{slug(block)}")


def _picture(made: PaperStudy, item: Item, row: PublishedRow, seed: int, name: str) -> Picture | None:
    task, got = made.task(item, row, seed), _result(made, item, row, seed)
    if task is None or isinstance(got, Missing):
        return None
    try:
        kept = Picture.from_json(json.loads((task.folder / f"{name}.picture.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return None
    return of_model(kept, got[1])


def all_here(
    made: Sequence[ItemOutcome], place: Path, paper: Paper, scale: str, *, command: str, **how: Any
) -> list[ItemOutcome]:
    """These items, and those of the paper that were written into the same folder before, in its order."""
    own = {one.item.name: one for one in made}
    found = []
    for item in (item for item in paper.items if item.scale.name == scale):
        if item.name in own:
            found.append(own[item.name])
        elif (place / f"{item.name}.json").is_file():
            other = paper_study([item], out=place, **how)
            found.append(outcome_of(other, other.items[0], command))
    return found

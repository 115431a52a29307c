"""The paper's tables and figures: the study behind each, and what came of it beside what the paper prints.

Trainings are cells as `actkit run` makes them, so that all items share them; examinations are `actkit probe` on those, each in a folder of its own.
Both are commands that an executor carries out, so that what is there is skipped and what failed is told while the rest goes on.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from actkit import checkpoint, config, paper
from actkit.errors import CHECK_FAILED, OK, InputError
from actkit.examine import remarked
from actkit.paper import Claim, Column, Examination, Item, Published, Row, Scale, Training
from actkit.pictures import Picture, averaged, of_model, together
from actkit.report import unverified
from actkit.run import summary_of
from actkit.spec import Spec
from actkit.study import Cell, cell
from actkit.tables import Grid, Number, printed


@dataclass(frozen=True)
class Examined:
    """Trained models under an item's probes: a task as a study's cells are."""

    title: str
    folder: Path
    cells: tuple[Cell, ...]
    examination: Examination

    @property
    def done(self) -> bool:
        """Whether it looked at the very models that are there now."""
        summary = _summary(self.folder / "summary.json")
        if summary is None:
            return False
        now = {_sum(file) for c in self.cells for file in checkpoint.current(c.folder)}
        # Of models that are gone, what was found still stands.
        return not now or {model["sha256"] for model in summary["models"].values()} <= now

    @property
    def code(self) -> int:
        """3 where a check found what makes its numbers unbelievable."""
        summary = _summary(self.folder / "summary.json")
        return CHECK_FAILED if summary is not None and unverified(summary) else OK

    @property
    def possible(self) -> bool:
        """Whether its models are trained, and there are enough of them."""
        return len(self.cells) > self.examination.together and all(c.done for c in self.cells)

    def command(self, extra: Sequence[str]) -> list[str]:
        models = [part for c in self.cells for part in ("--ckpt", str(c.folder))]
        how = [part for s in self.examination.settings for part in ("-s", s)]
        roles = [part for r in self.examination.roles for part in ("--role", r)]
        return [
            "probe", *models, *roles, "--evaluation", self.examination.file, *how, "--out", str(self.folder), *extra
        ]  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What stands behind some items: every training, once, and where each item finds its own."""

    items: tuple[Item, ...]
    seeds: tuple[int, ...] | None  # in place of the items' own
    cells: Mapping[tuple[Training, int], Cell]
    out: Path

    def seeds_of(self, item: Item) -> tuple[int, ...]:
        return item.seeds if self.seeds is None else self.seeds

    def cell(self, row: Row, seed: int) -> Cell:
        return self.cells[row.training, seed]

    @property
    def trainings(self) -> list[Cell]:
        return list({c.folder: c for c in self.cells.values()}.values())

    def examined(self, item: Item, row: Row, seed: int) -> Examined | None:
        """The examination that a row's number comes from; None where it is the one that the training ends with."""
        how = item.examination
        if how is None:
            return None
        own = self.cell(row, seed)
        beside: tuple[Cell, ...] = (own,)
        if how.together:  # with those of its group that are there
            group = dict.fromkeys(self.cell(other, seed) for other in item.rows if other.group == row.group)
            beside = tuple(c for c in group if c.done)
        name = f"{Path(how.file).stem}-{own.folder.parent.name}-{own.folder.name}"
        if how.together:
            name = f"{Path(how.file).stem}-{_slug(row.group)}-seed{seed}"
        key = json.dumps(
            [[s.to_json() for s in _evaluation(how)], how.roles, [c.folder.parts[-2:] for c in beside]], sort_keys=True
        )
        digest = hashlib.sha256(key.encode()).hexdigest()[:8]
        title = (
            f"{Path(how.file).stem} of {row.group.partition(';')[0] + f' seed {seed}' if how.together else own.title}"
        )
        return Examined(title, self.out / "examined" / f"{name}-{digest}", beside, how)

    def examinations(self, *, possible: bool = True) -> list[Examined]:
        """Those that can be done with what is trained, or all."""
        found: dict[Path, Examined] = {}
        for item in self.items:
            for row in item.rows:
                for seed in self.seeds_of(item):
                    made = self.examined(item, row, seed)
                    if made and (made.possible or not possible):
                        found.setdefault(made.folder, made)
        return list(found.values())

    def probes(self) -> dict[Path, list[tuple[list[Spec], bool]]]:
        """What is still to be examined, by the folder of the training, and whether on the headline model alone; a matrix is counted once a model."""
        found: dict[Path, dict[Path, tuple[list[Spec], bool]]] = {}
        for item in self.items:
            for row in item.rows:
                for seed in self.seeds_of(item):
                    made = self.examined(item, row, seed)
                    if made and not made.examination.together and not made.done:
                        how = _evaluation(made.examination), made.examination.roles == ("headline",)
                        found.setdefault(self.cell(row, seed).folder, {})[made.folder] = how
        return {folder: list(each.values()) for folder, each in found.items()}


def study(
    items: Sequence[Item],
    *,
    seeds: Sequence[int] | None = None,
    settings: Sequence[str] = (),
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: Path,
    runs: str | None = None,
) -> Study:
    """The study behind these items, every recipe read and checked.

    Settings that change more than where the data lie make it another study than the paper's, and the items say so. Raises `InputError` for settings that fit
    no recipe, or that make rows of one item the same training.
    """
    if macros := [s for s in settings if "." not in s.partition("=")[0]]:
        raise InputError(
            f"--set {macros[0]}: a scale has macros of its own", help="name a parameter, such as run.epochs=100"
        )
    changed = tuple(s for s in settings if not _same_study(s))
    if changed:
        items = [dataclasses.replace(item, scale=_changed(item.scale, changed)) for item in items]
    cells: dict[tuple[Training, int], Cell] = {}
    problems: list[InputError] = []
    for item in items:
        for row in item.rows:
            training = row.training
            for seed in item.seeds if seeds is None else seeds:
                if (training, seed) in cells:
                    continue
                title = f"{Path(training.recipe).stem}{_of_scale(training)}"
                try:
                    cells[training, seed] = cell(
                        training.recipe, (*training.settings, *settings), seed, title, plugins=plugins, trust=trust, out=runs,
                    )  # fmt: skip
                except InputError as error:
                    problems += getattr(error, "problems", [error])
    if problems:
        raise config.together(list({str(p): p for p in problems}.values()))
    for item in items:
        _assert_apart(item, cells)
    return Study(tuple(items), None if seeds is None else tuple(seeds), cells, out)


_WHERE = ("root", "download", "workers", "timeout")  # of a data set: where it lies and how it is read


def _same_study(setting: str) -> bool:
    key = setting.partition("=")[0].strip().rpartition("/")[2]
    return (key.startswith("dataset.") and key.rpartition(".")[2] in _WHERE) or key in ("run.keep", "run.save_every")


def _changed(scale: Scale, settings: tuple[str, ...]) -> Scale:
    with_ = f"changed by {', '.join(settings)}"
    return dataclasses.replace(
        scale, changed=settings, label=f"{scale.label}, {with_}", said=f"{scale.said}; {with_}, so that nothing here is to be held against the paper"
    )  # fmt: skip


def _assert_apart(item: Item, cells: Mapping[tuple[Training, int], Cell]) -> None:
    """Raise `InputError` where two rows that should differ are the same run under other names."""
    seen: dict[tuple[int, str], Training] = {}
    for (training, seed), own in cells.items():
        if training not in {row.training for row in item.rows}:
            continue
        other = seen.setdefault((seed, own.folder.name), training)
        if other != training:
            raise InputError(
                f"with these settings two rows of {item.name} are one and the same training",
                where=f"{other.recipe} {' '.join(other.settings)} and {training.recipe} {' '.join(training.settings)}",
                help="leave out the --set that changes what the rows differ in",
            )


def _of_scale(training: Training) -> str:
    told = [s.partition("=") for s in training.settings if s.startswith(("objective.", "role.backbone"))]
    return "".join(f" {key.rpartition('.')[2]}={value.removeprefix('@backbone.')}" for key, _, value in told)


def _sum(file: Path) -> str:
    about = file.stat()
    return _sum_of(file, about.st_mtime_ns, about.st_size)


@functools.cache
def _sum_of(file: Path, changed: int, size: int) -> str:
    return checkpoint.sha256(file)


@functools.cache
def _evaluation(how: Examination) -> list[Spec]:
    return config.load_evaluation(how.file, how.settings)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _summary(file: Path) -> dict[str, Any] | None:
    """What an examination found, marked where a later check raised a red flag; None where it is not there or cannot be used."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        files = {name: Path(model["file"]) for name, model in found["models"].items()}
        if (
            not all({"sha256", "role"} <= model.keys() for model in found["models"].values())
            or not found["data_fingerprint"]
        ):
            return None
        if not all({"numbers", "flags", "columns"} <= result.keys() for result in found["results"].values()):
            return None
        return remarked(found, files) if found["results"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# -- what came of it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A row: ours over the seeds that are there, and the paper's."""

    row: Row
    ours: Mapping[str, Number]
    seeds: tuple[int, ...]
    paper: Mapping[str, Published]
    images: Mapping[str, int]  # how many each number looked at

    def difference(self, column: Column) -> float | None:
        """Ours less the paper's, in the unit that both are printed in."""
        ours, printed = self.ours.get(column.title), self.paper.get(column.title)
        if ours is None or printed is None or printed.note:
            return None
        return (100 if column.percent else 1) * ours.mean - printed.value


Answer = Literal["holds here", "does not hold here", "not clear here", "not known"]


@dataclass(frozen=True)
class Verdict:
    """Whether our numbers bear out what the paper says of its own.

    Clear is a difference of the means over the common seeds that is larger than their deviations together; 'not known' where a number is missing or unverified.
    """

    claim: Claim
    answer: Answer
    because: tuple[str, ...]

    def __str__(self) -> str:
        return f"The paper: {self.claim.said} [{self.claim.column}]: {self.answer}{'; ' * bool(self.because)}{'; '.join(self.because)}"


@dataclass(frozen=True)
class Outcome:
    item: Item
    lines: tuple[Line, ...]
    missing: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    pictures: tuple[Picture, ...]
    about: dict[str, Any]


def outcome(made: Study, item: Item, command: str) -> Outcome:
    """What there is of an item: nothing is run. Cells that are not there are missing, and said to be."""
    lines, absent = [], []
    data: dict[str, dict[str, Any]] = {}
    origins: set[str] = set()
    for row in item.rows:
        found: dict[str, list[tuple[int, float, bool]]] = {}
        images: dict[str, int] = {}
        seeds = []
        block = row.group.partition(";")[0]
        for seed in made.seeds_of(item):
            got = _result(made, item, row, seed)
            if isinstance(got, str):
                absent.append(got)
                continue
            summary, model = got
            tested = {"data": summary["data"], "fingerprint": summary["data_fingerprint"]}
            if data.setdefault(block, tested) != tested:
                absent.append(
                    f"{made.cell(row, seed).title}: tested on other data than the rest of {block}: {tested['fingerprint']}"
                )
                continue
            seeds.append(seed)
            origins.add(_origin(summary))
            for column in item.columns:
                result = summary["results"].get(f"{model}.{column.label(row.reading)}", {})
                value = result.get("numbers", {}).get(column.number)
                if value is not None:
                    found.setdefault(column.title, []).append((seed, float(value), bool(result.get("verified", True))))
                    if result.get("images"):
                        images[column.title] = result["images"]
        numbers = {
            column.title: Number(
                tuple(value for _, value, _ in found[column.title]), column.percent, all(ok for *_, ok in found[column.title]),
                tuple(seed for seed, *_ in found[column.title]),
            )
            for column in item.columns
            if column.title in found
        }  # fmt: skip
        printed = {
            column.title: p
            for column, p in zip(item.columns, row.paper, strict=False)
            if p is not None and column.label(row.reading) is not None
        }
        lines.append(Line(row, numbers, tuple(seeds), printed, images))
    about = {
        "command": command, "scale": item.scale.name, "data": data, **checkpoint.provenance(),
        "trainings": {c.title: str(c.folder) for c in dict.fromkeys(made.cell(r, s) for r in item.rows for s in made.seeds_of(item))},
        "examined_by": sorted(origins),
    }  # fmt: skip
    pictures = [
        dataclasses.replace(p, name=f"{item.name}-{p.name}", caption=_caption(item, p), about=about)
        for p in [*_sweep(item, lines), *_seen(made, item)]
    ]
    verdicts = tuple(_verdict(claim, item, lines) for claim in item.claims)
    return Outcome(item, tuple(lines), tuple(dict.fromkeys(absent)), verdicts, tuple(pictures), about)


def _origin(summary: Mapping[str, Any]) -> str:
    by = summary.get("versions", {})
    commit = by.get("commit") or "an installed release"
    return f"actkit {by.get('actkit')} at {commit}, torch {by.get('torch')}, {by.get('gpu') or by.get('processor')}"


def _result(made: Study, item: Item, row: Row, seed: int) -> tuple[dict[str, Any], str] | str:
    """A summary and what it calls the row's model, or what is missing."""
    own = made.cell(row, seed)
    if not own.done:
        return f"{own.title}: not trained"
    examined = made.examined(item, row, seed)
    if examined is None:
        found = summary_of(own.folder)
        models = list(dict.fromkeys(name.rpartition(".")[0] for name in found["results"]))
        return (found, row.role or models[0]) if models else f"{own.title}: its evaluation has no probe"
    summary = _summary(examined.folder / "summary.json")
    if summary is None or not examined.done:
        return f"{examined.title}: not examined"
    for name, model in summary["models"].items():
        if own.folder.resolve() in Path(model["file"]).resolve().parents and row.role in ("", model["role"]):
            return summary, str(name)
    return f"{examined.title}: no model with the role {row.role}"


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
        because.append(f"{which}{left.shown()}{unit} against {', '.join(other.shown() + unit for other in right)}")
    order: tuple[Answer, ...] = ("does not hold here", "not known", "not clear here", "holds here")
    return Verdict(claim, min(answers, key=order.index), tuple(because))


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
        if abs(apart) <= spread:
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


def _caption(item: Item, picture: Picture) -> str:
    return " ".join(filter(None, [picture.caption, f"Ours, {item.scale.label}."]))


def _sweep(item: Item, lines: Sequence[Line]) -> Iterator[Picture]:
    """Where the groups are the values of one setting, as in Table 1: every number as it changes, the paper's dashed where they are of the same thing."""
    axis = [re.fullmatch(r"(\w+) = ([\d.]+)", line.row.group) for line in lines]
    if not all(axis):
        return
    series: dict[str, dict[str, Any]] = {}
    for line, at in zip(lines, axis, strict=True):
        assert at is not None
        for column in item.columns:
            ours, printed = line.ours.get(column.title), line.paper.get(column.title)
            known = [("", ours.mean, ours.std if len(ours.values) > 1 else 0.0)] if ours else []
            if printed and item.scale.comparable:
                known.append((" (paper)", printed.value / 100, (printed.std or 0.0) / 100))
            for whose, mean, spread in known:
                one = series.setdefault(
                    f"{line.row.method}, {column.title}{whose}",
                    {"x": [], "y": [], "low": [], "high": [], "dashed": bool(whose), "as": f"{line.row.method}, {column.title}"},
                )  # fmt: skip
                for key, value in (
                    ("x", float(at[2])), ("y", mean), ("low", mean - spread), ("high", mean + spread)
                ):  # fmt: skip
                    one[key].append(value)
    if series:
        name = axis[0][1] if axis[0] else ""
        data = {"series": series, "x_label": name, "y_label": "accuracy", "percent": True}
        yield Picture(f"by-{name}", "lines", f"Both models of ACT as {name} changes", data)


def _seen(made: Study, item: Item) -> Iterator[Picture]:
    """What the item's probes show, a model a series, the mean over seeds."""
    for block in dict.fromkeys(row.group.partition(";")[0] for row in item.rows):
        rows = {(r.training, r.role): r for r in item.rows if r.group.partition(";")[0] == block}
        for name in item.pictures:
            by_method: dict[str, Picture] = {}
            for row in rows.values():
                seeds = [p for seed in made.seeds_of(item) if (p := _picture(made, item, row, seed, name))]
                if seeds:
                    try:
                        by_method[row.method] = averaged(seeds)
                    except ValueError:  # seeds of another length or network: the first alone is shown
                        by_method[row.method] = seeds[0]
            if by_method:
                only = len({row.group.partition(";")[0] for row in item.rows}) == 1
                for shown in together(by_method):
                    yield dataclasses.replace(shown, name=name if only else f"{name}-{_slug(block)}")


def _picture(made: Study, item: Item, row: Row, seed: int, name: str) -> Picture | None:
    examined, got = made.examined(item, row, seed), _result(made, item, row, seed)
    if examined is None or isinstance(got, str):
        return None
    try:
        kept = Picture.from_json(
            json.loads((examined.folder / f"{name}.picture.json").read_text(encoding="utf-8"))
        )  # fmt: skip
    except (OSError, ValueError, KeyError):
        return None
    return of_model(kept, got[1])


# -- shown ---------------------------------------------------------------------------------------------------------------


def grid(made: Outcome) -> Grid:
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
    return Grid(titles, body, caption(made), left=2 + grouped)


def caption(made: Outcome) -> list[str]:
    """What the table is, how each column was measured, what the paper claims and whether it holds here, and what is missing."""
    item = made.item
    lines = [f"{item.title}. {item.scale.said[0].upper()}{item.scale.said[1:]}."]
    if not item.scale.comparable and any(line.paper for line in made.lines):
        lines.append(
            "The paper's numbers stand beside ours to show what the item is; no difference is given, since digits are not CIFAR-10."
        )
    return [*lines, *protocol(made), *map(str, made.verdicts), *missing(made), made_by(made)]


def protocol(made: Outcome) -> list[str]:
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


def missing(made: Outcome) -> list[str]:
    """What is missing, the seeds of one training together."""
    found: dict[tuple[str, str], list[str]] = {}
    for said in made.missing:
        parts = re.fullmatch(r"(.*) seed (\d+): (.*)", said)
        what, seed, why = parts.groups() if parts else (said, "", "")
        found.setdefault((what, why), []).append(seed)
    return [
        f"missing: {what}{', seed ' + ', '.join(seeds) if seeds != [''] else ''}{': ' + why if why else ''}" for (what, why), seeds in found.items()
    ]  # fmt: skip


def made_by(made: Outcome) -> str:
    about = made.about
    return (
        f"Made by `{about['command']}`, actkit {about['actkit']} at {about['commit'] or 'an installed release'}, torch {about['torch']}, "
        f"{about['gpu'] or about['processor']}"
        + "".join(f"; measured by {said}" for said in about["examined_by"])
        + "."
    )


def to_json(made: Outcome) -> dict[str, Any]:
    def cell(line: Line, column: Column) -> dict[str, Any]:
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


def as_csv(made: Sequence[Outcome]) -> str:
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


def write(folder: Path, made: Sequence[Outcome]) -> None:
    """Each item as Markdown, CSV, LaTeX and JSON, and its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        for picture in one.pictures:
            picture.save(folder)
        text = printed(grid(one), "markdown")
        table, _, notes = text.partition("\n\n")
        drawn = [f"![{p.title}]({p.name}.svg)" for p in one.pictures]
        parts = [f"# {one.item.title}", table, *drawn, notes]
        files = {
            "md": "\n\n".join(parts), "csv": as_csv([one]), "tex": printed(grid(one), "latex"), "json": json.dumps(to_json(one), indent=1)
        }  # fmt: skip
        for suffix, content in files.items():
            (folder / f"{one.item.name}.{suffix}").write_text(content + "\n", encoding="utf-8")


def place_of(scale: str, settings: Sequence[str]) -> Path:
    """Where a scale's items go, apart from those of a study that settings have changed."""
    changed = sorted(s for s in settings if not _same_study(s))
    mark = f"-{hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6]}" if changed else ""
    return Path("reproduced") / f"{scale}{mark}"


def all_here(made: Sequence[Outcome], place: Path, scale: str, *, command: str, **how: Any) -> list[Outcome]:
    """These items, and those that were written into the same folder before, in the paper's order."""
    own = {one.item.name: one for one in made}
    found = []
    for name in paper.NAMES:
        if name in own:
            found.append(own[name])
        elif (place / f"{name}.json").is_file():
            other = study([paper.item(name, scale)], out=place, **how)
            found.append(outcome(other, other.items[0], command))
    return found


def items(names: Iterable[str], scale: str) -> list[Item]:
    """By name; 'all' is every one. Raises `InputError` for a name that is none."""
    wanted = [n for name in names for n in (paper.NAMES if name == "all" else [name])]
    return [paper.item(name, scale) for name in dict.fromkeys(wanted)]

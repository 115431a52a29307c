"""`report.html`: one file with everything that there is to see of a run, of several, or of the paper's items. It needs no network and no script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actkit import __version__
from actkit.errors import InputError
from actkit.files import write_text
from actkit.probes.pictures import OWN, Picture
from actkit.reports import curves, tables
from actkit.reports.grids import Grid
from actkit.reports.rows import UNVERIFIED, rows, summary_caption
from actkit.reports.tables import Finished, table


@dataclass(frozen=True)
class Remark:
    """A line with a colour: 'red', 'yellow' or 'green'."""

    level: str
    text: str
    where: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of a page: under each group, where its first column names one, the rows that follow.

    Args:
        aside: what rows of other people's numbers say in their last column of text.
    """

    title: str
    grid: Grid
    grouped: bool = False
    aside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Section:
    title: str
    texts: Sequence[str] = ()
    verdicts: Sequence[Remark] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    folded: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """`data` are all numbers, as JSON, within the page."""

    title: str
    lead: str
    findings: Sequence[Remark]
    sections: Sequence[Section]
    data: Any


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("actkit.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    # Whatever stands in a script element must not end it.
    data = json.dumps(page.data, allow_nan=False).replace("<", r"\u003c")
    template = environment.get_template("page.html")
    return template.render(page=page, data=data, version=__version__, unverified=UNVERIFIED, numbers_of=numbers_of)


def write(page: Page, file: Path) -> None:
    """Raises `InputError` where the file cannot be written."""
    text = render(page)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise InputError(
            f"the page cannot be written: {error.strerror}", where=str(file), help="choose another place"
        ) from error


def numbers_of(picture: Picture) -> PageTable | None:
    """The numbers that a picture was drawn from, as a table, where they are not too many to read."""
    data = picture.data
    if picture.kind not in ("lines", "bars") or not data["series"]:
        return None
    series = data["series"]
    named = {name or picture.title: one for name, one in series.items() if name != OWN or len(series) == 1}
    points = data["groups"] if picture.kind == "bars" else sorted({x for one in named.values() for x in one["x"]})
    if len(points) > 60:
        return None
    unit = (lambda v: f"{100 * v:.2f} %") if data.get("percent") else (lambda v: f"{v:.4g}")
    body = []
    for point in points:
        cells = []
        for one in named.values():
            at = dict(zip(points if picture.kind == "bars" else one["x"], one["y"], strict=True)).get(point)
            cells.append("-" if at is None else unit(at))
        body.append([point if isinstance(point, str) else f"{point:g}", *cells])
    return PageTable(picture.title, Grid([data.get("x_label", ""), *named], body, [], left=1))


def of_runs(runs: Sequence[Finished], unfinished: Sequence[Path] = ()) -> Page:
    """A page of a run, or of several that stand in one table. Raises `InputError` where they cannot."""
    made = table(runs, unfinished)
    alone = len(runs) == 1
    names = list(dict.fromkeys(_recipe(run).stem for run in runs))
    if alone:
        summary = runs[0].summary
        titles, body = rows(summary)
        numbers = PageTable("numbers", Grid(titles, body, summary_caption(summary), left=1))
        lead = _lead(runs[0])
    else:
        numbers = PageTable("numbers", tables.table_grid(made))
        lead = f"{len(runs)} runs, {runs[0].summary.data}"
    sections = [Section("Numbers", tables=[numbers])]
    if swept := curves.sweep_of(made):
        sections.append(Section("What was swept", pictures=swept))
    for run in runs:
        if pictures := curves.pictures_of_run(run.folder):
            title = "Pictures" if alone else f"{_recipe(run).stem}, {run.folder.name}"
            sections.append(Section(title, pictures=pictures))
    sections.append(_origin(runs))
    numbers_of_all = {"table": tables.table_json(made), "runs": {str(r.folder): r.summary.to_json() for r in runs}}
    return Page(" and ".join(names), lead, _findings(runs), sections, numbers_of_all)


def _recipe(run: Finished) -> Path:
    return Path(run.facts.recipe)


def _lead(run: Finished) -> str:
    facts = run.facts
    length = f"{facts.epochs} epochs ({facts.steps:,} batches)"
    return f"{run.spec.kwargs['objective']!r} on {run.summary.data}; seed {facts.seed}, {length}"


def _findings(runs: Sequence[Finished]) -> list[Remark]:
    """What the checks of the runs found. Of several runs, what is well needs little room."""
    alone = len(runs) == 1
    found = [finding for run in runs for finding in _checks(run, not alone)]
    green = sum(finding.level == "green" for finding in found)
    if alone or not green:
        return found
    text = f"The checks of {green} models found nothing else that points to gradient masking."
    return [*(finding for finding in found if finding.level != "green"), Remark("green", text)]


def _checks(run: Finished, several: bool) -> Iterable[Remark]:
    """What the checks of a run found: every red and yellow flag, the green ones counted; or that nothing was checked."""
    where = f"{run.folder.parent.name}/{run.folder.name}, " if several else ""
    flags = run.summary.flags
    for model, own in flags.items():
        for level in ("red", "yellow"):
            texts = [f"{flag.check}: {flag.said}" for flag in own if flag.level == level]
            yield from (Remark(level, text, f"{where}{model}") for text in texts)
        if green := sum(flag.level == "green" for flag in own):
            text = f"{green} of {len(own)} checks for gradient masking found nothing"
            yield Remark("green", text, f"{where}{model}")
    shown = {f"{model}, {flag.check}: {flag.said}" for model, own in flags.items() for flag in own}
    for because in run.summary.because:
        if because not in shown:
            yield Remark("red", because, f"{where}{UNVERIFIED.lower()}")
    if not flags:
        command = shlex.join(["actkit", "probe", "--ckpt", str(run.folder), "--probe", "audit"])
        yield Remark("yellow", f"Nothing was checked for gradient masking: {command}", where.rstrip(", "))
    if run.summary.stopped_early:
        yield Remark("red", "training was stopped early: accuracy under attack collapsed", where.rstrip(", "))


def _origin(runs: Sequence[Finished]) -> Section:
    facts: dict[str, str] = {}
    for name, value in _facts(runs[0]).items():
        others = {_facts(run).get(name, "") for run in runs}
        facts[name] = value if len(others) == 1 else "; ".join(sorted(others))
    commands = list(dict.fromkeys(run.summary.command for run in runs))
    again = f"actkit probe --ckpt {shlex.quote(str(runs[0].folder))}"
    commands.append(f"{again}   # the numbers again, from the models alone")
    recipes: dict[str, str] = {}
    for run in runs:
        file = run.folder / "config.gin"
        if file.is_file():
            title = f"the whole recipe of {run.folder.parent.name}/{run.folder.name}"
            recipes.setdefault(file.read_text(encoding="utf-8"), title)
    folded = [(title, text) for text, title in recipes.items()]
    return Section("How to reproduce it", facts=facts, commands=commands, folded=folded)


def _facts(run: Finished) -> dict[str, str]:
    summary, made = run.summary, run.summary.versions
    prints = ", ".join(f"{split} {print_}" for split, print_ in summary.data_fingerprint.items())
    return {
        "recipe": str(run.facts.recipe),
        "data": f"{summary.data}; fingerprint of {prints}",
        "actkit": f"{made.get('actkit', '?')}" + (f" at {made['commit']}" if made.get("commit") else ""),
        "torch": str(made.get("torch", "?")),
        "python": str(made.get("python", "?")),
        "machine": str(made.get("gpu") or made.get("processor") or made.get("machine", "?")),
    }

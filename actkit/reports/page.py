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
from actkit.evaluation.summary import flags
from actkit.files import write_text
from actkit.probes.pictures import OWN, Picture
from actkit.reports import curves, tables
from actkit.reports.grids import Grid
from actkit.reports.rows import UNVERIFIED, caption, rows
from actkit.reports.tables import Finished, table


@dataclass(frozen=True)
class Said:
    """A line with a colour: 'red', 'yellow' or 'green'."""

    level: str
    said: str
    where: str = ""


@dataclass(frozen=True)
class Shown:
    """A table of a page: under each group, where its first column names one, the rows that follow; `aside` are rows of other people's numbers."""

    title: str
    grid: Grid
    grouped: bool = False
    aside: frozenset[str] = frozenset()  # what such a row says in its last column of text


@dataclass(frozen=True)
class Section:
    title: str
    texts: Sequence[str] = ()
    verdicts: Sequence[Said] = ()
    tables: Sequence[Shown] = ()
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    folded: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    title: str
    lead: str
    flags: Sequence[Said]
    sections: Sequence[Section]
    data: Any  # all numbers, as JSON, within the page


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("actkit.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    # Whatever stands in a script element must not end it.
    data = json.dumps(page.data, allow_nan=False).replace("<", r"\u003c")
    template = environment.get_template("page.html")
    return template.render(
        page=page, data=data, version=__version__, unverified=UNVERIFIED, numbers_of=numbers_of
    )  # fmt: skip


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


def numbers_of(picture: Picture) -> Shown | None:
    """The numbers that a picture was drawn from, as a table, where they are not too many to read."""
    data = picture.data
    if picture.kind not in ("lines", "bars") or not data["series"]:
        return None
    named = {name or picture.title: one for name, one in data["series"].items() if name != OWN or len(data["series"]) == 1}  # fmt: skip
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
    return Shown(picture.title, Grid([data.get("x_label", ""), *named], body, [], left=1))


def of_runs(runs: Sequence[Finished], unfinished: Sequence[Path] = ()) -> Page:
    """A page of a run, or of several that stand in one table. Raises `InputError` where they cannot."""
    made = table(runs, unfinished)
    alone = len(runs) == 1
    told = [said for run in runs for said in _checks(run, not alone)]
    if not alone and (
        green := [said for said in told if said.level == "green"]
    ):  # together: what is well needs little room
        told = [said for said in told if said.level != "green"]
        told.append(
            Said("green", f"The checks of {len(green)} models found nothing else that points to gradient masking.")
        )
    if alone:
        titles, body = rows(runs[0].summary)
        numbers = Shown("numbers", Grid(titles, body, caption(runs[0].summary), left=1))
        title, lead = Path(runs[0].summary["recipe"]).stem, _lead(runs[0])
    else:
        numbers = Shown("numbers", tables.grid(made))
        title = " and ".join(dict.fromkeys(Path(run.summary["recipe"]).stem for run in runs))
        lead = f"{len(runs)} runs, {runs[0].summary['data']}"
    sections = [Section("Numbers", tables=[numbers])]
    if swept := curves.sweep_of(made):
        sections.append(Section("What was swept", pictures=swept))
    for run in runs:
        name = "" if alone else f"{Path(run.summary['recipe']).stem}, {run.folder.name}"
        seen = curves.pictures_of_run(run.folder)
        if seen:
            sections.append(Section(name or "Pictures", pictures=seen))
    sections.append(_origin(runs))
    return Page(title, lead, told, sections, {"table": tables.to_json(made), "runs": {str(r.folder): r.summary for r in runs}})  # fmt: skip


def _lead(run: Finished) -> str:
    s = run.summary
    length = f"{s['epochs']} epochs ({s['steps']:,} batches)"
    return f"{run.spec.kwargs['objective']!r} on {s['data']}; seed {s['seed']}, {length}"


def _checks(run: Finished, several: bool) -> Iterable[Said]:
    """What the checks of a run found: every red and yellow flag, the green ones counted; or that nothing was checked."""
    where = f"{run.folder.parent.name}/{run.folder.name}, " if several else ""
    found = flags(run.summary)
    for model in dict.fromkeys(name.rpartition(".")[0] for name in run.summary["results"]):
        own = [flag for name, flag in found if name == model]
        for level in ("red", "yellow"):
            yield from (Said(level, f"{flag['check']}: {flag['said']}", f"{where}{model}") for flag in own if flag["level"] == level)  # fmt: skip
        green = sum(flag["level"] == "green" for flag in own)
        if green:
            checked = f"{green} of {len(own)} checks for gradient masking found nothing"
            yield Said("green", checked, f"{where}{model}")
    because = dict.fromkeys(b for r in run.summary["results"].values() for b in r.get("because", ()))
    standing = {f"{model}, {flag['check']}: {flag['said']}" for model, flag in found}
    yield from (Said("red", said, f"{where}{UNVERIFIED.lower()}") for said in because if said not in standing)
    if not found:
        command = shlex.join(["actkit", "probe", "--ckpt", str(run.folder), "--probe", "audit"])
        yield Said("yellow", f"Nothing was checked for gradient masking: {command}", where.rstrip(", "))
    if run.summary["stopped_early"]:
        yield Said("red", "training was stopped early: accuracy under attack collapsed", where.rstrip(", "))


def _origin(runs: Sequence[Finished]) -> Section:
    facts: dict[str, str] = {}
    for name, value in _facts(runs[0]).items():
        others = {_facts(run).get(name, "") for run in runs}
        facts[name] = value if len(others) == 1 else "; ".join(sorted(others))
    commands = list(dict.fromkeys(run.summary["command"] for run in runs))
    commands += [f"actkit probe --ckpt {shlex.quote(str(run.folder))}   # the numbers again, from the models alone" for run in runs[:1]]  # fmt: skip
    kept: dict[str, str] = {}
    for run in runs:
        file = run.folder / "config.gin"
        if file.is_file():
            kept.setdefault(
                file.read_text(encoding="utf-8"), f"the whole recipe of {run.folder.parent.name}/{run.folder.name}"
            )
    return Section(
        "How to reproduce it", facts=facts, commands=commands, folded=[(title, text) for text, title in kept.items()]
    )  # fmt: skip


def _facts(run: Finished) -> dict[str, str]:
    s, made = run.summary, run.summary.get("versions", {})
    prints = ", ".join(f"{split} {print_}" for split, print_ in s["data_fingerprint"].items())
    return {
        "recipe": str(s.get("recipe", "")), "data": f"{s['data']}; fingerprint of {prints}",
        "actkit": f"{made.get('actkit', '?')}" + (f" at {made['commit']}" if made.get("commit") else ""),
        "torch": str(made.get("torch", "?")), "python": str(made.get("python", "?")),
        "machine": str(made.get("gpu") or made.get("processor") or made.get("machine", "?")),
    }  # fmt: skip

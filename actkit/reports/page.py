"""`report.html` of runs: one page with everything that there is to see of one, or of several in one table."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from actkit.reports import comparison, curves, tables
from actkit.reports.html_page import Page, PageTable, Remark, Section, render, write
from actkit.reports.overview import Overview
from actkit.reports.run_page import checks_of, of_run
from actkit.reports.runs import Finished, Unfinished
from actkit.reports.tables import table

__all__ = ["Page", "PageTable", "Remark", "Section", "of_runs", "render", "write"]


def of_overview(made: Overview) -> Page:
    """A page of all that a report tells of: the runs of each table as a page of their own would show them, one below another. Raises `InputError` where no run is finished."""
    pages = [of_runs(group) for group in made.groups] or [of_runs([], made.unfinished)]
    notes = [Remark("yellow", note) for note in made.notes]
    if len(pages) == 1:
        return dataclasses.replace(pages[0], findings=[*pages[0].findings, *notes])
    sections = [
        dataclasses.replace(section, title=f"{i}. {section.title}")
        for i, page in enumerate(pages, 1)
        for section in page.sections
    ]
    names = list(dict.fromkeys(name for page in pages for name in page.title.split(" and ")))
    lead = "; ".join(f"{i}. {page.title}: {page.lead}" for i, page in enumerate(pages, 1))
    findings = [finding for page in pages for finding in page.findings]
    return Page(" and ".join(names), lead, [*findings, *notes], sections, made.to_json())


def of_runs(runs: Sequence[Finished], unfinished: Sequence[Unfinished] = ()) -> Page:
    """A page of a run, or of several that stand in one table. Raises `InputError` where they cannot."""
    if len(runs) == 1:
        return of_run(runs[0])
    made = table(runs, unfinished)
    names = list(dict.fromkeys(_recipe(run).stem for run in runs))
    grid = tables.table_grid(made)
    grid = dataclasses.replace(grid, caption=[*grid.numbered_notes, *grid.caption])
    sections = [Section("Numbers", tables=[PageTable("numbers", grid, stacked=True)])]
    if compared := comparison.of_study(made):
        sections.append(Section("The methods beside each other", pictures=compared))
    if swept := curves.sweep_of(made):
        sections.append(Section("What was swept", pictures=swept))
    for run in runs:
        if pictures := curves.pictures_of_run(run.folder):
            sections.append(Section(f"{_recipe(run).stem}, {run.folder.name}", pictures=pictures))
    found = _findings(runs)
    sections.append(Section("Checks for gradient masking", verdicts=[_whole(remark) for remark in found]))
    sections.append(_origin(runs))
    numbers_of_all = {"table": tables.table_json(made), "runs": {str(r.folder): r.summary.to_json() for r in runs}}
    lead = f"{len(runs)} runs, {runs[0].summary.data}" if runs else ""
    return Page(" and ".join(names), lead, _counted(found), sections, numbers_of_all)


def _recipe(run: Finished) -> Path:
    return Path(run.facts.recipe)


def _whole(remark: Remark) -> Remark:
    """With whose it is in its text."""
    return Remark(remark.level, f"{remark.where}: {remark.text}" if remark.where else remark.text)


def _counted(found: Sequence[Remark]) -> list[Remark]:
    """What the checks came to, a line a level; each is said further down."""
    words = {"red": "failed: the numbers of their models are marked UNVERIFIED", "yellow": "ask for caution"}
    counts = {level: sum(remark.level == level for remark in found) for level in words}
    made = [
        Remark(
            level,
            f"{n} check{'s' * (n > 1)} {words[level]}; below, under Checks for gradient masking, is what each found.",
        )
        for level, n in counts.items()
        if n
    ]
    return [*made, *(remark for remark in found if remark.level not in words)]


def _findings(runs: Sequence[Finished]) -> list[Remark]:
    """What the checks of the runs found; what is well needs little room."""
    found = [check for run in runs for check in checks_of(run, f"{run.folder.parent.name}/{run.folder.name}, ")]
    green = sum(check.level == "green" for check in found)
    if not green:
        return found
    text = f"The checks of {green} models found nothing else that points to gradient masking."
    return [*(check for check in found if check.level != "green"), Remark("green", text)]


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

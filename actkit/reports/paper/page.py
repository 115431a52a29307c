"""A paper's items as one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from actkit.reports.page import Page, PageTable, Remark, Section
from actkit.reports.paper import printed
from actkit.reports.paper.outcome import ItemOutcome
from actkit.reports.paper.printed import item_grid, item_json
from actkit.reports.paper.terms import Paper
from actkit.reports.rows import UNVERIFIED


def of_items(made: Sequence[ItemOutcome], paper: Paper) -> Page:
    """A page of tables and figures of a paper, ours beside the paper's."""
    scale = made[0].item.scale
    missing = [said for one in made for said in one.missing]
    findings = [Remark("yellow", f"{scale.said[0].upper()}{scale.said[1:]}.")] if not scale.comparable else []
    lines = [line for one in made for line in one.lines]
    doubtful = [line.row for line in lines if not all(number.verified for number in line.ours.values())]
    if marked := [f"{row.group}, {row.method}" for row in doubtful]:
        said = "a check found what makes numbers of these models unbelievable; they are marked"
        findings.append(
            Remark("red", f"{UNVERIFIED}: {said}, and the runs' own pages say why: {'; '.join(dict.fromkeys(marked))}")
        )
    if missing:
        findings.append(Remark("yellow", f"{len(dict.fromkeys(missing))} results are missing; each table says which."))
    sections = []
    for one in made:
        verdicts = [Remark("green" if v.answer == "holds here" else "yellow", str(v)) for v in one.verdicts]
        table = dataclasses.replace(item_grid(one), caption=[*printed.protocol(one), *printed.missing(one)])
        shown = PageTable(one.item.title, table, table.titles[0] == "group", frozenset({"paper", "difference"}))
        sections.append(Section(one.item.title, verdicts=verdicts, tables=[shown], pictures=one.pictures))
    about = made[0].about
    folders = {title: folder for one in made for title, folder in one.about["trainings"].items()}
    measured = dict.fromkeys(said for one in made for said in one.about["examined_by"])
    facts = {
        "tables made by": f"{about['actkit']}" + (f" at {about['commit']}" if about["commit"] else ""),
        "measured by": "; ".join(measured),
        "trainings": f"{len(folders)} runs, shared by all items",
    }
    folded = [("the runs", "\n".join(f"{title}  {folder}" for title, folder in folders.items()))]
    sections.append(Section("How to reproduce it", facts=facts, commands=[about["command"]], folded=folded))
    title = made[0].item.title if len(made) == 1 else f"{paper.title}: the paper's tables and figures"
    return Page(title, _lead(made, paper), findings, sections, [item_json(one) for one in made])


def _lead(made: Sequence[ItemOutcome], paper: Paper) -> str:
    data = dict.fromkeys(told["data"] for one in made for told in one.about["data"].values())
    return f"{paper.source}. {', '.join(one.item.title.partition(':')[0] for one in made)}; {'; '.join(data) or 'nothing yet'}"

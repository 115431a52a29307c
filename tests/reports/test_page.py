"""report.html: the numbers on it are those in the JSON beside it; it needs nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from actkit.errors import InputError
from actkit.probes.pictures import Picture
from actkit.reports import page
from actkit.reports.page import Page, Remark, Section, of_runs
from actkit.reports.paper.page import of_items
from actkit.reports.tables import find
from actkit.reports.words import Share
from helpers.runs import QUICK


class Read(HTMLParser):
    """Tables as rows of cells, flags, scripts, and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.flags: list[tuple[str, str]] = []
        self.json, self.fetched, self.open, self._inside = "", [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = "cell"
        elif tag == "div" and "flag" in given.get("class", "").split():
            self.flags.append((given["class"].split()[1], ""))
            self._inside = "flag"
        elif tag == "script":
            assert given["type"] == "application/json"
            self._inside = "json"
        if tag not in ("meta", "br", "link", "path", "use", "image", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
        if tag in ("td", "th", "div", "script"):
            self._inside = ""

    def handle_startendtag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))]

    def handle_data(self, data):
        if self._inside == "cell":
            self.tables[-1][-1][-1] += data
        elif self._inside == "flag":
            self.flags[-1] = (self.flags[-1][0], self.flags[-1][1] + data)
        elif self._inside == "json":
            self.json += data


def test_a_runs_page_says_what_its_summary_says(actkit, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = QUICK.replace("run.monitor = []", "probe.audit.limit = 8\nprobe.audit.attack = @eval/attack.pgd()")
    recipe = recipe.replace("@pgd20/probe.robust_accuracy()]", "@pgd20/probe.robust_accuracy(), @probe.audit()]")
    assert actkit("run", write("quick.gin", recipe), "--out", "run", "--device", "cpu").code in (0, 3)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    text = (tmp_path / "run/report.html").read_text()
    read = Read(text)
    assert read.fetched == []
    assert not re.search(r"@import|url\((?!#)", text)
    titles, *rows = read.tables[0]
    under = "\nlinf eps 0.15\n100 images"
    assert titles == ["model", "clean\n100 images", f"PGD-2 worst run{under}", f"PGD-2 per-example worst{under}"]
    for row in rows:
        results = summary["results"]
        wanted = [
            results[f"{row[0]}.accuracy"]["numbers"]["clean"], results[f"{row[0]}.pgd20"]["numbers"]["worst_run"],
            results[f"{row[0]}.pgd20"]["numbers"]["per_example_worst"],
        ]  # fmt: skip
        shown = [cell.partition("\n")[0] for cell in row[1:]]
        assert [cell.removesuffix(" UNVERIFIED") for cell in shown] == [f"{100 * value:.2f} %" for value in wanted]
        assert all(cell.endswith("UNVERIFIED") != results[f"{row[0]}.pgd20"]["verified"] for cell in shown[1:])
        assert [cell.partition("\n")[2] for cell in row[1:]] == [
            Share(round(100 * v), 100).interval_shown for v in wanted
        ]
    assert [row[0] for row in rows] == ["robust", "natural"]
    assert json.loads(read.json)["runs"]["run"]["results"] == summary["results"]
    found = [flag for result in summary["results"].values() for flag in result["flags"] if flag["level"] != "green"]
    for flag in found:
        assert any(level == flag["level"] and f"{flag['check']}: {flag['said']}" in said for level, said in read.flags)
    assert text.count("<svg") == 3  # what was monitored, the losses, the classes
    assert text.count("<img") == 2 * 6 * 3  # of two models six images, before, after, and the difference
    assert summary["command"] in text
    assert "objective.act.alpha = 0.5" in text  # the recipe
    by_class = next(t for t in read.tables[1:] if t[0][1:] == ["robust", "natural"] and len(t) == 11)
    kept = json.loads(next((tmp_path / "run/probes").glob("*by-class.picture.json")).read_text())["data"]["series"]
    assert [row[1] for row in by_class[1:]] == [f"{100 * y:.2f} %" for y in kept["robust"]["y"]]


def test_a_run_that_was_not_checked_says_so_and_one_of_several_seeds_says_which_is_flagged(tmp_path, monkeypatch):
    from helpers.finished import finished_run

    for seed in (0, 1):
        folder = finished_run(tmp_path / f"r/s{seed}", seed=seed, robust=0.5 + seed / 10)
        summary = json.loads((folder / "summary.json").read_text())
        summary |= {"recipe": "gin/act_digits.gin", "command": "actkit run x"}
        if seed:
            flag = {"check": "noise", "level": "red", "said": "noise is stronger than <the attack>"}
            summary["results"]["robust.robust_accuracy"] |= {"flags": [flag], "verified": False, "because": ["robust, noise: x"]}  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    read = Read(page.render(of_runs(*find([tmp_path / "r"]))))
    assert any(level == "yellow" and "Nothing was checked" in said and "s0" in said for level, said in read.flags)
    assert ("red", "r/s1, robust: noise: noise is stronger than <the attack>") in read.flags
    assert read.tables[0][1] == ["robust", "2", "90.00 ± 0.00", "55.00 ± 7.07 UNVERIFIED [1]"]
    assert "[1] UNVERIFIED: r, seed 1: robust, noise: x" in page.render(of_runs(*find([tmp_path / "r"])))


def test_a_page_is_safe_with_any_text():
    bad = "</script><script>alert(1)</script>"
    made = Page(bad, bad, [Remark("red", bad)], [Section(bad, texts=[bad], folded=[(bad, bad)])], {"x": bad})
    text = page.render(made)
    assert "<script>alert" not in text
    assert json.loads(Read(text).json) == {"x": bad}


def test_pictures_are_drawn_in_the_pages_own_colour_and_their_ids_differ():
    lines = {"series": {"natural": {"x": [1, 2], "y": [0.1, 0.2]}}}
    pictures = [Picture("p", "lines", "A <b> title", lines), Picture("p", "lines", "B", {**lines, "log": True})]
    text = page.render(Page("t", "", [], [Section("s", pictures=pictures)], None))
    assert "currentColor" in text and "#000000" not in text
    assert "A &lt;b&gt; title" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 3
    assert '<svg role="img" aria-label="A &lt;b&gt; title"' in text


def test_items_stand_in_groups_with_the_papers_numbers_aside(tmp_path, monkeypatch):
    from actkit.reports.paper.outcome import outcome_of
    from actkit.reports.paper.papers import paper_named
    from actkit.reports.paper.printed import item_json
    from helpers.finished import finish, study_of

    study = study_of("table1", "full", tmp_path)
    row = next(r for r in study.items[0].rows if r.group == "alpha = 0.9" and not r.role)
    finish(study.cell(row, 0), {"robust.accuracy": {"clean": 0.84}, "robust.pgd20": {"worst_run": 0.55}})
    found = outcome_of(study, study.items[0], "actkit reproduce table1")
    read = Read(page.render(of_items([found], paper_named("act"))))
    at = read.tables[0].index(["alpha = 0.9"])
    robust = next(i for i, row in enumerate(read.tables[0]) if i > at and row[0] == "G, robust model")
    assert read.tables[0][robust : robust + 3] == [
        ["G, robust model", "ours, n = 1", "84.00", "55.00"], ["", "paper", "84.87 ± 0.91", "55.12 ± 1.07"], ["", "difference", "-0.87", "-0.12"],
    ]  # fmt: skip
    assert json.loads(read.json)[0] == json.loads(json.dumps(item_json(found)))
    assert any("results are missing" in said for level, said in read.flags if level == "yellow")


EMPTY = Page("t", "", [], [], None)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("file/report.html", "there is no folder '.*/file'"),
        ("no/dir/x.html", "there is no folder '.*/no/dir'(.|\n)*make that folder first"),
        (".", "this is a folder"),
    ],
    ids=str,
)
def test_a_page_that_cannot_be_written_is_told_and_no_folder_is_made_for_it(file, message, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"the page cannot be written: {message}"):
        page.write(EMPTY, tmp_path / file)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_report_refuses_a_page_in_a_folder_that_is_not_there_before_it_prints(actkit, tmp_path):
    from helpers.finished import finished_run

    finished_run(tmp_path / "run")
    said = actkit("report", str(tmp_path / "run"), "--html", str(tmp_path / "no/dir/x.html"))
    assert (said.code, said.out) == (2, "")
    assert "there is no folder" in said.err
    assert not (tmp_path / "no").exists()


def test_images_stand_on_a_page_with_what_each_is_and_its_class_escaped():
    cell = {"pixels": [[[0.5]]], "text": "t"}
    cells = [{**cell, "class": "<b>cat"}, {**cell, "class": "dog"}, {**cell, "text": "linf 0.1", "map": "difference"}]
    kept = [cells[0], cells[0], cells[2]]
    rows = [{"name": "robust", "cells": cells + kept}]
    data = {"rows": rows, "columns": ["clean", "adversarial", "difference"], "span": 0.1}
    text = page.render(Page("t", "", [], [Section("s", pictures=[Picture("g", "images", "G", data)])], None))
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text[text.index('<ul class="triples">') :]))
    assert "clean &lt;b&gt;cat adversarial &rarr; dog difference linf 0.1" in words
    assert "clean &lt;b&gt;cat adversarial still &lt;b&gt;cat difference linf 0.1" in words
    assert text.count('src="data:image/png;base64,') == 6

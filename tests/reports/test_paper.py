"""The paper's items: what it printed, the study behind each, ours beside it, and what is said of what is missing."""

from __future__ import annotations

import ast
import csv
import dataclasses
import itertools
import json
import sys
from pathlib import Path

import pytest

from actkit.config import registry
from actkit.config.recipe import load_evaluation, load_recipe
from actkit.errors import InputError
from actkit.files import sha256
from actkit.networks import model_files
from actkit.probes.pictures import Picture
from actkit.reports.grids import printed as as_printed
from actkit.reports.paper import outcome as outcomes
from actkit.reports.paper.outcome import Line, outcome_of
from actkit.reports.paper.papers import chosen, item, paper_named
from actkit.reports.paper.printed import item_grid, item_json, items_csv
from actkit.reports.paper.study import paper_study, place_of
from actkit.reports.paper.terms import (
    Claim,
    Item,
    ItemExamination,
    ItemTraining,
    Paper,
    PaperScale,
    Published,
    PublishedColumn,
    PublishedRow,
)
from actkit.reports.tables import Number
from helpers.finished import finish, finish_examination, study_of

NAMES, SCALES = paper_named("act").names, paper_named("act").scales
ITEMS = [(name, scale) for scale in SCALES for name in NAMES]


@pytest.mark.parametrize(("name", "scale"), ITEMS)
def test_every_items_recipes_and_probes_are_there(name, scale, tmp_path):
    """Each training's recipe loads with its settings, and each column is a number that a probe of the examination gives."""
    made = item(name, scale)
    made_study = paper_study([made], out=tmp_path, runs=str(tmp_path / "runs"))
    assert {seed for _, seed in made_study.cells} == set(made.seeds)
    training = made.rows[0].training
    labels = {s.title for s in (
        load_recipe(training.recipe, training.settings).spec.kwargs["evaluation"]
        if made.examination is None
        else load_evaluation(made.examination.file, made.examination.settings)
    )}  # fmt: skip
    for row in made.rows:
        for column in made.columns:
            assert column.label(row.reading) in (None, *labels), (row.method, column.title)
        roles = load_recipe(row.training.recipe, row.training.settings).spec.kwargs["roles"]
        assert row.role in ("", *roles)
        assert len(row.paper) <= len(made.columns)
    methods = {row.method for row in made.rows}
    for claim in made.claims:
        assert claim.column in {c.title for c in made.columns}
        for side in (claim.left, *claim.right):
            assert side in methods or side in {(row.group, row.method) for row in made.rows}


def test_the_published_numbers_are_the_papers():
    """Read off the paper by hand: a corner of each table."""

    def printed(name, group, method, column):
        made = item(name)
        row = next(r for r in made.rows if r.group.startswith(group) and r.method == method)
        return dict(zip((c.title for c in made.columns), row.paper, strict=False))[column]

    assert printed("table1", "alpha = 0.9", "G, robust model", "PGD-20") == Published(55.12, 1.07)
    assert printed("table1", "alpha = 0.7", "F, natural model", "PGD-20") is None
    assert printed("table2", "WRN-28-10, CIFAR-100", "ACT", "PGD-1000") == Published(27.26, 0.01)
    assert printed("table2", "ResNet-18, CIFAR-10", "Madry", "smallest").shown() == "0.03782 ± 0.00024"
    assert printed("table3", "ResNet-18, CIFAR-100", "ACT", "from ACT") == Published(68.61)
    assert printed("table4", "ResNet-50, ImageNet", "Fast-FGSM", "PGD-10").note.startswith("the source")
    assert printed("table4", "ResNet-50, ImageNet; attack step 1/255", "Fast-FGSM", "PGD-50-10") == Published(43.46)
    assert printed("table5", "ResNet-18, CIFAR-10", "TRADES", "100/255").shown() == "0.00"
    assert printed("table5", "ResNet-18, CIFAR-10", "TRADES", "50/255").shown() == "0.29"


def test_items_share_their_trainings(tmp_path):
    items = [item(name) for name in ("table1", "table2", "table3", "table5", "figure2", "figure3", "figure4")]
    made_study = paper_study(items, seeds=[0], out=tmp_path, runs="runs")
    # ResNet-18 on both sets: four methods each; alpha: five more; WRN-28-10 on both: three methods each.
    assert len(made_study.trainings) == 8 + 5 + 6
    small = paper_study([item(name, "small") for name in NAMES], seeds=[0], out=tmp_path, runs="runs")
    assert len(small.trainings) == 4 + 5 + 3 + 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["table6"], "the paper has no 'table6'"),
        (["act:tabel2"], "the paper has no 'tabel2' that can be reproduced\n  help: did you mean 'table2'"),
        (["acd:table2"], "there is no paper 'acd'\n  help: did you mean 'act'?"),
        (["act"], "'act' is a paper\n  help: act:all"),
        (["figure1"], "docs/moons.py"),
        (["table1", "--scale", "smal"], "did you mean 'small'?"),
        (["table1", "--seeds", "x"], "whole numbers are wanted"),
        (["table1", "--seeds", "0,0"], "a seed is there twice"),
        (["table1", "-s", "EPS=0.1"], "a scale has macros of its own"),
        (["table1", "-s", "objective.act.alpha=0.3"], "one and the same training"),
        (["table1", "-s", "run.epocs=3"], "did you mean 'epochs'"),
        (["table1", "--format", "excel"], "there is no format 'excel'"),
    ],
)
def test_a_mistake_gets_one_line(actkit, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = actkit("reproduce", *args, "--dry-run", "--device", "cpu")
    assert said.code == 2
    assert message in said.err
    assert said.err.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_a_number_that_its_probe_gives(name):
    """The examination as it is, on tiny linear models and four images."""
    from torch import nn

    from actkit.datasets import digits
    from actkit.evaluation.examination import examine
    from actkit.networks.roles import Role

    made = item(name, "small")
    if made.examination is None:
        specs = load_recipe(made.rows[0].training.recipe).spec.kwargs["evaluation"]
        specs = [s for s in specs if s.name != "audit"]
    else:
        specs = load_evaluation(made.examination.file, made.examination.settings)
    specs = [s.replace(limit=4) if "limit" in s.entry.parameters else s for s in specs if s.name != "audit"]
    specs = [s.replace(epochs=2, limit=None) if s.name == "compression" else s for s in specs]
    roles = {m: Role(m, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))) for m in ("natural", "madry", "trades", "act")}
    if not (made.examination and made.examination.together):
        roles = {"madry": roles["madry"]}
    results = examine([s.build() for s in specs], roles, digits())
    for row in made.rows:
        for column in made.columns:
            if (label := column.label(row.reading)) is not None:
                assert column.number in results[f"madry.{label}"].numbers, (column.title, row.reading)


@pytest.mark.parametrize("name", ["table2", "table4", "figure3"])
def test_a_dry_run_lists_the_trainings_and_the_examinations(actkit, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = actkit("reproduce", name, "--scale", "small", "--seeds", "0", "--dry-run", "--device", "cpu")
    assert said.code == 0, said.err
    trained = {r.training for r in item(name, "small").rows}
    assert f"{len(trained)} cells, {len(trained)} to do: about" in said.out
    assert said.out.count("to do, once its models are trained") == len(trained)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Table2", "table_2", "table 2", "TABLE-2"])
def test_an_item_is_known_however_it_is_written(name):
    assert item(name).name == "table2"


# -- what came of it ---------------------------------------------------------------------------------------------------


def test_ours_stand_beside_the_papers_with_the_difference(tmp_path):
    """Table 1 at full scale, of which two seeds of one alpha are there."""
    study = study_of("table1", "full", tmp_path)
    made = study.items[0]
    row = next(r for r in made.rows if (r.group, r.method) == ("alpha = 0.9", "G, robust model"))
    for seed, robust in ((0, 0.55), (1, 0.56)):
        finish(
            study.cell(row, seed),
            {
                "robust.accuracy": {"clean": 0.84}, "robust.pgd20": {"worst_run": robust},
                "natural.accuracy": {"clean": 0.9}, "natural.pgd20": {"worst_run": 0.1},
            },
        )  # fmt: skip
    found = outcome_of(study, made, "actkit reproduce table1")
    line = next(x for x in found.lines if x.row == row)
    assert line.ours["PGD-20"].values == (0.55, 0.56)
    assert line.difference(made.columns[1]) == pytest.approx(55.5 - 55.12)
    text = as_printed(item_grid(found), "table").splitlines()
    at = next(i for i, x in enumerate(text) if "G, robust model" in x and "55.50 ± 0.71" in x)
    assert "ours, n = 2" in text[at]
    assert text[at + 1].split()[0] == "paper" and "55.12 ± 1.07" in text[at + 1]
    assert text[at + 2].split() == ["difference", "-0.87", "+0.38"]
    assert sum("missing" in x for x in text) >= 10
    assert "missing: act_cifar10, seed 2: not trained" in text
    assert "missing: act_cifar10_alpha_0.1, seed 0, 1, 2: not trained" in text
    assert "holds here" not in "\n".join(text)  # alpha 0.1 is not there
    cell = next(r for r in item_json(found)["rows"] if (r["group"], r["model"]) == ("alpha = 0.9", "G, robust model"))[
        "cells"
    ]["PGD-20"]
    assert (cell["ours"]["seeds"], cell["paper"], cell["difference"]) == ([0, 1], {"value": 55.12, "std": 1.07}, pytest.approx(0.38))  # fmt: skip
    assert "worst of 5 whole-set runs" in cell["protocol"]
    lines = list(csv.DictReader(items_csv([found]).splitlines()))
    one = next(x for x in lines if (x["group"], x["model"], x["column"]) == ("alpha = 0.9", "G, robust model", "PGD-20"))  # fmt: skip
    assert (float(one["mean"]), one["n"], float(one["difference"])) == (pytest.approx(0.555), "2", pytest.approx(0.38))


def test_settings_of_the_users_make_it_another_study_and_where_the_data_lie_does_not(tmp_path):
    plain = study_of("table2", "full", tmp_path, settings=["dataset.cifar10.root=/data"])
    assert plain.items[0].scale.comparable
    assert place_of("full", ["dataset.cifar10.root=/data"]) == Path("reproduced/full")
    changed = study_of("table2", "full", tmp_path, settings=["run.epochs=3"])
    made = changed.items[0]
    assert not made.scale.comparable
    assert "changed by run.epochs=3" in made.scale.said
    assert place_of("full", ["run.epochs=3"]) != Path("reproduced/full")
    found = outcome_of(changed, made, "")
    assert item_json(found)["rows"][0]["settings"] == ["run.epochs=3"]
    assert "difference" not in as_printed(item_grid(found), "table").replace("no difference is given", "")


def test_no_difference_is_given_to_a_number_of_another_protocol():
    made = item("table4")
    row = next(r for r in made.rows if r.method == "Fast-FGSM")
    pgd10 = made.columns[1]
    ours = {pgd10.title: Number((0.4,), percent=True, seeds=(0,))}
    assert Line(row, ours, (0,), {pgd10.title: row.paper[1]}, {}).difference(pgd10) is None
    madry = next(r for r in made.rows if r.method == "Madry")
    assert Line(madry, ours, (0,), {pgd10.title: madry.paper[1]}, {}).difference(pgd10) == pytest.approx(40 - 42.13)


def test_a_seed_tested_on_other_data_is_left_out_and_named(tmp_path):
    study = study_of("table1", "small", tmp_path, seeds=[0, 1])
    row = study.items[0].rows[1]
    for seed in (0, 1):
        finish(study.cell(row, seed), {"robust.pgd20": {"worst_run": 0.5}, "robust.accuracy": {"clean": 1.0}})
    file = study.cell(row, 1).folder / "summary.json"
    file.write_text(file.read_text().replace('"abc"', '"xyz"'))
    found = outcome_of(study, study.items[0], "")
    line = next(x for x in found.lines if x.row == row)
    assert line.seeds == (0,)
    assert any("tested on other data" in str(said) and "xyz" in str(said) for said in found.missing)


def test_a_flag_that_a_later_check_raised_reaches_the_examinations(tmp_path, monkeypatch):
    from actkit.probes import Flag

    study = study_of("figure2", "small", tmp_path)
    row = study.items[0].rows[0]
    finish(study.cell(row, 0), {"robust.x": {}})
    (examined,) = study.examinations()
    model = study.cell(row, 0).folder / "checkpoints/step-1/robust.safetensors"
    finish_examination(examined.folder, model, "x", {"mean_shown": 0.25})
    assert outcome_of(study, study.items[0], "").lines[0].ours["smallest"].verified
    monkeypatch.setattr(
        "actkit.evaluation.summary.standing_flags",
        lambda file: [Flag("noise", "red", "stronger")] if file == model else [],
    )
    assert not outcome_of(study, study.items[0], "").lines[0].ours["smallest"].verified
    assert examined.code == 3


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"models": {}, "results": {}}', '{"models": 3, "results": {"a": 1}}']
)
def test_an_examination_that_cannot_be_read_is_not_examined(tmp_path, text):
    study = study_of("figure2", "small", tmp_path)
    finish(study.cell(study.items[0].rows[0], 0), {"robust.x": {}})
    (examined,) = study.examinations()
    examined.folder.mkdir(parents=True)
    (examined.folder / "summary.json").write_text(text)
    assert not examined.done
    assert any("not examined" in said.why for said in outcome_of(study, study.items[0], "").missing)


def test_at_small_scale_no_difference_is_given(tmp_path):
    study = study_of("table1", "small", tmp_path, seeds=[0])
    for row in study.items[0].rows:
        if not study.cell(row, 0).done:
            alpha = float(row.group.partition("= ")[2])
            finish(
                study.cell(row, 0),
                {f"{m}.{p}": {n: alpha / 2} for m in ("robust", "natural") for p, n in (("accuracy", "clean"), ("pgd20", "worst_run"))},
            )  # fmt: skip
    found = outcome_of(study, study.items[0], "actkit reproduce table1 --scale small")
    text = as_printed(item_grid(found), "table")
    assert "difference" not in text.replace("no difference is given", "")
    assert "digits, n = 1" in text and "ours, n" not in text
    assert [v.answer for v in found.verdicts] == ["not clear here"] * 2  # one seed says nothing of the spread
    assert "says nothing about the paper's numbers" in text
    assert all(r["cells"]["clean"]["difference"] is None for r in item_json(found)["rows"])
    (picture,) = found.pictures
    assert picture.name == "table1-by-alpha"
    assert picture.data["series"]["G, robust model, PGD-20"]["x"] == [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    assert picture.data["series"]["G, robust model, PGD-20"]["y"] == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.45, 0.5])


def test_a_claim_that_does_not_hold_is_said_not_to(tmp_path):
    study = study_of("table1", "small", tmp_path, seeds=[0, 1])
    for row in study.items[0].rows:
        for seed in (0, 1):
            if not study.cell(row, seed).done:
                down = 1 - float(row.group.partition("= ")[2]) + seed / 50
                numbers = {f"{m}.pgd20": {"worst_run": down} for m in ("robust", "natural")}
                finish(study.cell(row, seed), numbers | {"robust.accuracy": {"clean": 1.0}})
    verdict = outcome_of(study, study.items[0], "").verdicts[0]
    assert verdict.answer == "does not hold here"
    assert str(verdict).endswith("[PGD-20]: does not hold here; 11.00 ± 1.41 % against 91.00 ± 1.41 %")


@pytest.mark.parametrize(
    ("left", "right", "answer"),
    [
        ((0.60, 0.62), (0.50, 0.52), "holds here"),
        ((0.50, 0.52), (0.60, 0.62), "does not hold here"),
        ((0.50, 0.60), (0.49, 0.58), "not clear here"),
        ((0.60,), (0.50,), "not clear here"),
    ],
)
def test_a_difference_within_the_spread_over_seeds_is_not_clear(left, right, answer):
    numbers = [Number(values, percent=True, seeds=tuple(range(len(values)))) for values in (left, right)]
    assert outcomes._held(numbers[0], numbers[1:], "higher") == answer


@pytest.mark.parametrize(
    ("within", "answer"),
    [((0.01, 0.01), "holds here"), ((0.05, 0.05), "not clear here"), ((float("nan"),) * 2, "not clear here")],
    ids=["draws that agree", "draws that do not", "a single draw"],
)
def test_a_difference_within_the_spread_over_draws_is_not_clear_either(within, answer):
    left, right = (Number(v, percent=True, seeds=(0, 1), within=within) for v in ((0.80, 0.81), (0.85, 0.86)))
    assert outcomes._held(left, [right], "lower") == answer


def test_the_verdict_of_figure_3_knows_how_far_the_draws_of_labels_lie_apart(tmp_path):
    """2.2 points between means over three seeds are nothing where other labels move each number by 3."""
    study = study_of("figure3", "small", tmp_path)
    made = study.items[0]
    rows = [row for row in made.rows if not row.role]
    for row, seed in itertools.product(rows, made.seeds):
        if not study.cell(row, seed).done:
            finish(study.cell(row, seed), {"robust.x": {}})

    def verdict(**std: float) -> str:
        for row, seed in itertools.product(rows, made.seeds):
            folder, accuracy = study.cell(row, seed).folder, 0.805 if row.method == "ACT" else 0.827
            model = folder / "checkpoints/step-1/robust.safetensors"
            numbers = {"accuracy": accuracy + seed / 1000, **std}
            finish_examination(study.task(made, row, seed).folder, model, "x", numbers, "compression")
        return str(outcome_of(study, made, "").verdicts[1])

    assert verdict(std=0.03).endswith(
        "[random labels]: not clear here; 80.60 ± 0.10 % against 82.80 ± 0.10 % (over draws ± 3.00, 3.00 %)"
    )
    assert "holds here; 80.60 ± 0.10 % against 82.80 ± 0.10 % (over draws ± 0.20, 0.20 %)" in verdict(std=0.002)
    assert verdict().endswith("not clear here; 80.60 ± 0.10 % against 82.80 ± 0.10 % (of a single draw)")


def test_only_common_seeds_are_compared():
    left = Number((0.9, 0.5, 0.51), percent=True, seeds=(0, 1, 2))
    right = Number((0.6, 0.61), percent=True, seeds=(1, 2))
    assert outcomes._held(left, [right], "higher") == "does not hold here"
    assert outcomes._held(left, [Number((0.1,), percent=True, seeds=(7,))], "higher") == "not known"


def test_a_claim_on_an_unverified_number_is_not_known(tmp_path):
    study = study_of("table1", "small", tmp_path, seeds=[0])
    for row in study.items[0].rows:
        if not study.cell(row, 0).done:
            finish(study.cell(row, 0), {f"{m}.pgd20": {"worst_run": 0.1} for m in ("robust", "natural")})
    file = study.cell(next(r for r in study.items[0].rows if r.group == "alpha = 0.9"), 0).folder / "summary.json"
    summary = json.loads(file.read_text())
    summary["results"]["robust.pgd20"] |= {"verified": False, "numbers": {"worst_run": 0.9}}
    file.write_text(json.dumps(summary))
    found = outcome_of(study, study.items[0], "")
    assert found.verdicts[0].answer == "not known"
    assert "90.00 UNVERIFIED % against 10.00 %" in str(found.verdicts[0])
    assert found.verdicts[1].answer == "not clear here"  # equal is not higher


def test_an_examination_of_other_weights_is_done_again(tmp_path, monkeypatch):
    study = study_of("figure2", "small", tmp_path)
    made = study.items[0]
    row = made.rows[0]
    assert study.examinations() == []
    weights = tmp_path / "weights"
    weights.write_text("one")
    monkeypatch.setattr(model_files, "current", lambda folder: [weights])
    finish(study.cell(row, 0), {})
    (examined,) = study.examinations()
    assert examined.command([])[:3] == ["probe", "--ckpt", str(study.cell(row, 0).folder)]
    assert not examined.done
    model = study.cell(row, 0).folder / "checkpoints/step-1/robust.safetensors"
    finish_examination(examined.folder, model, sha256(weights), {"mean_shown": 0.25})
    assert examined.done
    found = outcome_of(study, made, "")
    assert found.lines[0].ours["smallest"].values == (0.25,)
    weights.write_text("another")
    assert not examined.done
    assert found.lines[0].ours != outcome_of(study, made, "").lines[0].ours


def test_a_black_box_matrix_needs_two_models(tmp_path):
    study = study_of("table3", "small", tmp_path, seeds=[0])
    rows = study.items[0].rows
    finish(study.cell(rows[0], 0), {})
    assert study.examinations() == []
    finish(study.cell(rows[1], 0), {})
    (examined,) = study.examinations()
    assert examined.command([]).count("--ckpt") == 2


def test_an_item_is_reproduced_and_then_shown_again(actkit, warm, tmp_path, monkeypatch):
    """Figure 2 on digits with tiny networks: trained, examined, drawn; the second time nothing is done, and a missing cell stays visible."""
    monkeypatch.undo()  # these runs have weights
    monkeypatch.setattr(sys, "executable", warm)
    monkeypatch.chdir(tmp_path)
    quick = [part for s in (
        "dataset.digits.test_fraction=0.8", "run.epochs=6", "run.batch_size=64", "backbone.resnet.width=4", "train/attack.pgd.steps=1",
        "eval/attack.pgd.steps=1", "probe.robust_accuracy.starts=1", "probe.robust_accuracy.limit=100", "probe.audit.limit=4",
    ) for part in ("-s", s)]  # fmt: skip
    command = ["reproduce", "figure2", "--scale", "small", *quick, "-j", "2", "--device", "cpu"]
    said = actkit(*command)
    assert said.code in (0, 3), said.err  # a check may well find something in a training as short as this
    (out,) = (tmp_path / "reproduced").glob("small-*")  # its settings make it another study than the small one
    assert {p.name for p in out.iterdir() if p.is_file()} == {
        "figure2.md", "figure2.csv", "figure2.tex", "figure2.json", "figure2-gallery.svg", "figure2-gallery.png", "figure2-gallery.json", "report.html",
    }  # fmt: skip
    kept = json.loads((out / "figure2.json").read_text())
    assert kept["missing"] == []
    assert kept["about"]["command"].endswith("-s probe.audit.limit=4 --device cpu")
    for row in kept["rows"]:
        folder = Path(kept["about"]["trainings"][f"{row['model'].lower()}_digits seed 0"])
        (summary,) = (out / "examined").glob(f"*{folder.parent.name}-{folder.name}-*/summary.json")
        own = json.loads(summary.read_text())
        ours = row["cells"]["smallest"]["ours"]  # None where all images shown are misclassified
        assert (ours and ours["values"][0]) == own["results"]["robust.gallery"]["numbers"]["mean_shown"]
    assert any(row["cells"]["smallest"]["ours"] for row in kept["rows"])
    gallery = Picture.from_json(json.loads((out / "figure2-gallery.json").read_text()))
    assert [row["name"] for row in gallery.data["rows"]] == ["Madry", "TRADES", "ACT"]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("summary.json")}
    again = actkit(*command)
    assert (again.code, again.out) == (said.code, said.out)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("summary.json")} == before
    next((tmp_path / "runs/trades_digits").glob("*/summary.json")).unlink()
    shown = actkit(*command, "--show")
    assert shown.code == 0, shown.err
    assert "missing: trades_digits, seed 0: not trained" in shown.out
    line = next(line for line in shown.out.splitlines() if line.startswith("TRADES"))
    assert line.split() == ["TRADES", "digits,", "n", "=", "0", "missing"]


# -- papers as a kind ----------------------------------------------------------------------------------------------------

TINY = PaperScale("tiny", "tiny scale", "tiny scale: for a test", unlike="nothing is like this")
CLEAN = PublishedColumn("clean", "accuracy", "clean", "accuracy")
ROW = PublishedRow("digits", "Madry", ItemTraining("gin/madry_digits.gin"), Published.line("87.30"))


def an_item(**changed):
    return Item(**({"name": "table7", "title": "Table 7", "scale": TINY, "seeds": (0,), "columns": (CLEAN,), "rows": (ROW,)} | changed))  # fmt: skip


@pytest.fixture
def of_others(monkeypatch):
    """Papers registered for one test."""
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    return lambda name, made: registry.add("paper", name, made)


def test_a_paper_of_a_plugin_stands_beside_acts(of_others, actkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_others("zz", lambda: Paper("Z", "Z et al. 2031", [an_item()], elsewhere={"figure1": ("is a drawing", "look")}))
    listed = actkit("list", "papers").out
    assert "zz:table7" in listed and " table2 " in listed
    said = actkit("reproduce", "zz:table7", "--scale", "tiny", "--show")
    assert said.code == 0, said.err
    assert "tiny scale: for a test" in " ".join(said.out.split()).lower()
    assert "since nothing is like this" in said.out and "87.30" in said.out
    assert place_of("tiny", [], "zz") == Path("reproduced/zz_tiny")
    for name, scale, message in (
        ("zz:tabel7", "tiny", "the paper has no 'zz:tabel7' that can be reproduced\n  help: did you mean 'zz:table7'?"),
        ("zz:figure1", "tiny", "figure1 is a drawing\n  help: look"),
        ("zz:table7", "full", "there is no scale 'full'\n  help: there is tiny"),
    ):
        assert message in actkit("reproduce", name, "--scale", scale).err
    assert "of several papers: act, zz" in actkit("reproduce", "table1", "zz:table7").err


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: 3, "paper 'zz' returns int, not Paper"),
        (lambda: 1 / 0, "paper 'zz' fails: ZeroDivisionError"),
        (lambda: Paper("Z", "Z", []), "paper 'zz': a paper has one item at least"),
        (lambda: Paper("Z", "Z", [an_item(), an_item()]), "table7 is there twice at the scale 'tiny'"),
        (lambda: an_item(name="Table 7"), "small letters and digits, got 'Table 7'"),
        (lambda: an_item(rows=()), "table7 has no rows"),
        (lambda: an_item(columns=(CLEAN,), rows=(dataclasses.replace(ROW, paper=Published.line("1 2")),)), "has 1 columns, its row 'Madry' has 2"),
        (lambda: an_item(claims=(Claim("better", "PGD", "Madry", "higher", ()),)), "table7 has no column 'PGD'"),
        (lambda: an_item(claims=(Claim("better", "clean", "Madri", "higher", ()),)), "table7 has no row 'Madri'"),
    ],
)  # fmt: skip
def test_a_paper_that_does_not_fit_gets_one_line(of_others, made, message):
    of_others("zz", made)
    with pytest.raises(InputError) as caught:
        paper_named("zz")
    assert message in str(caught.value)
    assert __file__ in str(caught.value), "where it is written"


@pytest.mark.parametrize("examination", [None, ItemExamination("gin/evaluation_table2.gin")])
def test_a_column_of_a_probe_that_is_not_there_gets_one_line(examination, tmp_path):
    column = PublishedColumn("PGD-20", "pdg20", "worst_run", "accuracy under PGD-20")
    with pytest.raises(InputError, match="there is no probe 'pdg20' in the evaluation") as caught:
        paper_study([an_item(columns=(column,), examination=examination)], out=tmp_path, runs="runs")
    assert caught.value.help == "did you mean 'pgd20'?"


def test_a_paper_takes_no_parameters(of_others):
    with pytest.raises(InputError, match="it has parameters"):
        of_others("zz", lambda *, scale="full": None)


def test_act_colon_an_item_is_that_item():
    assert item("act:table2") == item("table2")
    assert chosen(["act:table2", "table2", "Table 3"], "full").items == (item("table2"), item("table3"))
    assert [one.name for one in chosen(["all"], "small").items] == list(NAMES)


def test_no_file_but_one_names_the_items_of_act():
    package = Path(paper_named.__code__.co_filename).parents[2]
    named = [
        path.name
        for path in package.rglob("*.py")
        if any(
            isinstance(node, ast.Constant) and node.value in NAMES
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert named == ["act.py"]

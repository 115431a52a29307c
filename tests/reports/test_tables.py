"""Tables of runs: what they are grouped by, what stands in a cell, what may not stand in one table."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.evaluation.summary import RunFacts, Summary
from actkit.reports import curves
from actkit.reports.grids import Grid, printed
from actkit.reports.tables import Number, Table, find, formatted, table
from actkit.training.study import Cell
from actkit.training.study_record import StudyRecord
from helpers.finished import EVALUATION, finished_run


def made(*folders: Path) -> Table:
    return table(*find(folders))


def test_seeds_are_averaged_with_the_deviation_of_a_sample(tmp_path):
    values = [0.50, 0.53, 0.59]
    for seed, value in enumerate(values):
        finished_run(tmp_path / f"s{seed}", seed=seed, robust=value)
    (row,) = made(tmp_path).rows
    number = row.numbers["PGD-20"]
    assert number.mean == pytest.approx(statistics.mean(values))
    assert number.std == pytest.approx(statistics.stdev(values))
    assert number.shown() == "54.00 ± 4.58"
    assert row.seeds == (0, 1, 2)
    assert "54.00 ± 4.58" in formatted(made(tmp_path), "table")


def test_one_seed_has_no_deviation(tmp_path):
    finished_run(tmp_path / "a")
    assert made(tmp_path).rows[0].numbers["clean"].shown() == "90.00"


def test_runs_are_grouped_by_what_they_differ_in(tmp_path):
    for alpha in (0.1, 0.9):
        for seed in (0, 1):
            finished_run(tmp_path / f"{alpha}{seed}", alpha=alpha, seed=seed)
    finished_run(tmp_path / "madry", objective="madry")
    assert [row.group for row in made(tmp_path).rows] == ["act alpha=0.1", "act alpha=0.9", "madry"]
    assert [len(row.seeds) for row in made(tmp_path).rows] == [2, 2, 1]


@pytest.mark.parametrize("how", ["table", "markdown", "latex", "csv", "json"])
def test_every_format_holds_the_numbers(tmp_path, how, actkit):
    finished_run(tmp_path / "a", clean=0.8125)
    finished_run(tmp_path / "b", clean=0.8125, seed=1)
    said = actkit("report", tmp_path, "--format", how)
    assert said.code == 0, said.err
    if how == "csv":
        rows = list(csv.DictReader(said.out.splitlines()))
        assert float(next(r for r in rows if r["number"] == "clean")["mean"]) == 0.8125
    elif how == "json":
        assert json.loads(said.out)["rows"][0]["numbers"]["clean"] == {
            "values": [0.8125] * 2,
            "mean": 0.8125,
            "std": 0.0,
            "n": 2,
            "seeds": [0, 1],
            "percent": True,
            "verified": True,
            "because": [],
        }
    else:
        assert {"table": "81.25 ± 0.00", "markdown": "| 81.25 ± 0.00 |", "latex": r"81.25 $\pm$ 0.00 &"}[
            how
        ] in said.out


def test_latex_says_what_latex_can_read(tmp_path):
    finished_run(tmp_path / "a", alpha=0.1)
    finished_run(tmp_path / "b", alpha=0.2)
    text = formatted(made(tmp_path), "latex")
    assert r"alpha=0.1 & robust & 1 & 90.00 & 50.00 \\" in text
    assert text.count(r"\\") == 3
    grid = Grid(["model"], [["act>madry_1"]], [], 1)
    assert r"act$>$madry\_1 \\" in printed(grid, "latex")


def test_an_unverified_number_is_marked_also_among_verified_ones(tmp_path):
    finished_run(tmp_path / "a")
    finished_run(tmp_path / "b", seed=1, verified=False)
    assert "50.00 ± 0.00 UNVERIFIED" in formatted(made(tmp_path), "table")


def doubted(folder: Path, **how) -> Path:
    """A finished run with red flags on its model."""
    finished_run(folder, verified=False, **how)
    summary = json.loads((folder / "summary.json").read_text())
    flags = [f"robust, noise: {how['seed'] + 2} of 32 images", "robust, APGD-T: 1_0 %"]
    summary["results"]["robust.robust_accuracy"]["because"] = flags
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_table_says_why_a_number_is_unverified_a_line_a_red_flag(tmp_path):
    finished_run(tmp_path / "r/a")
    doubted(tmp_path / "r/b", seed=1)
    doubted(tmp_path / "r/c", seed=2)
    wanted = ["seed 1: robust, noise: 3 of 32 images", "seeds 1, 2: robust, APGD-T: 1_0 %", "seed 2: robust, noise: 4 of 32 images"]  # fmt: skip
    found = made(tmp_path / "r")
    assert list(found.rows[0].numbers["PGD-20"].because) == wanted
    text = formatted(found, "table").splitlines()
    assert text[1].endswith("50.00 ± 0.00 UNVERIFIED [1,2,3]")
    assert text[2:5] == [f"[{i}] UNVERIFIED: r, {said}" for i, said in enumerate(wanted, 1)]
    assert f"- [2] UNVERIFIED: r, {wanted[1]}" in formatted(found, "markdown")
    assert (
        "; ".join(wanted)
        in next(csv.DictReader(formatted(found, "csv").splitlines()[0:1] + formatted(found, "csv").splitlines()[2:]))[
            "because"
        ]
    )
    assert json.loads(formatted(found, "json"))["rows"][0]["numbers"]["PGD-20"]["because"] == wanted


def test_in_latex_the_reasons_are_footnotes_below_the_tabular(tmp_path):
    doubted(tmp_path / "r/b", seed=1)
    text = formatted(made(tmp_path / "r"), "latex")
    assert r"50.00 UNVERIFIED\textsuperscript{1,2} \\" in text
    _, _, below = text.partition(r"\end{tabular}")
    assert below.splitlines()[1:] == [
        r"\par{\footnotesize\textsuperscript{1} UNVERIFIED: r, seed 1: robust, noise: 3 of 32 images\par}",
        r"\par{\footnotesize\textsuperscript{2} UNVERIFIED: r, seed 1: robust, APGD-T: 1\_0 \%\par}",
    ]


def test_a_study_stands_in_its_own_order_with_what_failed_and_why(tmp_path):
    """The folders of a study's cells are called by sums: their order says nothing."""
    folders = [tmp_path / f"runs/{name}" for name in ("m/seed0-1", "a/seed0-9", "a/seed0-2", "z/seed0-0")]
    for folder, objective, alpha in zip(folders, ["madry", "act", "act", "trades"], [0, 0.9, 0.1, 0], strict=True):
        finished_run(folder, objective=objective, alpha=alpha)
    (folders[3] / "summary.json").unlink()
    (tmp_path / "runs/z/seed0-0.log").write_text("epoch 1\nerror: the disk is full\n")
    study = [Cell("r.gin", (), 0, folder, folder.name) for folder in folders]
    StudyRecord.of("s.gin", study, tmp_path / "runs/s").save()
    found = made(tmp_path / "runs/s")
    assert [row.group for row in found.rows] == ["madry", "act alpha=0.9", "act alpha=0.1"]
    assert (
        found.caption[-1]
        == f"not finished: {folders[3]}: failed in the first epoch of 2: the disk is full ({folders[3]}.log)"
    )
    (tmp_path / "runs/s/study.json").write_text("{")
    with pytest.raises(InputError, match=r"this study's study.json cannot be read"):
        made(tmp_path / "runs/s")


def test_what_lies_in_the_folder_of_a_study_and_is_no_cell_of_it_comes_last(tmp_path):
    one, other = (finished_run(tmp_path / f"s/{name}", seed=seed) for name, seed in (("b", 0), ("a", 1)))
    StudyRecord.of("s.gin", [Cell("r.gin", (), 0, one, "b")], tmp_path / "s").save()
    assert made(tmp_path / "s").rows[0].folders == (one, other)


def test_an_unfinished_run_stays_visible(tmp_path):
    finished_run(tmp_path / "a")
    other = finished_run(tmp_path / "b", seed=1)
    (other / "summary.json").unlink()
    assert f"not finished: {other}" in formatted(made(tmp_path), "table")


def eps(value):
    return [EVALUATION[0], EVALUATION[1].replace(attack=EVALUATION[1].kwargs["attack"].replace(eps=value))]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"evaluation": eps(0.2)}, r"examined differently: .*eps is 0.1 in one and 0.2 in another"),
        ({"fingerprint": "xyz"}, "tested on different data"),
        ({"seed": 0}, "the same settings and the seed 0"),
    ],
)
def test_what_may_not_stand_in_one_table_is_told(tmp_path, other, message):
    finished_run(tmp_path / "a")
    finished_run(tmp_path / "b", **{"seed": 1, **other})
    with pytest.raises(InputError, match=message):
        made(tmp_path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "there is no such folder"),
        ([__file__], "this is a file"),
        (["."], "this folder is no run and holds none"),
        (["run", "--format", "markdwon"], "there is no format 'markdwon'"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, args, message, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if args[0] == "run":
        finished_run(tmp_path / "run")
    said = actkit("report", *args)
    assert said.code == 2
    assert message in said.err


# -- pictures --------------------------------------------------------------------------------------------------------------


def test_the_training_curves_are_the_monitors_with_best_and_last_marked(tmp_path):
    lines = [
        {
            "epoch": i + 1,
            "step": i + 1,
            "loss": {},
            "monitor": {"robust.clean": {"clean": 0.5 + i / 10}, "robust.pgd": {"worst_run": y}},
        }
        for i, y in enumerate([0.1, 0.4, 0.3])
    ]
    folder = tmp_path / "act/seed0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines) + '{"epoch": 4, "mon')
    picture = curves.curves(folder)
    attacked = picture.data["series"]["robust, pgd"]
    assert (attacked["x"], attacked["y"]) == ([1, 2, 3], [0.1, 0.4, 0.3])
    assert attacked["marks"] == [{"x": 2, "y": 0.4, "text": "highest"}, {"x": 3, "y": 0.3, "text": "last"}]
    assert picture.data["series"]["robust, clean"]["y"] == pytest.approx([0.5, 0.6, 0.7])
    assert curves.curves(tmp_path) is None


def test_each_probe_of_the_monitor_is_a_curve_and_the_chosen_epoch_is_marked(tmp_path):
    looks = [
        {
            "robust.pgd": {"worst_run": 0.5},
            "robust.val": {"worst_run": y},
            "robust.entropy": {"mean": 1.0},
            "robust.pgd2": {"worst_run": i / 10},
        }
        for i, y in enumerate([0.1, 0.4, 0.3])
    ]
    lines = [{"epoch": i + 1, "step": i + 1, "loss": {}, "monitor": look} for i, look in enumerate(looks)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    chosen = RunFacts("r.gin", seed=0, epochs=2, steps=4, stopped_early=False, trained_epochs=3, best="val")
    Summary(command="c", data="digits", data_fingerprint={}, sizes={}, evaluation=(), results={}, run=chosen).save(
        tmp_path
    )
    series = curves.curves(tmp_path).data["series"]
    assert set(series) == {"robust, pgd", "robust, val", "robust, pgd2"}
    assert series["robust, val"]["y"] == [0.1, 0.4, 0.3]
    assert [m["text"] for m in series["robust, val"]["marks"]] == ["best", "last"]
    assert series["robust, val"]["marks"][0]["x"] == 2
    assert [m["text"] for m in series["robust, pgd2"]["marks"]] == ["highest, last"]


def test_two_probes_of_one_title_keep_their_numbers_apart(tmp_path):
    folder = finished_run(tmp_path / "a", robust=0.6)
    summary = json.loads((folder / "summary.json").read_text())
    result = summary["results"].pop("robust.robust_accuracy")
    for label, eps, value in (("near", "0.1", 0.6), ("far", "0.3", 0.1)):
        threat = {"norm": "linf", "eps": eps, "value": float(eps)}
        summary["results"][f"robust.{label}"] = {**result, "numbers": {"worst_run": value}, "threat": threat}
    (folder / "summary.json").write_text(json.dumps(summary))
    (row,) = made(tmp_path).rows
    assert {k: n.values for k, n in row.numbers.items()} == {
        "clean": (0.9,), "PGD-20 (linf 0.1)": (0.6,), "PGD-20 (linf 0.3)": (0.1,),
    }  # fmt: skip


def test_a_number_that_some_seeds_lack_says_of_how_many_it_is(tmp_path):
    for seed in range(3):
        finished_run(tmp_path / f"s{seed}", seed=seed, robust=None if seed == 1 else 0.5)
    (row,) = made(tmp_path).rows
    assert row.numbers["PGD-20"].seeds == (0, 2)
    assert "50.00 ± 0.00 (n = 2)" in formatted(made(tmp_path), "table")
    rows = list(csv.DictReader(formatted(made(tmp_path), "csv").splitlines()))
    assert {r["number"]: (r["n"], r["seeds"], r["percent"]) for r in rows} == {
        "clean": ("3", "0 1 2", "True"), "PGD-20": ("2", "0 2", "True"),
    }  # fmt: skip


def test_a_number_that_is_not_finite_breaks_no_table(tmp_path):
    number = Number((float("inf"), 1.0), percent=False, seeds=(0, 1))
    assert number.shown() == "inf ± nan"
    assert json.loads(json.dumps(number.to_json(), allow_nan=False))["values"] == [None, 1.0]


def test_the_caption_says_what_is_no_percentage(tmp_path):
    folder = finished_run(tmp_path / "a")
    summary = json.loads((folder / "summary.json").read_text())
    column = {"number": "total", "title": "weight norm", "percent": False}
    about = {"images": None, "flags": [], "threat": None}
    summary["results"]["robust.norms"] = {"numbers": {"total": 17.68}, "columns": [column], **about}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "percent, except weight norm" in formatted(made(tmp_path), "table")


def changed(folder: Path, **settings) -> Path:
    """The same run with other settings at its root."""
    spec = Spec.from_json(json.loads((folder / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(spec.replace(**settings).to_json()))
    return folder


def test_the_same_value_written_otherwise_is_no_difference(tmp_path):
    for seed, value in enumerate([0.5, "1/2"]):
        finished_run(tmp_path / f"s{seed}", seed=seed, alpha=value)
    assert [len(row.seeds) for row in made(tmp_path).rows] == [2]


def test_settings_that_vary_in_step_are_both_named(tmp_path):
    for i, (epochs, size) in enumerate([(2, 2), (8, 8)]):
        changed(finished_run(tmp_path / f"r{i}"), epochs=epochs, batch_size=size)
    assert [row.group for row in made(tmp_path).rows] == ["epochs=2 batch_size=2", "epochs=8 batch_size=8"]
    assert curves.sweep_of(made(tmp_path)) == []


def test_what_varies_in_one_role_is_named_by_its_role(tmp_path):
    for i, (robust, natural) in enumerate([(16, 8), (8, 16)]):
        folder = finished_run(tmp_path / f"r{i}")
        roles = {
            name: Spec("", "role", {"backbone": Spec("backbone", "resnet", {"width": width})})
            for name, width in (("robust", robust), ("natural", natural))
        }
        changed(folder, roles=roles)
    assert [row.group for row in made(tmp_path).rows] == [
        "robust.backbone.width=16 natural.backbone.width=8", "robust.backbone.width=8 natural.backbone.width=16",
    ]  # fmt: skip


def test_a_monitor_that_chooses_is_a_difference_and_another_is_none(tmp_path):
    for i, limit in enumerate([10, 20]):
        changed(
            finished_run(tmp_path / f"r{i}", seed=i),
            monitor=[Spec("probe", "accuracy", {"limit": limit, "split": "val"})],
        )
    assert len(made(tmp_path).rows) == 1
    for i in range(2):
        changed(tmp_path / f"r{i}", best="accuracy")
    assert [row.group for row in made(tmp_path).rows] == ["limit=10", "limit=20"]


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"data": "x", "data_fingerprint": {}, "evaluation": [], "results": {"a.b": {}}}'])  # fmt: skip
def test_a_summary_that_cannot_be_used_is_told(tmp_path, actkit, text):
    folder = finished_run(tmp_path / "a")
    (folder / "summary.json").write_text(text)
    said = actkit("report", folder)
    assert said.code == 2
    assert "summary.json cannot be read" in said.err
    assert "examines the models anew" in said.err


def test_a_runs_folder_that_holds_another_examinations_summary_is_told(tmp_path):
    own = finished_run(tmp_path / "run")
    data = json.loads((own / "summary.json").read_text())
    (own / "summary.json").write_text(json.dumps({**data, "models": {}}))
    with pytest.raises(InputError, match="is of `actkit probe` and says nothing of its training"):
        find([own])


def test_a_sweep_of_one_number_is_drawn_and_others_are_not(tmp_path):
    for alpha, robust in ((0.9, 0.6), (0.1, 0.5)):
        for seed in (0, 1):
            finished_run(tmp_path / f"{alpha}{seed}", alpha=alpha, seed=seed, robust=robust + seed / 50)
    (picture,) = curves.sweep_of(made(tmp_path))
    one = picture.data["series"]["robust, PGD-20"]
    assert one["x"] == [0.1, 0.9]
    assert one["y"] == pytest.approx([0.51, 0.61])
    assert one["high"][0] - one["y"][0] == pytest.approx(statistics.stdev([0.5, 0.52]))
    finished_run(tmp_path / "madry", objective="madry")
    assert curves.sweep_of(made(tmp_path)) == []


def test_report_draws_what_there_is(tmp_path, actkit):
    for alpha in (0.1, 0.9):
        finished_run(tmp_path / f"r/{alpha}", alpha=alpha)
    said = actkit("report", tmp_path / "r", "--pictures", tmp_path / "p")
    assert said.code == 0, said.err
    kinds = ("svg", "png", "json")
    assert {p.name for p in (tmp_path / "p").iterdir()} == {
        f"{n}.{k}" for n in ("sweep-alpha", "methods") for k in kinds
    }
    (tmp_path / "r/0.1/probes").mkdir()
    (tmp_path / "r/0.1/probes/x.picture.json").write_text("{}")
    said = actkit("report", tmp_path / "r", "--pictures", tmp_path / "p")
    assert said.code == 2
    assert "this picture cannot be read" in said.err

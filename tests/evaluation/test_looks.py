"""The number to watch: a probe names it, a line of metrics keeps which it is, and whoever watches or chooses takes that one."""

from __future__ import annotations

import json
import math

import pytest
import torch

from actkit.cli.display import describe
from actkit.errors import InputError
from actkit.evaluation.looks import EpochLine
from actkit.probes import Column, Result
from actkit.reports.curves import curves, losses, pictures_of_run

OWN = Result({"spread": 0.1, "mine": 0.7}, columns=(Column("mine", "my attack"),), attacked=True, headline="mine")
NATS = Result({"mean": 1.9}, columns=(Column("mean", "entropy (nats)", percent=False),), headline="mean")


def entry(**results: Result) -> EpochLine:
    """A line of metrics after a look at the model `robust`, as it is read again."""
    line = EpochLine(1, 9, loss={"robust": 0.5})
    named = {f"robust.{label}": result for label, result in results.items()}
    return EpochLine.from_json(json.loads(json.dumps(line.with_looks(named).to_json())))


def test_a_probes_headline_is_what_is_watched_whatever_it_is_called():
    line = entry(own=OWN, accuracy=Result({"clean": 0.9}, columns=(Column("clean", "clean"),)))
    assert [(str(one.name), one.value, one.attacked) for one in line.seen] == [
        ("robust.own", 0.7, True),
        ("robust.accuracy", 0.9, False),
    ]
    assert line.look("robust", "own").value == 0.7
    assert line.look_under_attack("robust").value == 0.7
    assert describe(line) == "robust: loss 0.500, my attack 70.0 · clean 90.0"


def test_a_headline_is_shown_under_its_columns_title_and_in_its_unit():
    assert describe(entry(entropy=NATS)) == "robust: loss 0.500, entropy (nats) 1.9"


def test_a_headline_that_no_column_shows_is_shown_by_its_name_as_it_is():
    assert describe(entry(own=Result({"mine": 0.7}, headline="mine"))) == "robust: loss 0.500, mine 0.7"


def on(images: int, title: str, value: float) -> Result:
    """A rate that was measured on so many images."""
    return Result({"x": value}, {"correct": torch.ones(images)}, columns=(Column("x", title),), headline="x")


def test_a_line_says_how_many_images_its_numbers_are_of_once_where_all_are_of_as_many():
    alike = entry(clean=on(1500, "clean", 0.612), pgd=on(1500, "PGD-20", 0.351))
    assert describe(alike) == "robust: loss 0.500, clean 61.2 · PGD-20 35.1 (1,500 images)"
    differ = entry(clean=on(1500, "clean", 0.612), pgd=on(500, "PGD-20", 0.351))
    assert describe(differ) == "robust: loss 0.500, clean 61.2 (1,500 images) · PGD-20 35.1 (500 images)"


def test_a_line_of_two_models_says_the_images_at_its_end():
    line = EpochLine(1, 9, loss={"robust": 0.5, "natural": 0.25})
    looked = line.with_looks({"robust.pgd": on(500, "PGD-20", 0.351), "natural.pgd": on(500, "PGD-20", 0.1)})
    assert describe(looked) == "robust: loss 0.500, PGD-20 35.1 | natural: loss 0.250, PGD-20 10.0 (500 images)"


def test_a_result_without_a_single_number_to_watch_is_not_watched():
    line = entry(sweep=Result({"eps 1/255": 0.8, "eps 2/255": 0.6}, attacked=True))
    assert line.look("robust", "sweep") is None
    assert line.look_under_attack("robust") is None
    assert describe(line) == "robust: loss 0.500"


def test_a_result_may_say_that_none_of_its_numbers_is_one_to_watch():
    line = entry(audit=Result({"clean": 0.9}, headline=None))
    assert line.look("robust", "audit") is None


def test_a_number_that_is_not_finite_survives_the_file():
    (look,) = entry(smallest=Result({"mean_correct": math.nan, "far": math.inf})).seen
    assert math.isnan(look.numbers["mean_correct"])
    assert look.numbers["far"] == math.inf


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "should be an object"),
        ({"epoch": 1}, "it lacks 'step'"),
        ({"epoch": "1", "step": 1}, "epoch: should be int"),
        (
            {"epoch": 1, "step": 1, "monitor": {"robust.p": {"clean": "0.5"}}},
            "monitor.robust.p holds what is no number",
        ),
        (
            {
                "epoch": 1,
                "step": 1,
                "monitor": {"robust.p": {}},
                "looks": {"robust.p": {"headline": "x", "attacked": True}},
            },
            "looks.robust.p: 'x' is none of its numbers",
        ),
    ],
    ids=["no object", "no step", "a text for a number", "a number that is none", "a headline that is not there"],
)
def test_a_damaged_line_is_none(line, message):
    with pytest.raises(ValueError, match=message):
        EpochLine.from_json(line)


@pytest.mark.parametrize(
    ("numbers", "headline"),
    [
        ({"clean": 0.9, "mean": 0.6, "worst_run": 0.5}, "worst_run"),
        ({"clean": 0.9, "worst_case": 0.4}, "worst_case"),
        ({"clean": 0.9}, "clean"),
        ({"mean": 0.3}, None),
    ],
    ids=str,
)
def test_a_probe_that_names_none_and_a_line_of_an_older_run_have_the_usual_headline(numbers, headline):
    assert Result(numbers).headline == headline
    old = EpochLine.from_json({"epoch": 1, "step": 9, "loss": {}, "monitor": {"robust.p": numbers}})
    assert [(one.value, one.attacked) for one in old.seen] == [(numbers.get(headline), headline != "clean")]


def test_a_line_of_an_older_run_is_shown_as_robust_and_clean():
    monitor = {"robust.p": {"worst_run": 0.7}, "robust.c": {"clean": 0.9}}
    old = EpochLine.from_json({"epoch": 1, "step": 9, "loss": {"robust": 0.5}, "monitor": monitor})
    assert old.looks == {}
    assert describe(old) == "robust: loss 0.500, robust 70.0 · clean 90.0"


def test_a_headline_that_is_no_number_of_the_result_is_refused():
    with pytest.raises(InputError, match="the headline 'robust' is none of its numbers: clean"):
        Result({"clean": 0.5}, headline="robust")


def test_the_curve_of_a_probe_is_its_headline_number(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(entry(own=OWN).to_json()) + "\n")
    series = curves(tmp_path).data["series"]
    assert series["robust, own"]["y"] == [0.7]
    assert series["robust, own"]["dashed"] is False


def test_a_curve_says_on_how_many_images_it_was_seen(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(entry(pgd=on(500, "PGD-20", 0.4)).to_json()) + "\n")
    assert "on 500 images" in curves(tmp_path).caption


def test_the_loss_of_each_role_is_a_curve_and_what_is_not_finite_no_point(tmp_path):
    lines = [EpochLine(1, 9, loss={"robust": 0.5, "natural": 2.0}), EpochLine(2, 18, loss={"robust": math.inf})]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line.to_json()) + "\n" for line in lines) + '{"epo')
    assert losses(tmp_path).data["series"] == {"robust": {"x": [1], "y": [0.5]}, "natural": {"x": [1], "y": [2.0]}}
    assert losses(tmp_path / "nowhere") is None


def test_a_number_that_is_no_percentage_has_a_picture_of_its_own(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(entry(own=OWN, entropy=NATS).to_json()) + "\n")
    drawn = [(list(one.data["series"]), one.data["percent"]) for one in pictures_of_run(tmp_path)]
    assert drawn == [(["robust, own"], True), (["robust, entropy"], False)]

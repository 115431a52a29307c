"""The number to watch: a probe names it, a line of metrics keeps which it is, and whoever watches or chooses takes that one."""

from __future__ import annotations

import json

import pytest

from actkit.cli.display import describe
from actkit.errors import InputError
from actkit.evaluation.looks import Look, look, look_under_attack, looks, seen
from actkit.probes import Result, ResultName
from actkit.reports.curves import curves

OWN = Result({"spread": 0.1, "mine": 0.7}, attacked=True, headline="mine")


def entry(**results: Result) -> dict:
    """A line of metrics after a look at the model `robust`, as it is read again."""
    line = {"epoch": 1, "step": 9, "loss": {"robust": 0.5}}
    return json.loads(json.dumps(line | seen({f"robust.{label}": result for label, result in results.items()})))


def test_a_probes_headline_is_what_is_watched_whatever_it_is_called():
    line = entry(own=OWN, accuracy=Result({"clean": 0.9}, headline="clean"))
    assert looks(line) == [
        Look(ResultName("robust", "own"), {"spread": 0.1, "mine": 0.7}, 0.7, attacked=True),
        Look(ResultName("robust", "accuracy"), {"clean": 0.9}, 0.9, attacked=False),
    ]
    assert look(line, "robust", "own").value == 0.7
    assert look_under_attack(line, "robust").value == 0.7
    assert describe(line) == "robust: loss 0.500 robust 70.0 clean 90.0"


def test_a_result_without_a_single_number_to_watch_is_not_watched():
    line = entry(sweep=Result({"eps 1/255": 0.8, "eps 2/255": 0.6}, attacked=True))
    assert look(line, "robust", "sweep") is None
    assert look_under_attack(line, "robust") is None
    assert describe(line) == "robust: loss 0.500"


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
    old = {"epoch": 1, "loss": {}, "monitor": {"robust.p": numbers}}
    assert [(one.value, one.attacked) for one in looks(old)] == [(numbers.get(headline), headline != "clean")]


def test_a_headline_that_is_no_number_of_the_result_is_refused():
    with pytest.raises(InputError, match="the headline 'robust' is none of its numbers: clean"):
        Result({"clean": 0.5}, headline="robust")


def test_the_curve_of_a_probe_is_its_headline_number(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(entry(own=OWN)) + "\n")
    series = curves(tmp_path).data["series"]
    assert series["robust, own"]["y"] == [0.7]
    assert series["robust, own"]["dashed"] is False

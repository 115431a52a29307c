"""What the lines of metrics say: which epoch was the best, whether robustness was suddenly lost, and when an epoch is saved."""

from __future__ import annotations

import dataclasses

import pytest

from actkit.errors import InputError
from actkit.evaluation.looks import EpochLine
from actkit.probes import Result, ResultName
from actkit.training.best import Score, assert_watchable, best_step, scores
from actkit.training.checkpoint import is_due
from actkit.training.overfitting import sudden_fall

ROBUST, NATURAL = ResultName("robust", "pgd"), ResultName("natural", "pgd")


def line(step: int, robust: float | None = None, loss: float = 1.0, **numbers: float) -> EpochLine:
    seen = {**({} if robust is None else {"worst_run": robust, "clean": 0.9}), **numbers}
    monitor = {ROBUST: seen, NATURAL: {"worst_run": 0.99}} if seen else {}
    return EpochLine(step, step, loss={"robust": loss, "natural": 0.1}, monitor=monitor)


def test_a_score_is_the_headline_models_number_under_attack():
    assert scores([line(1, 0.4), line(2), line(3, 0.5)], "robust", "pgd") == [Score(0.4, 1), Score(0.5, 3)]


def test_a_score_is_the_accuracy_where_the_probe_attacks_nothing():
    assert scores([line(1, clean=0.8)], "robust", "pgd") == [Score(0.8, 1)]


def test_there_is_no_score_where_no_probe_chooses():
    assert scores([line(1, 0.4)], "robust", None) == []


@pytest.mark.parametrize(
    ("values", "among", "wanted"),
    [
        ([0.1, 0.4, 0.3], None, 2),
        ([0.1, 0.4, 0.4], None, 2),
        ([0.1, 0.4, 0.3], {1, 3}, 3),
        ([0.1, 0.4, 0.3], set(), None),
        ([], None, None),
    ],
    ids=["the highest", "the earliest of equals", "of those kept", "none kept", "no look"],
)
def test_the_best_step(values, among, wanted):
    assert best_step([Score(value, step) for step, value in enumerate(values, 1)], among) == wanted


@pytest.mark.parametrize(
    ("entries", "limit", "falls"),
    [
        ([line(1, 0.6, 2.0), line(2, 0.3, 1.0)], None, True),
        ([line(1, 0.6, 1.0), line(2, 0.3, 2.0)], None, False),
        ([line(1, 0.6, 2.0), line(2, 0.5, 1.0)], None, False),
        ([line(1, 0.6, 1.0), line(2, 0.5, 2.0)], 0.05, True),
        ([line(1, 0.6, 2.0), line(2, 0.3, 1.0)], 0.4, False),
        ([line(1, 0.6, 2.0), line(2), line(3, 0.3, 1.0)], None, True),
        ([line(1, 0.6, 2.0), line(2, 0.3, 1.0), line(3)], None, False),
        ([line(1, 0.3)], 0.0, False),
        ([], 0.0, False),
    ],
    ids=[
        "the loss falls too",
        "the loss rises",
        "a small fall",
        "over the limit",
        "under the limit",
        "an epoch without a look between",
        "no look in the newest epoch",
        "one look",
        "no epoch",
    ],
)
def test_a_sudden_fall_of_robustness(entries, limit, falls):
    assert (sudden_fall(entries, "robust", limit=limit) is not None) is falls


def test_a_fall_is_told_with_both_numbers():
    said = sudden_fall([line(1, 0.65), line(2, 0.1)], "robust", limit=0.3)
    assert "fell from 65.0 to 10.0 %" in str(said)
    assert (said.epochs, said.step) == ((1, 2), 1)


def test_a_model_without_a_loss_of_its_own_is_watched_for_its_accuracy_alone():
    lines = [line(1, 0.6), line(2, 0.3)]
    lines = [dataclasses.replace(one, loss={"natural": 0.1}) for one in lines]
    assert sudden_fall(lines, "robust") is None
    assert sudden_fall(lines, "robust", limit=0.1) is not None


SWEEP = Result({"eps 1/255": 0.8}, attacked=True, headline=None)


@pytest.mark.parametrize(
    ("result", "settings", "message"),
    [
        (SWEEP, {"best": "p"}, "run.best = 'p' has nothing to choose by: this probe gives 'robust' no headline number"),
        (SWEEP, {"stop_on_drop": 0.1}, "run.stop_on_drop has nothing to watch: no probe in run.monitor gives 'robust'"),
        (Result({"clean": 0.9}), {"stop_on_drop": 0.1}, "run.stop_on_drop has nothing to watch"),
    ],
    ids=["best by a sweep", "stop by a sweep", "stop by an accuracy that is not under attack"],
)
def test_what_has_no_number_to_watch_cannot_choose_or_stop(result, settings, message):
    with pytest.raises(InputError, match=message):
        assert_watchable({"robust.p": result}, "robust", **{"best": None, "stop_on_drop": None, **settings})


def test_what_has_a_number_to_watch_may_choose_and_stop():
    attacked = Result({"worst_run": 0.5}, attacked=True, headline="worst_run")
    assert_watchable({"robust.p": attacked, "natural.p": SWEEP}, "robust", best="p", stop_on_drop=0.1)


@pytest.mark.parametrize(
    ("epoch", "last", "best", "wanted"),
    [(4, False, False, True), (5, False, False, False), (5, True, False, True), (5, False, True, True)],
    ids=["its turn", "not its turn", "the last", "the best so far"],
)
def test_an_epoch_is_saved_in_its_turn_and_where_it_is_the_last_or_the_best(epoch, last, best, wanted):
    assert is_due(epoch, every=2, last=last, best=best) is wanted

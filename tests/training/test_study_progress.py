"""How far a study is, and when it will end: a clock that stands still, and runs that are lines of metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actkit.cli.study_display import described
from actkit.training.study_progress import StudyForecast, Work, roughly

# Ten batches in five epochs, as much work as the examination after them.
WORK = Work(batch=2.0, batches=10, examination=20.0, epochs=5)


class Study:
    """Three cells, two at a time; `at` is the time."""

    def __init__(self, place: Path, jobs: int = 2) -> None:
        self.at = 0.0
        self.cells = [place / name for name in "abc"]
        self.forecast = StudyForecast(self.cells, jobs, dict.fromkeys(self.cells, WORK), clock=lambda: self.at)

    def start(self, i: int) -> None:
        self.forecast.start(self.cells[i], f"cell {i}")

    def epoch(self, i: int, epoch: int) -> None:
        self.cells[i].mkdir(exist_ok=True)
        line = json.dumps({"epoch": epoch, "step": 2 * epoch})
        (self.cells[i] / "metrics.jsonl").write_text(line + '\n{"epoch": torn')


def test_nothing_is_foretold_before_anything_is_measured(tmp_path):
    study = Study(tmp_path)
    study.start(0)
    study.at = 5.0
    (running,) = study.forecast.now().running
    assert (running.title, running.seconds, running.doing, running.fraction) == ("cell 0", 5.0, "starting", 0.0)
    assert study.forecast.now().left is None


def test_the_end_of_the_whole_counts_examinations_and_what_waits(tmp_path):
    study = Study(tmp_path)
    study.start(0)
    study.start(1)
    study.at = 4.0
    for i in (0, 1):
        study.epoch(i, 1)
    now = study.forecast.now()
    # 4 of 40 units in 4 seconds: 36 seconds are left of each, then 40 of the third.
    assert now.left == pytest.approx(76.0)
    assert now.fraction == pytest.approx(8 / 120)
    assert now.running[0].doing == "epoch 1 of 5"
    assert described(now) == "0 of 3 cells; cell 0 epoch 1 of 5 (10 %); cell 1 epoch 1 of 5 (10 %); about 1 min left"


def test_between_two_epochs_the_clock_goes_on_and_no_further_than_the_next(tmp_path):
    study = Study(tmp_path, jobs=1)
    study.start(0)
    study.at = 4.0
    study.epoch(0, 1)
    before = study.forecast.now().left
    study.at = 6.0
    assert study.forecast.now().left == pytest.approx(before - 2.0)
    study.at = 60.0
    assert study.forecast.now().left == pytest.approx(before - 4.0)


def test_after_its_last_epoch_a_cell_is_examined_and_one_that_ended_says_how_long_others_take(tmp_path):
    study = Study(tmp_path, jobs=1)
    study.start(0)
    study.at = 10.0
    study.epoch(0, 5)
    assert study.forecast.now().running[0].doing == "examining"
    study.at = 80.0
    study.forecast.end(study.cells[0], success=True)
    now = study.forecast.now()
    assert (now.ended, now.running) == (1, ())
    # 40 units in 80 seconds.
    assert now.left == pytest.approx(160.0)


def test_a_failed_cell_is_over_and_measures_nothing(tmp_path):
    study = Study(tmp_path, jobs=1)
    study.start(0)
    study.at = 1.0
    study.forecast.end(study.cells[0], success=False)
    assert (study.forecast.now().ended, study.forecast.now().left) == (1, None)


def test_what_a_cell_had_done_before_is_not_counted_as_speed(tmp_path):
    study = Study(tmp_path, jobs=1)
    study.epoch(0, 4)
    study.start(0)
    study.at = 8.0
    study.epoch(0, 5)
    # 4 units in 8 seconds; 20 are left of this one, 80 of the others.
    assert study.forecast.now().left == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "less than a minute"), (170, "about 3 min"), (7300, "about 2.0 hours"), (200_000, "about 2.3 days")],
)
def test_a_rough_time_is_said_roughly(seconds, said):
    assert roughly(seconds) == said

"""What compares the methods of a study: one picture of their rates, one of all trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actkit.probes.pictures import Picture
from actkit.reports import comparison, page
from actkit.reports.tables import find, table
from helpers.finished import finished_run


@pytest.fixture
def study(tmp_path) -> Path:
    """Two methods, two seeds each, of one of which a number is unverified; every run looked at two epochs."""
    for objective in ("act", "madry"):
        for seed in (0, 1):
            doubted = objective == "act" and seed == 1
            folder = finished_run(
                tmp_path / f"r/{objective}{seed}",
                objective=objective,
                seed=seed,
                robust=0.5 + seed / 10,
                verified=not doubted,
            )
            looks = [{"robust.clean": {"clean": 0.8 + i / 10}, "robust.pgd": {"worst_run": 0.25 + seed / 4}, "natural.clean": {"clean": 0.9}} for i in (0, 1)]  # fmt: skip
            lines = [{"epoch": i + 1, "step": i + 1, "loss": {}, "monitor": look} for i, look in enumerate(looks)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "r"


def drawn(study: Path) -> dict[str, Picture]:
    return {picture.name: picture for picture in comparison.of_study(table(*find([study])))}


def test_methods_stand_beside_each_other_with_single_seeds_mean_and_deviation(study):
    data = drawn(study)["methods"].data
    assert data["groups"] == ["act", "madry"]
    attacked = data["series"]["PGD-20"]
    assert attacked["values"] == [[0.5, 0.6], [0.5, 0.6]]
    assert attacked["y"] == pytest.approx([0.55, 0.55])
    assert attacked["error"] == pytest.approx([0.0707, 0.0707], abs=1e-4)
    assert attacked["doubted"] == [True, False]
    assert data["series"]["clean"]["doubted"] == [False, False]


def test_all_trainings_stand_in_small_pictures_with_one_axis_a_line_a_seed(study):
    data = drawn(study)["trainings"].data
    assert [panel["title"] for panel in data["panels"]] == ["act", "madry"]
    for panel in data["panels"]:
        assert set(panel["series"]) == {"clean, seed 0", "pgd, seed 0", "clean, seed 1", "pgd, seed 1"}
        assert panel["series"]["pgd, seed 1"] == {"x": [1, 2], "y": [0.5, 0.5], "dashed": False, "as": "pgd"}
    axes = [a for a in drawn(study)["trainings"].draw().axes if a.get_visible()]
    assert len(axes) == 2
    assert len({a.get_ylim() for a in axes}) == len({a.get_xlim() for a in axes}) == 1


def test_the_page_of_a_study_has_both_pictures(study):
    text = page.render(page.of_runs(*find([study])))
    assert "The methods beside each other" in text
    assert text.count("UNVERIFIED</text>") == 1
    assert "All trainings, on the same axes." in text


def test_runs_of_one_method_are_not_compared(tmp_path):
    for seed in (0, 1):
        finished_run(tmp_path / f"r/{seed}", seed=seed)
    assert comparison.of_study(table(*find([tmp_path / "r"]))) == []


def test_a_method_without_a_number_or_a_second_seed_leaves_its_place_empty(tmp_path):
    finished_run(tmp_path / "r/a")
    finished_run(tmp_path / "r/b", objective="madry", robust=None)
    pictures = drawn(tmp_path / "r")
    assert list(pictures) == ["methods"]
    assert pictures["methods"].data["series"]["PGD-20"]["y"] == [0.5, None]
    assert pictures["methods"].data["series"]["PGD-20"]["error"] == [None, None]
    assert "<svg" in pictures["methods"].svg()

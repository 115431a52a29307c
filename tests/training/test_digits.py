"""Slow: what training achieves on real images (digits). Run with  make slow  (about ten minutes on two cores)."""

from __future__ import annotations

import statistics

import pytest
import torch

from actkit.config.recipe import load_recipe
from actkit.training.execute import execute
from helpers.runs import Mute


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "robust_above", "robust_below", "clean_above"),
    [("natural", 0.0, 0.05, 0.93), ("madry", 0.70, 1.0, 0.93), ("trades", 0.70, 1.0, 0.93), ("act", 0.70, 1.0, 0.93)],
)
def test_defences_reach_their_robustness_and_standard_training_has_none(
    tmp_path, recipe, robust_above, robust_below, clean_above
):
    """At eps 0.15: PGD-20 with step eps/10 and 5 starts, mean of 2 seeds. the per-example worst is the strictest of the numbers."""
    clean, robust = [], []
    for seed in (0, 1):
        made = load_recipe(f"gin/{recipe}_digits.gin", [f"run.seed={seed}", "run.monitor=[]"])
        attack = made.spec.kwargs["evaluation"][1].kwargs
        assert (attack["starts"], attack["attack"].kwargs["eps"], attack["attack"].kwargs["step_size"]) == (
            5,
            0.15,
            0.015,
        )
        outcome = execute(
            made, out=str(tmp_path / str(seed)), device=torch.device("cpu"), display=Mute(), command="make slow"
        )
        headline = next(iter(outcome.summary.to_json()["results"])).partition(".")[0]
        clean.append(outcome.summary.to_json()["results"][f"{headline}.accuracy"]["numbers"]["clean"])
        robust.append(outcome.summary.to_json()["results"][f"{headline}.pgd20"]["numbers"]["per_example_worst"])
    assert statistics.mean(clean) > clean_above
    assert robust_above < statistics.mean(robust) + 1e-9
    assert statistics.mean(robust) < robust_below

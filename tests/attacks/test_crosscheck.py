"""Agreement with independent implementations, where they are installed: `make crosscheck`."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import crosscheck


@pytest.mark.parametrize("name", crosscheck.CHECKS)
def test_at_least_254_of_256_examples_agree(name):
    library, check = crosscheck.CHECKS[name]
    there = library == "autoattack" and "AUTOATTACK" in os.environ
    if not there and importlib.util.find_spec({"autoattack": "pyautoattack"}.get(library, library)) is None:
        pytest.skip(f"{library} is not installed: make crosscheck")
    ours, theirs = check()
    assert (ours == theirs).sum() >= 254
    assert ours.sum() > 50, "an attack that fools nobody agrees with anything"


def test_the_model_is_one_on_which_attacks_can_differ():
    model, x, y = crosscheck.subject()
    clean = (model(x).argmax(1) == y).double().mean()
    broken = (
        crosscheck.fooled(
            model,
            crosscheck.pgd(
                crosscheck.unwatched(model, y), x, noise=crosscheck.noise(), eps=0.15, step_size=0.015, steps=20
            ),
            y,
        )
        .double()
        .mean()
    )
    assert clean > 0.9 and 0.2 < broken < 0.6


@pytest.mark.skipif(importlib.util.find_spec("pyautoattack") is None, reason="make crosscheck")
def test_the_official_tier_runs_the_package_and_counts_itself():
    from actkit.datasets import Data, Split
    from actkit.networks.roles import Role
    from actkit.probes import autoattack

    model, x, y = crosscheck.subject()
    split = Split(x[:24], y[:24])
    data = Data("digits", (1, 8, 8), tuple("0123456789"), {"test": 24}, lambda name: split)
    quick, official = (
        autoattack(Role("robust", model), data, eps=0.15, tier=tier, queries=200) for tier in ("quick", "official")
    )
    assert official.columns[0].title == "AutoAttack"
    assert abs(official.numbers["worst_case"] - quick.numbers["worst_case"]) <= 2 / 24

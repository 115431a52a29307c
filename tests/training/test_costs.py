"""What a study costs: counted on stand-ins as on the networks themselves, a network timed once for all that share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from actkit.config.recipe import load_recipe
from actkit.config.spec import Spec
from actkit.datasets import digits
from actkit.evaluation.cost import examination_of
from actkit.training import costs
from actkit.training.costs import Costs
from actkit.training.dry_run import count
from helpers.runs import CPU

DEFENCES = ["act", "madry", "trades", "free", "fast", "natural"]


@pytest.fixture
def timed(monkeypatch):
    """The sizes of what was timed; every batch takes five seconds an image, so that a unit is a second."""
    seen = []

    def five_units(role, data, size):
        seen.append(size)
        return 5.0 * size

    monkeypatch.setattr(costs, "five_units", five_units)
    return seen


@pytest.mark.parametrize("defence", DEFENCES)
def test_a_step_has_the_units_that_the_real_networks_count(defence, timed):
    recipe = load_recipe(f"gin/{defence}_digits.gin")
    counted = count(recipe, folder=Path("x"), device=CPU)
    cost = Costs(CPU).of_run(recipe)
    assert cost.step == pytest.approx(counted.units * counted.run.batch_size)
    assert cost.evaluation == pytest.approx(counted.evaluation.units)
    assert cost.batches == counted.batches


def test_trainings_with_one_network_time_it_once(timed):
    made = Costs(CPU)
    for defence in ("act", "madry"):
        made.of_run(load_recipe(f"gin/{defence}_digits.gin"))
    assert len(timed) == 3


def test_an_attack_of_many_steps_costs_what_each_of_them_does():
    def units(**attack):
        pgd = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.01, **attack})
        probe = Spec("probe", "robust_accuracy", {"attack": pgd, "starts": 2, "limit": 1})
        return examination_of([probe.build()], digits(), ["robust"]).units

    assert units(steps=1000) - units(steps=47) == 953 * (units(steps=47) - units(steps=46))


def test_a_matrix_of_models_is_counted_for_each(timed):
    recipes = [load_recipe(f"gin/{defence}_digits.gin") for defence in ("madry", "trades")]
    attack = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.01, "steps": 5})
    probes = [Spec("probe", "transfer", {"attack": attack, "limit": 10})]
    alone = examination_of([probes[0].build()], digits(), ["a", "b"])
    assert set(alone.by_role) == {"a", "b"}
    assert Costs(CPU).of_examination(recipes, probes, headline=True) == pytest.approx(alone.units)

"""Probes on models whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.datasets import Data, Split
from actkit.probes import measure
from actkit.roles import Role
from actkit.run import examine
from actkit.spec import Spec

N = 101


def thresholds() -> tuple[Role, Data]:
    """One pixel, two classes: class 1 above 0.5. Example i lies at distance i / 1000 from the border, so robust accuracy is known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-10.0], [10.0]]))
        model[1].bias.copy_(torch.tensor([5.0, -5.0]))
    distance = (torch.arange(N) + 0.5) / 1000
    y = torch.arange(N) % 2
    x = 0.5 + distance * (2 * y - 1)
    x[-1] = 0.6 - 0.2  # the last one (class 0 by its number) is right; make the one before it wrong
    x[-2] = 0.4
    split = Split(x.view(-1, 1, 1, 1), y)
    return Role("robust", model), Data("line", (1, 1, 1), ("low", "high"), {"test": N}, lambda name: split)


def pgd(**kwargs) -> Spec:
    attack = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.01, "steps": 10})
    return Spec("probe", "pgd", {"attack": attack, **kwargs})


def test_accuracy_counts_every_example():
    role, data = thresholds()
    result = Spec("probe", "accuracy").build()(role, data)
    assert result.numbers["clean"] == pytest.approx((N - 1) / N)
    assert result.examples["correct"].tolist() == [True] * (N - 2) + [False, True]


def test_accuracy_under_attack_is_that_of_the_examples_farther_than_eps():
    role, data = thresholds()
    result = pgd().build()(role, data)
    assert result.numbers["worst_case"] == pytest.approx(50 / N)  # 51 of 101 lie nearer than 0.05 or were wrong already
    assert result.numbers["worst_run"] == result.numbers["mean"] == result.numbers["worst_case"]
    assert result.examples["correct"].shape == (5, N)


def test_runs_that_differ_give_mean_deviation_worst_run_and_worst_case():
    role, data = thresholds()
    weak = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.0, "steps": 1})  # a random start and no step
    result = pgd(attack=weak, starts=4).build()(role, data)
    runs = result.examples["correct"].float().mean(1)
    assert result.numbers["mean"] == pytest.approx(float(runs.mean()))
    assert result.numbers["std"] == pytest.approx(float(runs.std()))
    assert result.numbers["worst_run"] == pytest.approx(float(runs.min()))
    assert result.numbers["worst_case"] < result.numbers["worst_run"] < result.numbers["mean"]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_answer_does_not_depend_on_the_batch_size(batch_size):
    role, data = thresholds()
    weak = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.001, "steps": 1})
    reference = pgd(attack=weak).build()(role, data)
    other = pgd(attack=weak, batch_size=batch_size).build()(role, data)
    assert other.examples["correct"].equal(reference.examples["correct"])


def test_eps_0_gives_clean_accuracy():
    role, data = thresholds()
    attack = Spec("attack", "pgd", {"eps": 0.0, "step_size": 0.01, "steps": 3})
    assert pgd(attack=attack).build()(role, data).numbers["worst_case"] == pytest.approx((N - 1) / N)


def test_an_attack_that_leaves_the_pixels_gives_no_result():
    from actkit.errors import ActkitError
    from actkit.registry import register

    @register("attack", "test_cheat")
    def cheat(goal, x, *, noise, eps: float):
        return x + 2

    role, data = thresholds()
    with pytest.raises(ActkitError, match=r"left \[0,1\]"):
        pgd(attack=Spec("attack", "test_cheat", {"eps": 0.1})).build()(role, data)


def test_limit_takes_so_many_examples():
    role, data = thresholds()
    assert len(Spec("probe", "accuracy", {"limit": 7}).build()(role, data).examples["correct"]) == 7


def test_a_probe_of_two_models_runs_over_ordered_pairs():
    from actkit.probes import Result
    from actkit.registry import register

    @register("probe", "test_pair")
    def pair(source, target, data):
        return Result({"same": float(source is target)})

    role, data = thresholds()
    results = measure([Spec("probe", "test_pair").build()], {"a": role, "b": role}, data)
    assert list(results) == ["a>b.test_pair", "b>a.test_pair"]


def test_examination_is_in_fp32_whatever_the_training_is():
    role, data = thresholds()
    half = Role("robust", role.model, precision="bf16")
    seen = []
    role.model.register_forward_hook(lambda m, i, out: seen.append((out.dtype, torch.is_autocast_enabled("cpu"))))
    examine([Spec("probe", "accuracy").build()], {"robust": half}, data)
    assert set(seen) == {(torch.float32, False)}

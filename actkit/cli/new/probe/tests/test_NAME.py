"""The probe does what it says."""

from __future__ import annotations

import torch
from torch import nn

import actkit_NAME  # noqa: F401  registers it
from actkit import Role, Spec


def test_a_model_that_knows_nothing_is_sure_of_a_tenth():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    result = Spec("probe", "NAME").build()(Role("robust", model), Spec("dataset", "digits").build()())
    assert abs(result.numbers["mean"] - 0.1) < 1e-6
    assert result.examples["confidence"].shape == (359,)
    assert torch.allclose(result.examples["confidence"], torch.tensor(0.1))


def test_a_limit_takes_so_many_images_and_always_the_same():
    model, data = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), Spec("dataset", "digits").build()()
    first, again = (Spec("probe", "NAME", {"limit": 20}).build()(model, data) for _ in range(2))
    assert first.examples["confidence"].shape == (20,)
    assert first.examples["confidence"].equal(again.examples["confidence"])

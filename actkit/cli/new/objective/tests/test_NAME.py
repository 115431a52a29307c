"""The objective does what it says."""

from __future__ import annotations

import torch
from torch import nn

import actkit_NAME  # noqa: F401  registers it
from actkit import Noise, Role, Spec, update


def test_an_update_moves_the_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    before = model[1].weight.detach().clone()
    noise = Noise(torch.arange(8), 0)
    attack = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})
    objective = Spec("objective", "NAME", {"attack": attack}).build()
    (losses,) = update(objective, noise.uniform(1, 8, 8), noise.integers(10), {"robust": role}, noise=noise)
    assert losses["robust"].shape == (8,)
    assert not model[1].weight.equal(before)

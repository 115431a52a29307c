"""The attack does what it says."""

from __future__ import annotations

import torch

import actkit_NAME  # noqa: F401  registers it
from actkit import Noise, Spec


def test_it_stays_in_the_ball_and_raises_the_value():
    noise = Noise(torch.arange(4), 0)
    x = noise.uniform(1, 8, 8)
    attack = Spec("attack", "NAME", {"eps": 0.1}).build()
    x_adv = attack(lambda at, rows: (at.flatten(1).sum(1), None), x, noise=noise)
    assert (x_adv - x).abs().max() <= 0.1 + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1

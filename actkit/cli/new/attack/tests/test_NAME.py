"""The attack does what it says."""

from __future__ import annotations

import pytest
import torch

import actkit_NAME  # noqa: F401  registers it
from actkit import InputError, Noise, Spec


def attacked(goal, x, **settings):
    settings = {"eps": 0.1, "step_size": 0.02, **settings}
    return Spec("attack", "NAME", settings).build()(goal, x, noise=Noise(torch.arange(len(x)), 0))


def images():
    return Noise(torch.arange(4), 1).uniform(1, 8, 8)


def test_on_a_linear_goal_it_reaches_the_corner_of_the_ball():
    x, weights = images(), Noise(torch.arange(1), 2).normal(1, 8, 8)
    x_adv = attacked(lambda at, rows: ((weights * at).flatten(1).sum(1), None), x)
    assert torch.allclose(x_adv, (x + 0.1 * weights.sign()).clamp(0, 1))


def test_momentum_carries_it_past_where_the_gradient_turns():
    def goal(at, rows):
        return -(at - 0.53).abs().flatten(1).sum(1), None

    x = torch.full((4, 1, 8, 8), 0.5)
    # 0.52, 0.54, back to 0.52, 0.54; with momentum 0.52, 0.54, 0.56, where the gradients' sum is 0.
    assert torch.allclose(attacked(goal, x, steps=4, decay=0.0), torch.tensor(0.54))
    assert torch.allclose(attacked(goal, x, steps=4, decay=1.0), torch.tensor(0.56))


def test_an_example_where_the_attacker_has_won_stays_there():
    x = images()
    won = torch.tensor([True, False, True, False])
    x_adv = attacked(lambda at, rows: (at.flatten(1).sum(1), won[rows]), x)
    assert x_adv[won].equal(x[won])
    assert not x_adv[~won].equal(x[~won])


def test_a_setting_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="at least 1 step"):
        attacked(lambda at, rows: (at.flatten(1).sum(1), None), images(), steps=0)

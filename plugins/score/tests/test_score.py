"""SCORE's loss by hand, on logits that are written down."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import actkit_score  # noqa: F401  registers it
from actkit import InputError, Noise, Role, Spec, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.2, "steps": 2, "start": "gaussian", "start_std": 0.01})


class Given(nn.Module):
    """Logits 0 and w x of a single pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), self.w * x.flatten(1)[:, 0]], 1)


def by_hand(clip):
    """Of both ends that the attack may reach: 0.4 and 0.6 around 0.5, of label 1. A prediction (1 - p, p) lies 2 (p - q)^2 from (1 - q, q)."""
    p = 1 / (1 + math.exp(-1))
    q = [1 / (1 + math.exp(-z)) for z in (0.8, 1.2)]
    return [max(0.0, 2 * (1 - p) ** 2 + 3 * 2 * (p - one) ** 2 - 2 * clip**2) for one in q]


def loss_of(y, clip):
    role = Role("robust", Given(), trained=True)
    objective = Spec("objective", "score", {"attack": PGD, "beta": 3.0, "clip": clip}).build()
    x = torch.tensor([0.5]).view(1, 1, 1, 1)
    (loss,) = next(objective(x, y, role, noise=Noise(torch.arange(1), 0))).values()
    return float(loss.detach())


@pytest.mark.parametrize("y", [torch.tensor([1]), torch.tensor([[0.0, 1.0]])], ids=["a label", "shares of classes"])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_the_loss_is_of_squared_distances_of_probabilities(clip, y):
    assert min(abs(loss_of(y, clip) - end) for end in by_hand(clip)) < 1e-6


def test_below_its_clip_nothing_is_learnt():
    assert loss_of(torch.tensor([1]), 0.3) == 0.0 == by_hand(0.3)[0]


def test_one_update_a_batch_with_two_training_forwards():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    noise = Noise(torch.arange(6), 1)
    objective = Spec("objective", "score", {"attack": PGD}).build()
    losses = list(update(objective, noise.uniform(1, 8, 8), noise.integers(3), {"robust": role}, noise=noise))
    assert len(losses) == 1 and losses[0]["robust"].shape == (6,)
    assert int(model[1].num_batches_tracked) == 2


@pytest.mark.parametrize("setting", [{"beta": -1.0}, {"clip": 1.0}])
def test_what_cannot_be_is_told(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        Spec("objective", "score", {"attack": PGD, **setting}).build()

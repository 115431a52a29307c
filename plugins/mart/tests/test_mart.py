"""MART's loss by hand, on logits that are written down."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import actkit_mart
from actkit import InputError, Noise, Role, Spec, load, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})


class Given(nn.Module):
    """Logits 0, w x and -1 of a single pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), self.w * x.flatten(1)[:, 0], -torch.ones(len(x))], 1)


def test_the_loss_is_eq_11():
    role = Role("robust", Given(), trained=True)
    x, y = torch.tensor([0.5]).view(1, 1, 1, 1), torch.tensor([1])
    # From wherever it starts, it ends at the edge of the box.
    attack = PGD.replace(step_size=0.2)
    objective = Spec("objective", "mart", {"attack": attack, "beta": 3.0}).build()
    (loss,) = next(objective(x, y, role, noise=Noise(torch.arange(1), 0))).values()
    # The attack lowers the pixel to 0.4, where class 1 is least likely.
    at, clean = (
        [math.exp(z) / sum(map(math.exp, (0, 2 * pixel, -1))) for z in (0, 2 * pixel, -1)] for pixel in (0.4, 0.5)
    )
    boosted = -math.log(at[1]) - math.log(1.0001 - at[0])
    kl = sum(p * math.log(p / q) for p, q in zip(clean, at, strict=True))
    assert float(loss.detach()) == pytest.approx(boosted + 3 * kl * (1 - clean[1]), abs=1e-5)


def test_one_update_a_batch_with_two_training_forwards():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    noise = Noise(torch.arange(6), 1)
    objective = Spec("objective", "mart", {"attack": PGD}).build()
    losses = list(update(objective, noise.uniform(1, 8, 8), noise.integers(3), {"robust": role}, noise=noise))
    assert len(losses) == 1 and losses[0]["robust"].shape == (6,)
    assert int(model[1].num_batches_tracked) == 2


def test_a_negative_beta_is_told():
    with pytest.raises(InputError, match="beta"):
        Spec("objective", "mart", {"attack": PGD, "beta": -1.0}).build()


@pytest.mark.parametrize("recipe", ["mart_cifar10.gin", "mart_digits.gin"])
def test_its_recipes_start_the_attack_where_the_released_code_does(recipe):
    """x + 0.001 times a standard normal, not clipped before the first step."""
    spec = load(str(Path(actkit_mart.__file__).parent / "gin" / recipe)).spec.kwargs["objective"].kwargs["attack"]
    assert [spec.get(name) for name in ("start", "start_std", "clip_start")] == ["gaussian", 0.001, False]

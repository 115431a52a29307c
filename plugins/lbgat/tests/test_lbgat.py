"""LBGAT's loss by hand, and where its gradient flows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import actkit_lbgat
from actkit import Noise, Role, Spec, load, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})


def draws():
    return Noise(torch.arange(6), 2)


def made(*, lr=0.1):
    roles = {}
    for seed, name in enumerate(("robust", "natural")):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        roles[name] = Role(name, model, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    noise = Noise(torch.arange(6), 1)
    return roles, noise.uniform(1, 8, 8), noise.integers(3)


def test_the_gradients_are_those_of_the_published_loss_also_in_the_natural_model():
    roles, x, y = made()
    reference, *_ = made()
    robust, natural = (r.model for r in reference.values())
    objective = Spec("objective", "lbgat", {"attack": PGD, "beta": 6.0}).build()
    with reference["robust"].frozen("eval") as f:
        clean = f(x).softmax(1)
        x_adv = PGD.build()(
            lambda at, rows: ((clean[rows] * (clean[rows].log() - f(at).log_softmax(1))).sum(1), None), x, noise=draws()
        )
    out_adv, out_natural, out = robust(x_adv), robust(x), natural(x)
    loss = F.mse_loss(out_adv, out) + F.cross_entropy(out, y)
    loss = loss + 6 / len(x) * F.kl_div(out_adv.log_softmax(1), out_natural.softmax(1), reduction="sum")
    wanted = torch.autograd.grad(loss, [*robust.parameters(), *natural.parameters()])
    before = [p.detach().clone() for r in roles.values() for p in r.model.parameters()]
    list(update(objective, x, y, roles, noise=draws()))
    after = [p for r in roles.values() for p in r.model.parameters()]
    for start, now, gradient in zip(before, after, wanted, strict=True):
        assert torch.allclose(start - now, 0.1 * gradient, atol=1e-6)
    assert [int(r.model[1].num_batches_tracked) for r in roles.values()] == [2, 1]


@pytest.mark.parametrize("recipe", ["lbgat_cifar10.gin", "lbgat_digits.gin"])
def test_its_recipes_start_the_attack_where_the_released_code_does(recipe):
    """x + 0.001 times a standard normal, not clipped before the first step."""
    spec = load(str(Path(actkit_lbgat.__file__).parent / "gin" / recipe)).spec.kwargs["objective"].kwargs["attack"]
    assert [spec.get(name) for name in ("start", "start_std", "clip_start")] == ["gaussian", 0.001, False]

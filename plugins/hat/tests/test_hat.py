"""HAT's loss by hand; its helper is consulted and never changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import actkit_hat
from actkit import Noise, Role, Spec, load, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})


def draws():
    return Noise(torch.arange(6), 2)


def made():
    roles = {}
    for seed, name in enumerate(("robust", "helper")):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        sgd = torch.optim.SGD(model.parameters(), lr=0.1) if name == "robust" else None
        roles[name] = Role(name, model, optimizer=sgd)
    noise = Noise(torch.arange(6), 1)
    return roles, noise.uniform(1, 8, 8), noise.integers(3)


def test_the_update_is_that_of_the_published_loss_and_the_helper_stays_as_it_is():
    roles, x, y = made()
    reference, *_ = made()
    robust, helper = (r.model for r in reference.values())
    kept = {k: v.clone() for k, v in roles["helper"].model.state_dict().items()}
    with reference["robust"].frozen("eval") as f:
        clean = f(x).softmax(1)
        x_adv = PGD.build()(
            lambda at, rows: ((clean[rows] * (clean[rows].log() - f(at).log_softmax(1))).sum(1), None), x, noise=draws()
        )
    labels = helper.eval()(x_adv).argmax(1)
    out, adversarial, beyond = robust(x), robust(x_adv), robust(x + 2 * (x_adv - x))
    loss = F.cross_entropy(out, y) + 0.5 * F.cross_entropy(beyond, labels)
    loss = loss + 2.5 / len(x) * F.kl_div(adversarial.log_softmax(1), out.softmax(1), reduction="sum")
    wanted = torch.autograd.grad(loss, list(robust.parameters()))
    before = [p.detach().clone() for p in roles["robust"].model.parameters()]
    list(update(Spec("objective", "hat", {"attack": PGD}).build(), x, y, roles, noise=draws()))
    for start, now, gradient in zip(before, roles["robust"].model.parameters(), wanted, strict=True):
        assert torch.allclose(start - now, 0.1 * gradient, atol=1e-6)
    assert all(kept[k].equal(v) for k, v in roles["helper"].model.state_dict().items())
    assert int(roles["robust"].model[1].num_batches_tracked) == 3


@pytest.mark.parametrize("recipe", ["hat_cifar10.gin", "hat_digits.gin"])
def test_its_recipes_start_the_attack_where_the_released_code_does(recipe):
    """x + 0.001 times a standard normal, not clipped before the first step."""
    spec = load(str(Path(actkit_hat.__file__).parent / "gin" / recipe)).spec.kwargs["objective"].kwargs["attack"]
    assert [spec.get(name) for name in ("start", "start_std", "clip_start")] == ["gaussian", 0.001, False]

"""Self-adaptive training: TRADES before it begins, and its targets and weights by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import actkit_sat  # noqa: F401  registers it
from actkit import InputError, Noise, Role, Spec, kl, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2, "start": "gaussian"})
IDS = torch.tensor([9, 2, 5, 0, 1, 7])


def draws():
    return Noise(torch.arange(6), 2)


def made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    noise = Noise(torch.arange(6), 1)
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    return role, noise.uniform(1, 8, 8), noise.integers(3)


def objective(**settings):
    return Spec("objective", "sat", {"attack": PGD, "momentum": 0.75, **settings}).build()


def test_before_its_warmup_it_is_trades():
    mine, x, y = made()
    other, *_ = made()
    late = objective(warmup=0.5, beta=4.0)
    list(update(late, x, y, {"robust": mine}, noise=draws(), progress=0.4, ids=IDS))
    trades = Spec("objective", "trades", {"attack": PGD, "beta": 4.0}).build()
    list(update(trades, x, y, {"robust": other}, noise=draws()))
    assert all(a.equal(b) for a, b in zip(mine.model.parameters(), other.model.parameters()))
    assert not len(late.targets)


def test_targets_leave_the_labels_by_the_momentum_and_weigh_the_loss_by_their_largest_entry():
    role, x, y = made()
    twin, *_ = made()
    trained = objective(warmup=0.0, beta=0.0)
    wanted = F.one_hot(y, 3).float()
    for _ in range(2):
        logits = twin.model(x)
        wanted = 0.75 * wanted + 0.25 * logits.detach().softmax(1)
        weight = wanted.amax(1)
        by_hand = 6 * weight / weight.sum() * -(wanted * logits.log_softmax(1)).sum(1)
        (found,) = update(trained, x, y, {"robust": role}, noise=draws(), progress=0.5, ids=IDS)
        torch.testing.assert_close(found["robust"], by_hand.detach())
        torch.testing.assert_close(trained.targets[IDS], wanted)
        twin.model.load_state_dict(role.model.state_dict())
    assert trained.targets.shape == (10, 3)
    assert trained.targets[[3, 4, 6, 8]].eq(-1).all(), "images that it has not met"


def test_the_divergence_is_added_beta_times():
    role, x, y = made()
    losses = []
    for beta in (0.0, 4.0):
        role.model.load_state_dict(made()[0].model.state_dict())
        (loss,) = next(objective(warmup=0.0, beta=beta)(x, y, role, noise=draws(), progress=0.5, ids=IDS)).values()
        losses.append(loss.detach())
    reference, *_ = made()
    with reference.frozen("eval") as f:
        clean = f(x).detach()
        x_adv = PGD.build()(lambda at, rows: (kl(clean[rows], f(at)), None), x, noise=draws())
    wanted = 4 * kl(reference.model(x), reference.model(x_adv)).detach()
    torch.testing.assert_close(losses[1] - losses[0], wanted, atol=1e-5, rtol=1e-4)


def test_a_state_brings_the_memory_back():
    role, x, y = made()
    first = objective(warmup=0.0)
    list(update(first, x, y, {"robust": role}, noise=draws(), progress=0.5, ids=IDS))
    second = objective(warmup=0.0)
    second.load_state_dict(first.state_dict())
    assert second.targets.equal(first.targets)


@pytest.mark.parametrize("setting", [{"beta": -1.0}, {"momentum": 1.0}, {"warmup": 2.0}])
def test_what_cannot_be_is_told(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        objective(**setting)

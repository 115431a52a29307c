"""LAS-AT: the attack of each image's own, the probabilities of choices, the reward by hand, and a strategy that learns what pays."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import actkit_las  # noqa: F401  registers it
from actkit import InputError, Noise, Role, Spec, cross_entropy, register, update
from actkit_las.strategy import RADII, SIZES, STEP_SIZES, STEPS, chosen, pgd_by_image

EPS, LR = 0.1, 0.1
PGD = Spec("attack", "pgd", {"eps": EPS, "step_size": 0.05, "steps": 2, "start": "none"})


@register("backbone", "las_tiny")
def tiny(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_chans, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes)
    )


def made():
    torch.manual_seed(0)
    networks = {
        "robust": Spec("backbone", "las_tiny").build()(3, in_chans=1),
        "strategy": Spec("backbone", "strategy", {"net": Spec("backbone", "las_tiny")}).build()(3, in_chans=1),
    }
    roles = {
        name: Role(name, net, optimizer=torch.optim.SGD(net.parameters(), lr=LR)) for name, net in networks.items()
    }
    noise = Noise(torch.arange(6), 1)
    return roles, noise.uniform(1, 8, 8), noise.integers(3)


def test_the_strategy_network_says_that_it_is_no_classifier():
    roles, *_ = made()
    assert not roles["strategy"].classifies
    assert roles["strategy"].model.gives == (sum(SIZES),) == (30,)


def test_each_image_is_attacked_by_its_own_radius_step_and_number_of_steps():
    x = torch.full((3, 1, 2, 2), 0.5)
    x_adv = pgd_by_image(
        lambda at, rows: (at.flatten(1).sum(1), None),  # up, everywhere
        x,
        noise=Noise(torch.arange(3), 0),
        start=0.0,
        eps=torch.tensor([0.1, 0.3, 0.2]),
        step_size=torch.tensor([0.02, 0.05, 0.15]),
        steps=torch.tensor([3, 4, 9]),
    )
    torch.testing.assert_close(x_adv[:, 0, 0, 0], torch.tensor([0.56, 0.7, 0.7]))


def test_choices_come_as_often_as_their_probabilities_say_and_tell_them():
    row = torch.zeros(1, 30)
    row[0, 2], row[0, 13], row[0, 29] = 2.0, 1.0, 3.0
    picks, likelihood = chosen(row.expand(20000, -1), Noise(torch.arange(20000), 0))
    wanted = [part.softmax(1)[0] for part in row.split(SIZES, 1)]
    for pick, probabilities in zip(picks, wanted):
        frequencies = torch.bincount(pick, minlength=len(probabilities)) / 20000
        assert (frequencies - probabilities).abs().max() < 0.015
    told = sum(p[pick].log() for pick, p in zip(picks, wanted))
    torch.testing.assert_close(likelihood, told)


def test_the_reward_is_that_of_the_released_code_by_hand():
    roles, x, y = made()
    reference, *_ = made()
    robust, net = reference["robust"], reference["strategy"].model
    objective = Spec("objective", "las", {"attack": PGD, "eps": EPS, "every": 2}).build()
    noise = Noise(torch.arange(6), 2)
    found = next(objective(x, y, roles["robust"], roles["strategy"], noise=noise))

    noise = Noise(torch.arange(6), 2)
    picks, likelihood = chosen(net(x), noise)
    radii, sizes, steps = RADII[picks[0]], STEP_SIZES[picks[1]], STEPS[picks[2]]
    with robust.frozen("eval") as f:
        goal = lambda at, rows: (cross_entropy(f(at), y[rows]), None)
        x_adv = pgd_by_image(goal, x, noise=noise, start=EPS, eps=EPS * radii, step_size=EPS * sizes, steps=steps)
        first = cross_entropy(f(x_adv), y).mean()
    loss = F.cross_entropy(robust.model(x_adv), y)
    stepped = copy.deepcopy(robust.model)
    gradients = torch.autograd.grad(loss, list(robust.model.parameters()))
    with torch.no_grad():
        for p, gradient in zip(stepped.parameters(), gradients):
            p -= LR * gradient
    stepped.eval()
    x_fixed = PGD.build()(lambda at, rows: (cross_entropy(stepped(at), y[rows]), None), x, noise=noise)
    accuracy = [(stepped(images).argmax(1) == y).float().mean() for images in (x_fixed, x)]
    reward = first + 4 * accuracy[0] + 2 * accuracy[1]
    torch.testing.assert_close(found[roles["robust"]].mean(), loss)
    torch.testing.assert_close(found[roles["strategy"]], -likelihood * reward)


def test_the_strategy_learns_on_every_so_manieth_batch_and_its_count_comes_back():
    roles, x, y = made()
    first = Spec("objective", "las", {"attack": PGD, "eps": EPS, "every": 2}).build()
    second = Spec("objective", "las", {"attack": PGD, "eps": EPS, "every": 2}).build()
    trained = [set(*update(first, x, y, roles, noise=Noise(torch.arange(6), i))) for i in range(3)]
    second.load_state_dict(first.state_dict())
    trained += [set(*update(second, x, y, roles, noise=Noise(torch.arange(6), 9)))]
    assert trained == [{"robust", "strategy"}, {"robust"}, {"robust", "strategy"}, {"robust"}]


def test_reinforce_moves_towards_choices_that_pay():
    """By the estimate that the objective yields, with a reward of each image: 1 for the widest radius, 0 for others."""
    logits = torch.zeros(1, 30, requires_grad=True)
    descent = torch.optim.SGD([logits], lr=2.0)
    for i in range(60):
        picks, likelihood = chosen(logits.expand(256, -1), Noise(torch.arange(256), i))
        descent.zero_grad()
        (-likelihood * (picks[0] == 12)).mean().backward()
        descent.step()
    probabilities = [part.softmax(1)[0] for part in logits.detach().split(SIZES, 1)]
    assert probabilities[0][12] > 0.9
    assert probabilities[1].max() < 0.9


@pytest.mark.parametrize("setting", [{"eps": 0.0}, {"every": 0}, {"label_smoothing": 1.0}])
def test_what_cannot_be_is_told(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        Spec("objective", "las", {"attack": PGD, "eps": EPS, **setting}).build()

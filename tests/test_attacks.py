"""PGD against the closed form of a linear model, and that it leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from actkit.attacks import away_from, pgd, untargeted
from actkit.losses import cross_entropy
from actkit.noise import Noise
from actkit.roles import Role


def linear(d: int = 12) -> tuple[nn.Module, torch.Tensor]:
    """Two classes, margin (w_1 - w_0) . x: the worst perturbation is known."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(d, 2))
    return model, (model[1].weight[1] - model[1].weight[0]).detach()


def inputs(n: int = 200, d: int = 12) -> tuple[torch.Tensor, torch.Tensor, Noise]:
    noise = Noise(torch.arange(n), 3)
    return (
        noise.uniform(d, 1, 1, low=0.3, high=0.7),
        noise.integers(2),
        noise,
    )  # far enough from 0 and 1 that only eps binds


@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2)])
def test_pgd_equals_the_closed_form_of_a_linear_model(norm, order, start):
    model, w = linear()
    x, y, noise = inputs()
    eps = 0.1
    goal = untargeted(model, y)
    x_adv = pgd(goal, x, noise=noise, eps=eps, step_size=0.05, steps=40, norm=norm, start=start)
    margin = (2 * y - 1) * (x.flatten(1) @ w + model[1].bias.diff().detach())
    worst = margin - eps * torch.linalg.vector_norm(w, order)  # the dual norm
    reached = (2 * y - 1) * (x_adv.flatten(1) @ w + model[1].bias.diff().detach())
    assert torch.allclose(reached, worst, atol=1e-5)
    assert goal(x_adv, slice(None))[1].equal(worst < 0)


def test_the_worst_case_moves_each_pixel_by_eps_against_the_weight():
    model, w = linear()
    x, y, noise = inputs()
    x_adv = pgd(untargeted(model, y), x, noise=noise, eps=0.1, step_size=0.05, steps=10)
    expected = x.flatten(1) - 0.1 * (2 * y - 1)[:, None] * w.sign()
    assert torch.allclose(x_adv.flatten(1), expected, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("clip_start", [True, False])
def test_the_result_stays_in_the_ball_and_in_the_pixels(norm, clip_start):
    model, _ = linear()
    noise = Noise(torch.arange(100), 1)
    x, y = noise.uniform(12, 1, 1).round(decimals=0), noise.integers(2)  # at the border of [0,1]
    x_adv = pgd(untargeted(model, y), x, noise=noise, eps=0.3, step_size=0.1, steps=3, norm=norm, clip_start=clip_start)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    length = (x_adv - x).flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)
    assert length.max() <= 0.3 + 1e-6


def test_eps_0_changes_nothing():
    model, _ = linear()
    x, y, noise = inputs()
    assert pgd(untargeted(model, y), x, noise=noise, eps=0.0, step_size=0.05, steps=3).equal(x)


@pytest.mark.parametrize("clip_start", [True, False])
def test_the_uniform_start_is_in_the_pixels_only_if_clipped(clip_start):
    seen = []

    def goal(x, rows):
        seen.append(x.detach())
        return x.flatten(1).sum(1), None

    x = torch.zeros(50, 3, 2, 2)
    pgd(goal, x, noise=Noise(torch.arange(50), 0), eps=0.1, step_size=0.01, steps=1, clip_start=clip_start)
    assert bool(seen[0].min() < 0) is not clip_start
    assert seen[0].abs().max() <= 0.1


def test_starts_differ_by_noise_and_repeat_with_it():
    model, _ = linear()
    x, y, _ = inputs()
    run = lambda key: pgd(
        untargeted(model, y), x, noise=Noise(torch.arange(200), key), eps=0.1, step_size=0.001, steps=1
    )
    assert run(1).equal(run(1))
    assert not run(1).equal(run(2))


def test_the_l2_start_is_uniform_in_the_ball():
    seen = []
    x = torch.full((4000, 3, 1, 1), 0.5)
    goal = lambda x, rows: (seen.append(x.detach()) or x.flatten(1).sum(1), None)
    pgd(goal, x, noise=Noise(torch.arange(4000), 0), eps=0.2, step_size=0.01, steps=1, norm="l2")
    radius = (seen[0] - x).flatten(1).norm(dim=1) / 0.2
    assert radius.max() <= 1 + 1e-6
    assert abs((radius**3).mean() - 0.5) < 0.02  # in 3 dimensions radius^3 is uniform


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps must not be negative"),
        ({"steps": 0}, "at least 1 step"),
        ({"step_size": -1.0}, "step_size must not be negative"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(change, message):
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match=message):
        pgd(
            lambda x, rows: (x.flatten(1).sum(1), None),
            x,
            noise=Noise(torch.arange(1), 0),
            **{"eps": 0.1, "step_size": 0.1, "steps": 1, **change},
        )


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_attack_leaves_gradients_buffers_mode_and_random_state_as_they_were(mode, precision):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), precision=precision)
    noise = Noise(torch.arange(8), 0)
    x, y = noise.uniform(1, 8, 8), noise.integers(3)
    cross_entropy(role(x), y).mean().backward()  # gradients are there already
    model[1].eval()  # and the modes are mixed
    state, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    with role.frozen(mode) as g:
        x_adv = pgd(
            away_from(g, lambda logits, rows: cross_entropy(logits, y[rows])),
            x,
            noise=noise,
            eps=0.1,
            step_size=0.05,
            steps=3,
        )
    assert x_adv.dtype == torch.float32
    assert not x_adv.requires_grad
    assert all(v.equal(model.state_dict()[k]) for k, v in state.items())
    assert all(p.grad.equal(g) for p, g in zip(model.parameters(), grads))
    assert all(p.requires_grad for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert torch.get_rng_state().equal(random)

"""Norms: projections against brute force, the l1 maximum within [0,1], and a norm of a plugin's own through attacks and probes."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from actkit.attacks import Threat, apgd, away_from, norm_named, pgd, threat
from actkit.attacks.norms import Linf
from actkit.config.norm import norm_names
from actkit.config.registry import register
from actkit.config.spec import Spec
from actkit.datasets import Data, Split
from actkit.errors import InputError
from actkit.losses import margin
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.probes import measure

PIXELS = 9


@register("norm")
class patch(Linf):
    """The largest change of a pixel in the first row; the rest of an image stays."""

    @staticmethod
    def inside(v):
        return (torch.arange(v.shape[-2]) < 1)[:, None]

    def length(self, v):
        return torch.where((v * ~self.inside(v)).flatten(1).any(1), torch.inf, v.flatten(1).abs().amax(1))

    def uniform(self, noise, x):
        return Linf.uniform(noise, x) * self.inside(x)

    def sphere(self, noise, x):
        inside = self.uniform(noise, x)
        return inside / inside.flatten(1).abs().amax(1).view(-1, 1, 1, 1)

    def direction(self, gradient, x, eps):
        return Linf.direction(gradient, x, eps) * self.inside(x)

    def project(self, x_adv, x, eps):
        return torch.where(self.inside(x), Linf.project(x_adv, x, eps), x)


def points(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images inside [0,1] and on its border; points near them and far away."""
    torch.manual_seed(seed)
    x = torch.rand(n, 1, 3, 3)
    x[::3] = x[::3].round()
    return x, x + torch.randn_like(x) * torch.tensor([0.05, 0.5, 4.0]).repeat(n // 3)[:, None, None, None]


def nearest_by_bisection(u: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """The nearest point of the l1 ball and of [0,1]: the Lagrange multiplier by bisection, one image of shape (1, 3, 3)."""
    u, x = u.double(), x.double()
    change, room = (u - x).abs(), torch.where(u > x, 1 - x, x)
    low, high = 0.0, float(change.max())
    if change.minimum(room).sum() <= eps:
        high = 0.0
    for _ in range(100 if high else 0):
        middle = (low + high) / 2
        over = (change - middle).clamp_min(0).minimum(room).sum() > eps
        low, high = (middle, high) if over else (low, middle)
    return x + (u - x).sign() * (change - high).clamp_min(0).minimum(room)


@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0, 3.0, 100.0])
def test_the_l1_projection_is_the_nearest_point_of_the_ball_and_of_0_1_at_once(eps):
    x, u = points()
    found = norm_named("l1").project(u, x, eps)
    expected = torch.stack([nearest_by_bisection(u[i], x[i], eps) for i in range(len(x))])
    assert torch.allclose(found.double(), expected, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "patch"])
def test_no_point_of_the_ball_and_of_0_1_is_nearer_than_the_projection(norm):
    """Of a convex set, no point lies beyond the plane through the projection: (u - p) . (z - p) <= 0. Of l2 it clips after it shrinks, so where u is in [0,1]."""
    ball, (x, u) = norm_named(norm), points()
    u = u.clamp(0, 1) if norm == "l2" else u
    p = ball.project(u, x, 0.7)
    for key in range(20):
        z = ball.project(x + 3 * ball.uniform(Noise(torch.arange(len(x)), key), x), x, 0.7)
        assert Threat(norm, 0.7).allows(z, x).all()
        assert (((u - p) * (z - p)).flatten(1).sum(1) <= 1e-5).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "patch"])
def test_what_lies_inside_stays_and_each_example_may_have_its_own_eps(norm):
    ball, (x, u) = norm_named(norm), points()
    eps = torch.linspace(0, 1, len(x)).view(-1, 1, 1, 1)
    p = ball.project(u, x, eps)
    assert torch.allclose(ball.project(p, x, eps + 1e-6), p, atol=1e-6)
    alone = torch.cat([ball.project(u[i : i + 1], x[i : i + 1], float(eps[i])) for i in range(len(x))])
    assert torch.allclose(p, alone, atol=1e-6)
    assert ball.project(u, x, 0.0).equal(x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "patch"])
def test_a_value_that_is_no_number_does_not_pass_for_an_image(norm):
    ball, (x, u) = norm_named(norm), points()
    u[:, :, 0, 0] = torch.nan
    assert not Threat(norm, 0.5).allows(ball.project(u, x, 0.5), x).any()
    assert ball.direction(u, x, 0.5).isnan().flatten(1).any(1).all()


def most_in_l1(w: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """How much w . delta can be, |delta|_1 <= eps, x + delta in [0,1]: pixel by pixel, the largest weight first, as far as there is room."""
    order = w.abs().argsort(descending=True)
    room = torch.where(w > 0, 1 - x.flatten(1), x.flatten(1))[:, order]
    used = (eps - (room.cumsum(1) - room)).clamp_min(0).minimum(room)
    return used @ w.abs()[order]


@pytest.mark.parametrize(
    "attack",
    [functools.partial(pgd, step_size=0.5, steps=200), functools.partial(apgd, steps=100)],
    ids=["pgd", "apgd"],
)
def test_in_l1_more_pixels_than_one_are_filled_to_the_border_of_0_1(attack):
    """eps 2 of 64 pixels, each with room for at most 1: within 1 % of the closed form, which no single pixel reaches half of."""
    torch.manual_seed(0)
    w, x = torch.randn(64), torch.rand(20, 64, 1, 1)

    def goal(z, rows):
        return z.flatten(1) @ w, None

    x_adv = attack(goal, x, noise=Noise(torch.arange(20), 0), eps=2.0, norm="l1")
    gained, most = (x_adv - x).flatten(1) @ w, most_in_l1(w, x, 2.0)
    assert (gained >= 0.99 * most).all() and (gained <= most * (1 + 1e-5)).all()
    assert (w.abs().max() < most).all()


# -- a norm of a plugin's own ----------------------------------------------------------------------------------------------


def linear() -> tuple[Role, Data, torch.Tensor]:
    """Two classes by the sign of w . (x - 1/2), 200 images of 3 x 3; how far each lies on its own side."""
    noise, w = Noise(torch.arange(200), 0), torch.linspace(-1, 1.3, PIXELS)
    x = noise.uniform(1, 3, 3, low=0.3, high=0.7)
    side = (x.flatten(1) - 0.5) @ w
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 2))
    model[1].weight.data, model[1].bias.data = torch.stack([0 * w, w]), torch.tensor([0.0, -0.5 * float(w.sum())])
    split = Split(x, (side > 0).long())
    data = Data("sides", (1, 3, 3), ("under", "over"), {"test": 200}, lambda name: split)
    return Role("robust", model), data, side.abs()


# What an eps of 0.05 in the first row, whose weights are w_0 to w_2, takes from every margin.
TAKEN = 0.05 * float(torch.linspace(-1, 1.3, PIXELS)[:3].abs().sum())


@pytest.mark.parametrize(
    ("name", "settings"), [("pgd", {"step_size": 0.02, "steps": 10}), ("apgd", {"steps": 30})], ids=["pgd", "apgd"]
)
@pytest.mark.parametrize("mode", ["paper", "worst_case"])
def test_robust_accuracy_under_a_plugins_norm_is_the_closed_form(name, settings, mode):
    role, data, side = linear()
    attack = Spec("attack", name, {"eps": 0.05, "norm": "patch", **settings})
    probe = Spec("probe", "robust_accuracy", {"attack": attack, "mode": mode, "starts": 1}).build()
    result = measure([probe], {"robust": role}, data)["robust.robust_accuracy"]
    held = float((side > TAKEN).double().mean())
    assert 0.2 < held < 0.95
    assert result.numbers["worst_run" if mode == "paper" else "worst_case"] == pytest.approx(held, abs=1e-9)
    assert str(result.threat) == "patch eps 0.05"


def test_the_audit_takes_a_plugins_norm_and_says_what_it_cannot_check():
    role, data, _ = linear()
    attack = Spec("attack", "pgd", {"eps": 0.05, "norm": "patch", "step_size": 0.02, "steps": 10})
    found = measure([Spec("probe", "audit", {"attack": attack, "steps": 20}).build()], {"robust": role}, data)
    flags = {flag.check: flag for flag in found["robust.audit"].flags}
    assert not found["robust.audit"].red
    assert flags["eps 1"].said.startswith("no eps of patch holds the whole of [0,1]")
    assert "Square" not in flags and "one step" in flags


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_audit_of_an_honest_linear_model_is_green_in_every_norm(norm):
    role, data, _ = linear()
    eps = {"linf": 0.03, "l2": 0.1, "l1": 0.15}[norm]
    attack = Spec("attack", "pgd", {"eps": eps, "norm": norm, "step_size": eps / 4, "steps": 40})
    found = measure([Spec("probe", "audit", {"attack": attack, "steps": 40}).build()], {"robust": role}, data)
    assert [flag for flag in found["robust.audit"].flags if flag.level == "red"] == []


# -- what is said ------------------------------------------------------------------------------------------------------------


def test_a_norm_that_is_none_is_named_with_the_nearest_and_with_what_there_is():
    attack = functools.partial(pgd, eps=0.1, step_size=0.1, steps=1, norm="linff")
    goal = away_from(lambda x: x.flatten(1), margin, torch.zeros(1, dtype=torch.long))
    for call in (
        lambda: threat(attack),
        lambda: attack(goal, torch.zeros(1, 1, 2, 2), noise=Noise(torch.arange(1), 0)),
        lambda: norm_named("linff"),
    ):
        with pytest.raises(
            InputError, match=r"there is no norm 'linff'\n  help: did you mean 'linf'\?  \(there is .*l1, l2, linf"
        ):
            call()


class Lengthless:
    @staticmethod
    def uniform(noise, x): ...


class Misspelt(Linf):
    @staticmethod
    def project(x, x_adv, eps): ...


class Needing(Linf):
    def __init__(self, mask): ...


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (Lengthless, r"it has no length\(v\)"),
        (Misspelt, r"its project\(x, x_adv, eps\) should be project\(x_adv, x, eps\)"),
        (Needing, "it cannot be made without mask"),
        (lambda v: v, "it is no class"),
    ],
    ids=["lacks a method", "other parameters", "needs arguments", "no class"],
)
def test_a_norm_that_does_not_fit_its_contract_is_refused(target, why):
    with pytest.raises(InputError, match=why) as caught:
        register("norm", "refused")(target)
    assert "the contract is a class with length(v)" in str(caught.value)
    assert "refused" not in norm_names()


def test_what_knows_one_norm_alone_says_so():
    with pytest.raises(InputError, match="the official AutoAttack is run in linf and l2 here, not in l1"):
        Spec("probe", "autoattack", {"eps": 12.0, "norm": "l1", "tier": "official"}).build()

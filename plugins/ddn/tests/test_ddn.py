"""DDN against the closed form of a linear model, and on digits against FGSM^k."""

from __future__ import annotations

import pytest
import torch

import actkit_ddn  # noqa: F401
from actkit import InputError, Noise, Role, Spec, away_from, cross_entropy, load_model, untargeted

W = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))


def model(x):
    return x.flatten(1) @ W.T


def images(n=50):
    noise = Noise(torch.arange(n), 0)
    x = noise.uniform(24, 1, 1, low=0.45, high=0.55)
    y = model(x).argmax(1)
    y[:5] = (y[:5] + 1) % 5
    return x, y, noise


def closed_form(x, y):
    """To the nearest of the planes where another class overtakes y; 0 where one has."""
    logits, steep = model(x), torch.linalg.vector_norm(W[:, None] - W, dim=2)
    far = (logits.gather(1, y[:, None]) - logits) / steep[y]
    return far.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)


@pytest.mark.parametrize("eps", [10.0, 0.1])
def test_it_finds_the_closed_form_of_a_linear_model_within_half_a_percent(eps):
    x, y, noise = images()
    expected, goal = closed_form(x, y), untargeted(model, y, loss="margin")
    assert (expected > 0.1).sum() > 10 and expected.max() < 0.45, "[0,1] does not bind"
    x_adv = Spec("attack", "ddn", {"eps": eps, "steps": 200}).build()(goal, x, noise=noise)
    found, won = (x_adv - x).flatten(1).norm(dim=1), goal(x_adv, slice(None))[1]
    reachable = expected < eps * 0.995
    assert won[reachable].all() and found[expected == 0].eq(0).all()
    assert (found[reachable] <= 1.005 * expected[reachable] + 1e-6).all()
    assert (found[reachable] >= expected[reachable] * (1 - 1e-5)).all()
    assert x_adv[expected > eps].equal(x[expected > eps]), "what is farther comes back as it was"


def test_on_digits_it_is_no_longer_than_fgsm_k_in_the_corner_of_its_box():
    """FGSM^k looks for the smallest in linf; of images of 64 pixels that is at most 8 times as long in l2, and DDN is well below that."""
    data, role = Spec("dataset", "digits").build()(), Role("robust", load_model("example:act_digits"))
    linf = Spec("probe", "fgsm_k", {"limit": 8, "tries": 6}).build()(role, data).examples["distance"]
    attack = Spec("attack", "ddn", {"eps": 8.0, "steps": 50})
    result = Spec("probe", "smallest", {"attack": attack, "limit": 8}).build()(role, data)
    l2 = result.examples["distance"]
    assert result.numbers["not_found"] == 0
    assert (l2 <= 8 * linf).all() and l2.gt(0).equal(linf.gt(0))


@pytest.mark.parametrize(("name", "value"), [("norm", "linf"), ("steps", 0), ("gamma", 1.0), ("eps", -1.0)])
def test_settings_that_cannot_be_are_told(name, value):
    with pytest.raises(InputError, match={"norm": "l2 alone, not in linf", "steps": "1 step, got 0"}.get(name, name)):
        Spec("attack", "ddn", {"eps": 1.0, name: value}).build()


def test_a_goal_that_does_not_tell_is_refused():
    x, y, noise = images(2)
    with pytest.raises(InputError, match="needs a goal that tells who has won"):
        Spec("attack", "ddn", {"eps": 1.0}).build()(away_from(model, cross_entropy, y), x, noise=noise)

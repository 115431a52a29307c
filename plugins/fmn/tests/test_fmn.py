"""FMN against the closed form of a linear model in three norms, and on digits against FGSM^k."""

from __future__ import annotations

import math

import pytest
import torch

import actkit_fmn  # noqa: F401
from actkit import InputError, Noise, Role, Spec, away_from, cross_entropy, load_model, norm_named, untargeted

W = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))


def model(x):
    return x.flatten(1) @ W.T


def images(n=50):
    noise = Noise(torch.arange(n), 0)
    x = noise.uniform(24, 1, 1, low=0.48, high=0.52)
    y = model(x).argmax(1)
    y[:5] = (y[:5] + 1) % 5
    return x, y, noise


def closed_form(x, y, dual):
    """To the nearest of the planes where another class overtakes y; 0 where one has."""
    logits, steep = model(x), torch.linalg.vector_norm(W[:, None] - W, dual, dim=2)
    far = (logits.gather(1, y[:, None]) - logits) / steep[y]
    return far.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("share", [4.0, 0.5])
def test_it_finds_the_closed_form_of_a_linear_model_within_a_tenth_of_a_percent(norm, share):
    """With an eps beyond all of them, and with one that half of the way to the farthest uses up."""
    x, y, noise = images()
    expected = closed_form(x, y, {"linf": 1, "l2": 2, "l1": math.inf}[norm])
    goal, eps = untargeted(model, y, loss="margin"), share * float(expected.max())
    settings = {"eps": min(eps, 1.0) if norm == "linf" else eps, "norm": norm, "steps": 200}
    x_adv = Spec("attack", "fmn", settings).build()(goal, x, noise=noise)
    found, won = norm_named(norm).length(x_adv - x), goal(x_adv, slice(None))[1]
    # Farther in l1, [0,1] binds: a single pixel has no more room.
    near = expected < min(0.995 * eps, 0.48)
    assert won[near].all() and found[expected == 0].eq(0).all()
    assert torch.allclose(found[near], expected[near], rtol=1e-3, atol=1e-6)
    assert x_adv[expected > eps].equal(x[expected > eps]), "what is farther comes back as it was"


def test_on_digits_fgsm_k_is_shorter_on_few_images_and_by_little():
    """Both follow gradients and end in different places. On 116 test images FGSM^k was shorter by more than 1 % on 6, by 0.056 at most; its mean is 0.228, FMN's 0.204."""
    data, role = Spec("dataset", "digits").build()(), Role("robust", load_model("example:act_digits"))
    fgsm_k = Spec("probe", "fgsm_k", {"limit": 20, "tries": 10}).build()(role, data).examples["distance"]
    attack = Spec("attack", "fmn", {"eps": 1.0, "steps": 100, "step_size": 10.0})
    result = Spec("probe", "smallest", {"attack": attack, "limit": 20}).build()(role, data)
    fmn = result.examples["distance"]
    assert fmn.isfinite().all() and fmn.gt(0).equal(fgsm_k.gt(0))
    assert fmn.mean() < fgsm_k.mean()
    longer = fmn > 1.01 * fgsm_k
    assert longer.double().mean() <= 0.1 and (fmn - fgsm_k).max() < 0.06


@pytest.mark.parametrize(
    ("name", "value"), [("norm", "l3"), ("steps", 0), ("gamma", 1.0), ("eps", -1.0), ("step_size", 0.0)]
)
def test_settings_that_cannot_be_are_told(name, value):
    with pytest.raises(InputError, match={"steps": "1 step, got 0"}.get(name, name)):
        Spec("attack", "fmn", {"eps": 1.0, name: value}).build()


def test_a_goal_that_does_not_tell_is_refused():
    x, y, noise = images(2)
    with pytest.raises(InputError, match="needs a goal that tells who has won"):
        Spec("attack", "fmn", {"eps": 1.0}).build()(away_from(model, cross_entropy, y), x, noise=noise)

"""`actkit.attack`: attacks on a model, against closed forms, and the same as within a probe."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import actkit
from actkit import ActkitError, InputError
from actkit.attacks import away_from
from actkit.config import registry

LINEAR = nn.Linear(4, 3)
with torch.no_grad():
    LINEAR.weight.copy_(torch.tensor([[1.0, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1]]))
    LINEAR.bias.zero_()
MODEL = nn.Sequential(nn.Flatten(), LINEAR)
X = torch.full((5, 1, 2, 2), 0.5)
Y = torch.tensor([0, 1, 2, 0, 1])
FGSM, PGD = {"eps": 0.1}, {"eps": 0.1, "step_size": 0.02, "steps": 8}


def test_fgsm_on_a_linear_model_moves_each_pixel_by_eps_along_the_sign_of_the_gradient():
    # Two classes that differ in one weight each: the margin's gradient is w_other - w_y.
    two = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        two[1].weight.copy_(torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
    x_adv = actkit.attack.fgsm(two, X[:1], [0], eps=0.1)
    assert x_adv.flatten().tolist() == pytest.approx([0.4, 0.6, 0.4, 0.6])


def test_an_l2_attack_on_a_linear_model_goes_eps_far_against_the_margins_gradient():
    two = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        two[1].weight.copy_(torch.tensor([[3.0, 4, 0, 0], [0, 0, 0, 0]]))
    x_adv = actkit.attack.pgd(two, X[:1], [0], eps=0.2, step_size=0.1, steps=20, norm="l2", early_stopping=False)
    assert (x_adv - X[:1]).flatten().tolist() == pytest.approx([-0.12, -0.16, 0, 0], abs=1e-4)


def test_the_result_lies_in_the_ball_and_in_the_unit_cube_and_shares_no_memory():
    x = torch.rand(7, 1, 2, 2)
    kept = x.clone()
    x_adv = actkit.attack.pgd(MODEL, x, torch.zeros(7).long(), **PGD)
    assert x.equal(kept)
    assert x_adv.data_ptr() != x.data_ptr()
    assert not x_adv.requires_grad
    assert ((x_adv - x).abs() <= 0.1 + 1e-6).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_bytes_are_taken_as_images_too():
    x = (X * 255).to(torch.uint8)
    assert actkit.attack.fgsm(MODEL, x, Y, **FGSM).equal(actkit.attack.fgsm(MODEL, x.float() / 255, Y, **FGSM))


def test_the_size_of_the_batch_changes_nothing_and_the_seed_does():
    x = torch.rand(7, 1, 2, 2)
    y = torch.arange(7) % 3
    made = actkit.attack.pgd(MODEL, x, y, **PGD)
    assert actkit.attack.pgd(MODEL, x, y, **PGD, batch_size=2).equal(made)
    assert not actkit.attack.pgd(MODEL, x, y, **PGD, seed=1).equal(made)


def test_it_is_the_attack_of_the_probe_image_for_image():
    data = actkit.as_data("digits")
    x, y = data.test.batch(torch.arange(20))
    model = actkit.load_model("example:act_digits")
    x_adv = actkit.attack.pgd(model, x, y, eps=0.3, step_size=0.075, steps=5)
    result = actkit.evaluate(model, (x, y), "pgd5", eps=0.3)
    assert (model(x_adv).argmax(1) == y).tolist() == result.examples["pgd5"].tolist()
    assert 0 < result.examples["pgd5"].sum() < 20


def test_without_labels_it_moves_away_from_what_the_model_predicts():
    predicted = MODEL(X).argmax(1)
    assert actkit.attack.pgd(MODEL, X, **PGD).equal(actkit.attack.pgd(MODEL, X, predicted, **PGD))


def test_with_a_target_the_model_is_led_to_that_class():
    x = torch.full((3, 1, 2, 2), 0.5)
    x_adv = actkit.attack.pgd(MODEL, x, target=2, eps=0.3, step_size=0.1, steps=10)
    assert (MODEL(x_adv).argmax(1) == 2).all()
    each = torch.tensor([0, 1, 2])
    assert MODEL(actkit.attack.pgd(MODEL, x, target=each, eps=0.3, step_size=0.1, steps=10)).argmax(1).equal(each)


def half(logits, y):
    return F.cross_entropy(logits, y, reduction="none") / 2


@pytest.mark.parametrize(
    "loss", ["cross_entropy", "margin", "dlr", "kl", half], ids=lambda one: getattr(one, "__name__", one)
)
def test_every_loss_drives_an_attack(loss):
    x = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    x_adv = actkit.attack.pgd(MODEL, x, loss=loss, **PGD)
    assert not x_adv.equal(x)


def test_a_function_as_loss_is_the_same_as_its_name():
    by_name = actkit.attack.pgd(MODEL, X, Y, **PGD)
    assert actkit.attack.pgd(MODEL, X, Y, loss=half, **PGD).equal(by_name)


def test_a_goal_of_ones_own_is_what_the_attack_sees():
    goal = away_from(MODEL, half, Y)
    wanted = actkit.attack.pgd(MODEL, X, Y, **PGD, early_stopping=False)
    assert actkit.attack.pgd(MODEL, X, goal=goal, **PGD).equal(wanted)


REFUSED = {
    "no step": ({"eps": 0.1}, {}, "actkit.attack.pgd needs step_size and steps\n  help: give step_size=eps/4, steps=20"),
    "a misspelt setting": (PGD, {"step": 3}, "'attack.pgd' has no parameter 'step'\n  help: did you mean"),
    "an unknown loss": (PGD, {"loss": "margn"}, "there is no loss 'margn'\n  help: did you mean 'margin'"),
    "a mean": (PGD, {"loss": lambda logits, y: logits.mean()}, r"the loss gives shape \(\) for 5 images; one value for each is wanted"),
    "eps of grey levels": ({**PGD, "eps": 8}, {}, "eps must not be above 1, got 8"),
    "a label too many": (PGD, {"y": torch.arange(6)}, "there are 5 images but 6 labels"),
    "a class that is none": (PGD, {"y": torch.tensor([0, 1, 2, 3, 0])}, "labels: 3 is none of the model's 3 classes"),
    "a target that is none": (PGD, {"target": 7}, "targets: 7 is none of the model's 3 classes"),
    "targeted without target": (PGD, {"loss": "targeted_dlr"}, "the loss 'targeted_dlr' needs a target"),
    "a goal beside labels": (PGD, {"goal": lambda x, rows: None}, "leave y, loss and target out beside goal="),
    "normalised images": (PGD, {"x": X - 1}, "they look normalised: give them in .0,1. and let the model normalise"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_said_in_a_line(what):
    settings, given, said = REFUSED[what]
    with pytest.raises(InputError, match=said):
        actkit.attack.pgd(**{"model": MODEL, "x": X, "y": Y, **settings, **given})


def test_a_model_that_gives_nan_is_no_robust_one():
    class Broken(nn.Module):
        def forward(self, x):
            return MODEL(x) * float("nan")

    with pytest.raises(ActkitError, match="NaN"):
        actkit.attack.pgd(Broken(), X, Y, **PGD)


def test_attacks_are_those_of_the_registry_and_a_new_one_is_there_at_once(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))

    @actkit.register("attack")
    def half_way(goal, x, *, noise, eps: float, share: float = 0.5):
        """To the upper side of the ball, or part of the way."""
        return (x + share * eps).clamp(0, 1)

    assert {"pgd", "apgd", "square", "half_way"} <= set(dir(actkit.attack))
    assert actkit.attack.half_way(MODEL, X, Y, eps=0.2).flatten().tolist() == pytest.approx([0.6] * 20)
    assert "To the upper side of the ball" in actkit.attack.half_way.__doc__
    assert inspect.signature(actkit.attack.half_way).parameters["share"].default == 0.5


def test_an_attack_that_there_is_none_of_is_an_attribute_error_with_the_nearest():
    with pytest.raises(AttributeError, match="there is no attack 'pdg'; did you mean 'pgd'"):
        actkit.attack.pdg  # noqa: B018


def test_steps_that_cannot_reach_the_balls_border_are_said():
    with pytest.warns(UserWarning, match=r"actkit.attack.pgd: 5 steps of 0.01 reach 0.05, not eps 0.1"):
        actkit.attack.pgd(MODEL, X, Y, eps=0.1, step_size=0.01, steps=5)


def test_a_role_is_a_model_too():
    role = actkit.Role("robust", copy.deepcopy(MODEL), precision="bf16")
    assert actkit.attack.pgd(role, X, Y, **PGD).equal(actkit.attack.pgd(MODEL, X, Y, **PGD))

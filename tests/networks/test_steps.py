"""What a recipe says of a role's steps: clipping, weight decay of the weights alone, a warm-up before any schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks.roles import Role, RoleConfig

RESNET = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]})
EPOCHS, WARMUP, FIRST = 12, 3, 0.1


def made(schedule: Spec | None = None, optimizer: Spec | None = None, **how) -> Role:
    optimizer = optimizer or Spec("optimizer", "SGD", {"lr": FIRST, "momentum": 0.9, "weight_decay": 0.1})
    config = RoleConfig(
        backbone=RESNET.build(), optimizer=optimizer.build(), schedule=schedule and schedule.build(), **how
    )
    length = {"epoch": EPOCHS, "batch": 5 * EPOCHS}
    return config.make("robust", num_classes=3, in_chans=1, seed=0, device="cpu", length=length, precision="fp32")


def train(role: Role) -> None:
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (100 * nn.functional.cross_entropy(role(x), torch.arange(8) % 3)).backward()
    role.step()


def test_gradients_are_clipped_to_the_norm_and_smaller_ones_are_left():
    for limit, scaled in ((1.0, True), (1e6, False)):
        role, plain = made(clip_norm=limit), made()
        train(role)
        train(plain)
        norms = [torch.stack([p.grad.norm() for p in one.model.parameters()]).norm().item() for one in (role, plain)]
        assert norms[0] == pytest.approx(1.0 if scaled else norms[1], rel=1e-4)
        assert norms[1] > 2


def test_weight_decay_of_the_weights_alone_leaves_biases_and_normalisations_as_they_are():
    role = made(decay="weights")
    before = {name: p.detach().clone() for name, p in role.model.named_parameters()}
    # Without a gradient, what moves is moved by the decay.
    for parameter in role.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    role.step()
    for name, parameter in role.model.named_parameters():
        # w - lr * decay * w
        want = before[name] * (1 - FIRST * 0.1 * (parameter.dim() > 1))
        assert torch.allclose(parameter, want, atol=1e-7), name
    assert {p.dim() > 1 for p in role.model.parameters()} == {True, False}
    assert role.notes == ["15 tensors, biases and normalisations, have no weight decay"]


def test_learning_rates_by_part_go_with_a_decay_of_the_weights_alone():
    role = made(decay="weights", lr_scale={"fc.*": 10.0})
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in role.optimizer.param_groups]
    assert [(lr, decay) for lr, decay, _ in found] == [(0.1, 0.1), (0.1, 0.0), (1.0, 0.1), (1.0, 0.0)]
    assert [count for *_, count in found][2:] == [1, 1]
    assert role.lr == 0.1


def after(schedule: str | None, first: float) -> list[float]:
    """The rates of the epochs after the warm-up, in closed form."""
    rest = EPOCHS - WARMUP
    if schedule == "MultiStepLR":
        return [first * 0.2 ** ((t >= 2) + (t >= 5)) for t in range(rest)]
    if schedule == "CosineAnnealingLR":
        return [first * (1 + math.cos(math.pi * t / rest)) / 2 for t in range(rest)]
    if schedule == "OneCycleLR":
        # From 1/25 to the top at 30 % of the steps, to 1/25/10^4, along cosines.
        top, rise = 25 * first, 0.3 * rest - 1
        fall = rest - 1 - rise
        cosine = lambda a, b, share: b + (a - b) / 2 * (1 + math.cos(math.pi * share))
        return [
            cosine(first, top, t / rise) if t <= rise else cosine(top, first / 1e4, (t - rise) / fall)
            for t in range(rest)
        ]
    return [first] * rest


SCHEDULES = {
    None: None,
    "MultiStepLR": Spec("schedule", "MultiStepLR", {"milestones": [2, 5], "gamma": 0.2}),
    "CosineAnnealingLR": Spec("schedule", "CosineAnnealingLR"),
    "OneCycleLR": Spec("schedule", "OneCycleLR", {"max_lr": 0.5}),
}


@pytest.mark.parametrize("stop", [None, 2, WARMUP, 7], ids=["straight", "in the warm-up", "at its end", "after it"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_rises_to_the_schedules_first_and_then_follows_it_also_across_a_resume(name, stop):
    role, rates = made(SCHEDULES[name], warmup=WARMUP), []
    for epoch in range(EPOCHS):
        if epoch == stop:
            kept = role.optimizer.state_dict(), role.schedule.state_dict()
            role = made(SCHEDULES[name], warmup=WARMUP)
            role.optimizer.load_state_dict(kept[0])
            role.schedule.load_state_dict(kept[1])
        rates.append(role.lr)
        role.optimizer.step()
        role.end("epoch", epochs=epoch + 1)
    first = 0.5 / 25 if name == "OneCycleLR" else FIRST
    rise = [first * (t + 1) / (WARMUP + 1) for t in range(WARMUP)]
    assert rates == pytest.approx(rise + after(name, first), abs=1e-12)
    assert role.notes == ["warm-up of 3 epochs, from 1/4 of the learning rate"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"clip_norm": 0.0}, "role.clip_norm must be positive, got 0.0"),
        ({"warmup": -1}, "role.warmup counts epochs or batches"),
        ({"warmup": 12}, r"role.warmup = 12 is no less than the whole training \(12\)"),
        ({"decay": "weights", "optimizer": Spec("optimizer", "Rprop", {"lr": 0.1})}, "Rprop has no weight decay"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_settings_that_mean_nothing_are_refused(how, message):
    with pytest.raises(InputError, match=message):
        made(**how)


def test_a_role_that_is_not_trained_has_no_steps_to_set():
    with pytest.raises(InputError, match=r"role.clip_norm, role.decay and role.warmup are of a training"):
        RoleConfig(backbone=RESNET.build(), warmup=2)

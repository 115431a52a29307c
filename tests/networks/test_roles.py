"""The frozen view: what it shares with the model, and what it does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.config.registry import get
from actkit.networks.roles import Role, make_schedule


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def trained(precision: str = "fp32") -> Role:
    model = small()
    return Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), precision=precision)


X = torch.linspace(0, 1, 8 * 64).view(8, 1, 8, 8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_view_follows_every_update_of_the_weights(mode, precision):
    """A view that remembered old weights would attack a model that no longer exists."""
    role = trained(precision)
    with role.frozen(mode) as before:
        first = before(X)
    for _ in range(2):
        role(X).sum().backward()
        role.step()
        role.zero_grad()
    reference = small()
    reference.load_state_dict(role.model.state_dict())
    reference.train(mode == "train")
    with role.frozen(mode) as after:
        second = after(X)
    tolerance = 1e-5 if precision == "fp32" else 0.1 * reference(X).detach().abs().max()
    assert torch.allclose(second, reference(X), atol=float(tolerance))
    assert not torch.allclose(first, second, atol=float(tolerance))


def test_in_train_mode_the_view_uses_batch_statistics_and_keeps_none():
    role = trained()
    before = role.model[1].running_mean.clone()
    with role.frozen("train") as g:
        logits = g(X)
    assert role.model[1].running_mean.equal(before)
    assert torch.allclose(logits, small().train()(X), atol=1e-6)
    assert not torch.allclose(logits, small().eval()(X), atol=1e-3)


def test_logits_are_fp32_and_gradients_reach_the_input_alone():
    for precision in ("fp32", "bf16"):
        role = trained(precision)
        x = X.clone().requires_grad_()
        with role.frozen() as g:
            logits = g(x)
        assert logits.dtype == torch.float32
        logits.sum().backward()
        assert x.grad is not None
        assert all(p.grad is None for p in role.model.parameters())


def test_bf16_is_near_fp32():
    with trained().frozen() as a, trained("bf16").frozen() as b:
        assert torch.allclose(a(X), b(X), atol=0.05)


def test_a_role_without_an_optimizer_is_in_eval_mode_and_has_no_weight_gradients():
    helper = Role("helper", small())
    x = X.clone().requires_grad_()
    helper(x).sum().backward()
    assert int(helper.model[1].num_batches_tracked) == 0
    assert all(p.grad is None for p in helper.model.parameters())
    with pytest.raises(ValueError, match="'helper' has no optimizer"):
        helper.step()


def test_a_schedule_is_told_the_length_of_the_run_where_the_recipe_is_silent():
    from actkit.config.spec import Spec

    optimizer = torch.optim.SGD(small().parameters(), lr=0.1)
    made = make_schedule(optimizer, Spec("schedule", "CosineAnnealingLR").build(), length=7)
    assert made.T_max == 7
    made = make_schedule(optimizer, Spec("schedule", "CosineAnnealingLR", {"T_max": 3}).build(), length=7)
    assert made.T_max == 3


def test_torchs_own_optimizers_and_schedules_are_there_by_name():
    assert get("optimizer.SGD").target is torch.optim.SGD
    assert get("schedule.MultiStepLR").target is torch.optim.lr_scheduler.MultiStepLR
    assert "params" not in get("optimizer.AdamW").parameters


def test_the_cyclic_recipe_rises_to_the_middle_and_falls_to_nothing():
    from actkit import load

    recipe = load("gin/fast_cifar10.gin")
    parts = recipe.spec.build().roles["robust"]
    optimizer = parts.optimizer([nn.Parameter(torch.zeros(1))])
    schedule = make_schedule(optimizer, parts.schedule, length=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(rates) < 100 else None
    assert rates[0] < 1e-5
    assert max(rates) == pytest.approx(0.2, rel=0.02)
    assert 48 <= rates.index(max(rates)) <= 51
    assert rates[-1] < 0.005

"""AdvProp: each set of BatchNorm sees its own images alone, and the loss by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import actkit_advprop  # noqa: F401  registers it
from actkit import InputError, Noise, Role, Spec, register, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})


def draws():
    return Noise(torch.arange(6), 2)


@register("backbone", "advprop_tiny")
def tiny(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_chans, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes)
    )


@register("backbone", "advprop_bare")
def bare(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 64, num_classes))


def made(**settings):
    torch.manual_seed(0)
    model = Spec("backbone", "two_norms", {"net": Spec("backbone", "advprop_tiny"), **settings}).build()(3, in_chans=1)
    noise = Noise(torch.arange(6), 1)
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    return role, noise.uniform(1, 8, 8), noise.integers(3)


def test_the_update_and_both_sets_of_statistics_are_those_of_a_hand_made_one():
    role, x, y = made()
    reference, *_ = made()
    conv, pair, *rest = reference.model.net

    def through(norm, images):
        return nn.Sequential(*rest)(norm(conv(images)))

    reference.model.eval()
    x_adv = PGD.build()(
        lambda at, rows: (F.cross_entropy(through(pair.adversarial, at), y[rows], reduction="none"), None),
        x,
        noise=draws(),
    )
    reference.model.train()
    loss = F.cross_entropy(through(pair.main, x), y) + F.cross_entropy(through(pair.adversarial, x_adv), y)
    gradients = torch.autograd.grad(loss, list(reference.model.parameters()))
    list(update(Spec("objective", "advprop", {"attack": PGD}).build(), x, y, {"robust": role}, noise=draws()))
    for after, before, gradient in zip(role.model.parameters(), reference.model.parameters(), gradients):
        torch.testing.assert_close(after, before - 0.1 * gradient, atol=1e-6, rtol=1e-5)
    for name in ("main", "adversarial"):
        mine, theirs = getattr(role.model.net[1], name), getattr(pair, name)
        torch.testing.assert_close(mine.running_mean, theirs.running_mean)
        assert int(mine.num_batches_tracked) == 1
    assert not pair.main.running_mean.equal(pair.adversarial.running_mean)


@pytest.mark.parametrize("served", ["main", "adversarial"])
def test_whoever_names_no_branch_gets_the_served_one(served):
    role, x, y = made(served=served)
    list(update(Spec("objective", "advprop", {"attack": PGD}).build(), x, y, {"robust": role}, noise=draws()))
    found = {}
    for branch in (None, "main", "adversarial"):
        with role.frozen("eval", branch=branch) as f:
            found[branch] = f(x)
    assert found[None].equal(found[served])
    assert not found["main"].equal(found["adversarial"])


def test_both_branches_begin_alike():
    role, x, _ = made()
    assert role(x, branch="main").equal(role(x, branch="adversarial"))


def test_every_batchnorm_of_a_shipped_network_is_doubled():
    plain = Spec("backbone", "wrn", {"depth": 10, "width": 1}).build()(3, in_chans=1)
    doubled = Spec("backbone", "two_norms", {"net": Spec("backbone", "wrn", {"depth": 10, "width": 1})}).build()(
        3, in_chans=1
    )
    norms = [sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()) for model in (plain, doubled)]
    assert norms[0] > 0 and norms[1] == 2 * norms[0]


def test_a_network_without_batchnorm_and_a_branch_that_is_none_are_told():
    with pytest.raises(InputError, match="has no BatchNorm"):
        Spec("backbone", "two_norms", {"net": Spec("backbone", "advprop_bare")}).build()(3, in_chans=1)
    role, x, _ = made()
    with pytest.raises(InputError, match="no branch 'aversarial'"):
        role(x, branch="aversarial")

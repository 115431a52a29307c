"""AWP around several objectives: the weights after the update by hand, BatchNorm, errors, and what cannot be wrapped."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import actkit_awp
from actkit import Attack, InputError, Noise, Role, Spec, cross_entropy, kl, load, mimicry, register, update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})
GAMMA, LR = 0.05, 0.1


def draws():
    return Noise(torch.arange(6), 2)


def made(*names):
    roles = {}
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        roles[name] = Role(name, model, optimizer=torch.optim.SGD(model.parameters(), lr=LR))
    noise = Noise(torch.arange(6), 1)
    return roles, noise.uniform(1, 8, 8), noise.integers(3)


def around(name, **settings):
    inner = Spec("objective", name, {"attack": PGD, **settings})
    return Spec("objective", "awp", {"objective": inner, "gamma": GAMMA}).build()


def goal_of(name, view, x, y, natural_logits):
    """What the attack of each objective maximises."""
    with torch.no_grad():
        clean = view(x)
    return {
        "madry": lambda at, rows: (cross_entropy(view(at), y[rows]), None),
        "trades": lambda at, rows: (kl(clean[rows], view(at)), None),
        "act": lambda at, rows: (mimicry(view(at), y[rows], natural_logits[rows], alpha=0.9), None),
    }[name]


def losses_of(name, models, x, x_adv, y):
    """Each model's mean loss, in training mode."""
    g = models[0]
    if name == "madry":
        return [cross_entropy(g(x_adv), y).mean()]
    if name == "trades":
        logits = g(x)
        return [(cross_entropy(logits, y) + 5 * kl(logits, g(x_adv))).mean()]
    natural, robust = models[1](x), g(x_adv)
    return [mimicry(robust, y, natural, alpha=0.9).mean(), mimicry(natural, y, robust, alpha=0.9).mean()]


@pytest.mark.parametrize(
    ("name", "roles"), [("madry", ["robust"]), ("trades", ["robust"]), ("act", ["robust", "natural"])]
)
def test_the_weights_after_an_update_are_those_of_a_hand_made_one(name, roles):
    mine, x, y = made(*roles)
    reference, *_ = made(*roles)
    list(update(around(name), x, y, mine, noise=draws()))

    models = [role.model for role in reference.values()]
    statistics = copy.deepcopy([m.state_dict() for m in models])
    natural_logits = models[1](x).detach() if name == "act" else None
    with reference["robust"].frozen("eval") as view:
        # The frozen view has the running statistics of the start: F's forward above moved only F's.
        x_adv = PGD.build()(goal_of(name, view, x, y, natural_logits), x, noise=draws())
    for model, state in zip(models, statistics, strict=True):
        model.load_state_dict(state)
    matrices = [p for p in models[0].parameters() if p.dim() > 1]
    gradients = torch.autograd.grad(losses_of(name, models, x, x_adv, y)[0], matrices)
    start = [p.detach().clone() for model in models for p in model.parameters()]
    for model, state in zip(models, statistics, strict=True):
        model.load_state_dict(state)
    with torch.no_grad():
        for w, g in zip(matrices, gradients, strict=True):
            w += GAMMA * w.norm() / g.norm() * g
    loss = sum(losses_of(name, models, x, x_adv, y))
    at_worst = torch.autograd.grad(loss, [p for model in models for p in model.parameters()])
    now = [p for role in mine.values() for p in role.model.parameters()]
    for before, after, gradient in zip(start, now, at_worst, strict=True):
        assert torch.allclose(after, before - LR * gradient, atol=1e-6)
    counts = [int(role.model[1].num_batches_tracked) for role in mine.values()]
    assert counts == [int(model[1].num_batches_tracked) for model in models], "BatchNorm counts each batch once"
    for role, model in zip(mine.values(), models, strict=True):
        assert torch.allclose(role.model[1].running_mean, model[1].running_mean, atol=1e-6)


def test_an_error_in_the_middle_leaves_the_weights_exactly_as_they_were():
    roles, x, y = made("robust")
    before = [p.detach().clone() for p in roles["robust"].model.parameters()]
    perturbed = []

    def fail():
        perturbed.append([p.detach().clone() for p in roles["robust"].model.parameters()])
        raise RuntimeError("out of memory")

    roles["robust"].step = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        list(update(around("madry"), x, y, roles, noise=draws()))
    assert not perturbed[0][0].equal(before[0]), "the update is made at perturbed weights"
    assert all(a.equal(b) for a, b in zip(before, roles["robust"].model.parameters(), strict=True))


def test_before_its_warmup_it_is_the_objective_alone():
    wrapped, x, y = made("robust")
    alone, *_ = made("robust")
    inner = Spec("objective", "madry", {"attack": PGD})
    late = Spec("objective", "awp", {"objective": inner, "warmup": 0.5}).build()
    list(update(late, x, y, wrapped, noise=draws(), progress=0.4))
    list(update(inner.build(), x, y, alone, noise=draws()))
    pairs = zip(wrapped["robust"].model.parameters(), alone["robust"].model.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


@register("objective", "test_awp_asks")
def asks(x, y, robust, *, attack: Attack, noise, ids, batch_size):
    x_adv = attack(lambda at, rows: (cross_entropy(robust(at), y[rows]), None), x, noise=noise)
    yield {robust: batch_size * ids / ids.sum() * cross_entropy(robust(x_adv), y)}


def test_what_it_goes_around_is_told_the_examples_numbers_and_decides_whether_labels_may_be_shares():
    roles, x, y = made("robust")
    (found,) = update(around("test_awp_asks"), x, y, roles, noise=draws(), ids=torch.tensor([0, 0, 9, 0, 0, 0]))
    assert found["robust"].nonzero()[:, 0].tolist() == [2]
    takes = [around(name).spec.takes_soft_labels for name in ("madry", "trades", "act", "test_awp_asks")]
    assert takes == [True, True, True, False]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec("objective", "awp", {"objective": Spec("objective", "natural")}), "which objective.natural has not"),
        (Spec("objective", "awp", {"objective": Spec("objective", "madry", {"attack": PGD}), "gamma": 0.0}), "gamma"),
        (Spec("objective", "awp", {"objective": Spec("objective", "madry", {"attack": PGD}), "warmup": 2.0}), "warmup"),
    ],
)
def test_what_cannot_be_is_told(spec, message):
    with pytest.raises(InputError, match=message):
        spec.build()


def test_the_recipe_begins_with_the_epoch_that_the_released_code_begins_with():
    """Their epochs count from 1, and `epoch >= 10` perturbs: the tenth of 200."""
    run = load(str(Path(actkit_awp.__file__).parent / "gin/awp_trades_cifar10.gin")).spec
    warmup, epochs = run.kwargs["objective"].kwargs["warmup"], run.kwargs["epochs"]
    assert next(epoch for epoch in range(1, epochs + 1) if (epoch - 1) / epochs >= warmup) == 10

"""The proof of the contracts: defences of every shape fit the loop without a special case, each in about 15 lines."""

from __future__ import annotations

import copy

import pytest
import torch

from actkit.config.registry import Attack, Objective, register
from actkit.config.spec import Spec
from actkit.losses import cross_entropy, kl
from actkit.training.loop import fit, update
from helpers.models import PGD, batch, make_roles, step, weights

# -- adversarial weight perturbation (Wu et al. 2020) around any objective ---------------------------------------------


@register("objective", "test_awp")
class awp:
    def __init__(self, *, objective: Objective, gamma: float = 0.01):
        self.inner, self.gamma, self.roles = objective, gamma, objective.roles

    def __call__(self, x, y, *models, noise):
        made = []  # the inner objective's x_adv, replayed in its second pass
        once = lambda *a, **k: made[0] if made else made.append(self.inner.attack(*a, **k)) or made[0]
        inner, weights = self.inner.using(attack=once), [p for p in models[0].model.parameters() if p.dim() > 1]
        buffers = [b.clone() for m in models for b in m.model.buffers()]
        losses = next(inner(x, y, *models, noise=noise))
        grads = torch.autograd.grad(losses[models[0]].mean(), weights)
        steps = [self.gamma * w.detach().norm() / (g.norm() + 1e-12) * g for w, g in zip(weights, grads)]
        torch._foreach_copy_([b for m in models for b in m.model.buffers()], buffers)
        try:
            torch._foreach_add_([w.data for w in weights], steps)
            yield next(inner(x, y, *models, noise=noise))
        finally:
            torch._foreach_sub_([w.data for w in weights], steps)


# -- LBGAT (Cui et al. 2021): the natural model guides, both are trained, the gradient crosses -------------------------


@register("objective", "test_lbgat")
def lbgat(x, y, robust, natural, *, attack: Attack, beta: float = 6.0, noise):
    with robust.frozen("eval") as g, torch.no_grad():
        clean = g(x)
    with robust.frozen("eval") as g:
        x_adv = attack(lambda x, rows: (kl(clean[rows], g(x)), None), x, noise=noise)
    guide, logits, adversarial = natural(x), robust(x), robust(x_adv)
    boundary = ((adversarial - guide) ** 2).mean(1)
    yield {robust: boundary + beta * kl(logits, adversarial), natural: cross_entropy(guide, y)}


# -- a frozen helper (HAT, Rade and Moosavi-Dezfooli 2022): consulted, never updated -----------------------------------


@register("objective", "test_hat")
def hat(x, y, robust, helper, *, attack: Attack, gamma: float = 0.5, noise):
    with robust.frozen("eval") as g:
        x_adv = attack(lambda x, rows: (cross_entropy(g(x), y[rows]), None), x, noise=noise)
    x_helper = x + 2 * (x_adv - x)
    with torch.no_grad():
        y_helper = helper(x_helper).argmax(1)
    clean, adversarial = robust(x), robust(x_adv)
    yield {robust: cross_entropy(clean, y) + kl(clean, adversarial) + gamma * cross_entropy(robust(x_helper), y_helper)}


@pytest.mark.parametrize(
    ("name", "kwargs", "roles", "updates"),
    [
        ("natural", {}, ["natural"], 1),
        ("madry", {"attack": PGD}, ["robust"], 1),
        ("madry", {"attack": PGD, "attack_mode": "train"}, ["robust"], 1),
        ("trades", {"attack": PGD}, ["robust"], 1),
        ("act", {"attack": PGD}, ["robust", "natural"], 1),
        ("free", {"eps": 0.1, "step_size": 0.1, "replays": 3}, ["robust"], 3),
        ("fast", {"eps": 0.1, "step_size": 0.125}, ["robust"], 1),
        ("test_awp", {"objective": Spec("objective", "act", {"attack": PGD})}, ["robust", "natural"], 1),
        ("test_awp", {"objective": Spec("objective", "trades", {"attack": PGD})}, ["robust"], 1),
        ("test_lbgat", {"attack": PGD}, ["robust", "natural"], 1),
        ("test_hat", {"attack": PGD}, ["robust", "helper"], 1),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_one_loop_runs_every_defence(name, kwargs, roles, updates):
    objective = Spec("objective", name, kwargs).build()
    assert list(objective.roles) == roles
    models = make_roles(*roles, frozen=("helper",))
    before = {n: weights(r) for n, r in models.items()}
    assert len(step(objective, models)) == updates
    for role_name, role in models.items():
        assert weights(role).equal(before[role_name]) == (role_name == "helper")


def test_awp_takes_the_gradient_at_perturbed_weights_and_restores_them():
    objective = Spec(
        "objective", "test_awp", {"objective": Spec("objective", "madry", {"attack": PGD}), "gamma": 0.05}
    ).build()
    roles, plain = make_roles("robust"), make_roles("robust")
    step(objective, roles)

    # by hand: ascend, take the gradient there, return, descend
    model = plain["robust"].model
    fresh = copy.deepcopy(model)
    matrices = [p for p in fresh.parameters() if p.dim() > 1]
    x, y, noise = batch()
    with plain["robust"].frozen() as g:
        x_adv = PGD.build()(lambda x, rows: (cross_entropy(g(x), y[rows]), None), x, noise=noise)
    grads = torch.autograd.grad(cross_entropy(fresh(x_adv), y).mean(), matrices)
    with torch.no_grad():
        for p, g in zip(matrices, grads):
            p += 0.05 * p.norm() / (g.norm() + 1e-12) * g
    at_perturbed = torch.autograd.grad(cross_entropy(fresh(x_adv), y).mean(), list(fresh.parameters()))
    expected = [p.detach() - 0.1 * g for p, g in zip(model.parameters(), at_perturbed)]
    for got, want in zip(roles["robust"].model.parameters(), expected):
        assert torch.allclose(got, want, atol=1e-6)
    assert int(roles["robust"].model[1].num_batches_tracked) == 1, "BatchNorm counts the batch once"


def test_awp_leaves_the_weights_unperturbed_when_the_update_fails():
    objective = Spec("objective", "test_awp", {"objective": Spec("objective", "madry", {"attack": PGD})}).build()
    roles = make_roles("robust")
    before = weights(roles["robust"])
    roles["robust"].step = lambda: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        step(objective, roles)
    assert torch.allclose(weights(roles["robust"]), before, atol=1e-7)


def test_the_gradient_of_lbgat_reaches_the_natural_model_through_the_boundary_loss():
    objective = Spec("objective", "test_lbgat", {"attack": PGD}).build()
    roles = make_roles("robust", "natural")
    x, y, noise = batch()
    (losses,) = objective(x, y, *roles.values(), noise=noise)
    losses[roles["robust"]].mean().backward()
    assert all(p.grad is not None for p in roles["natural"].model.parameters())


def test_each_loss_of_act_leaves_the_other_roles_gradient_none():
    objective = Spec("objective", "act", {"attack": PGD, "temperature": 4.0}).build()
    for mine, other in (("robust", "natural"), ("natural", "robust")):
        roles = make_roles("robust", "natural")
        x, y, noise = batch()
        (losses,) = objective(x, y, roles["robust"], roles["natural"], noise=noise)
        losses[roles[mine]].mean().backward()
        assert all(p.grad is None for p in roles[other].model.parameters())
        assert all(p.grad is not None for p in roles[mine].model.parameters())


def test_free_reads_the_input_gradient_of_the_update_just_done():
    eps = 0.1
    objective = Spec("objective", "free", {"eps": eps, "step_size": 0.04, "replays": 2}).build()
    roles = make_roles("robust")
    x, y, noise = batch()
    reference = copy.deepcopy(roles["robust"].model)
    first = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(reference(first.clamp(0, 1)), y).mean(), first)
    updates = update(objective, x, y, roles, noise=noise)
    next(updates), next(updates)
    seen = objective.component
    updates.close()
    assert seen.delta is not None
    list(update(objective, x, y, make_roles("robust"), noise=noise))  # carried on: not reset between batches
    assert objective.component.delta.abs().max() <= eps + 1e-7
    fresh = Spec("objective", "free", {"eps": eps, "step_size": 0.04, "replays": 1}).build()
    list(update(fresh, x, y, make_roles("robust"), noise=noise))
    assert torch.allclose(fresh.component.delta, 0.04 * gradient.sign())


@pytest.mark.parametrize("clip_noise", [True, False])
def test_free_shows_what_the_code_shows_that_it_follows(clip_noise):
    """Wong's shows x plus what the batch before left, outside [0,1] too, and cuts after each step; Shafahi's cuts what it shows."""
    objective = Spec(
        "objective", "free", {"eps": 0.2, "step_size": 0.2, "replays": 2, "clip_noise": clip_noise}
    ).build()
    roles, seen = make_roles("robust"), []
    x, y, noise = batch()
    list(update(objective, x, y, roles, noise=noise))
    roles["robust"].model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    left = objective.component.delta.clone()
    other = (x > 0.5).float()
    list(update(objective, other, y, roles, noise=noise))
    assert (other + left).min() < 0 and (other + left).max() > 1
    assert seen[0].equal(other + left if clip_noise else (other + left).clamp(0, 1))
    assert seen[1].min() >= -1e-7 and seen[1].max() <= 1 + 1e-7


def test_batch_norm_modes_are_as_the_docstrings_say():
    """Batches counted by each role's BatchNorm in one step: the frozen attack counts none."""
    cases = {
        "natural": ({}, [1]),
        "madry": ({"attack": PGD}, [1]),
        "trades": ({"attack": PGD}, [2]),
        "act": ({"attack": PGD}, [1, 1]),
        "free": ({"eps": 0.1, "step_size": 0.1, "replays": 3}, [3]),
        "fast": ({"eps": 0.1, "step_size": 0.125}, [2]),
    }
    for name, (kwargs, counts) in cases.items():
        objective = Spec("objective", name, kwargs).build()
        roles = make_roles(*objective.roles)
        step(objective, roles)
        assert [int(r.model[1].num_batches_tracked) for r in roles.values()] == counts, name
    # and of ACT's two models, F's statistics come from clean x, G's from x_adv
    roles = make_roles("robust", "natural")
    x, y, noise = batch()
    conv = copy.deepcopy(roles["natural"].model[0])
    list(update(Spec("objective", "act", {"attack": PGD}).build(), x, y, roles, noise=noise))
    assert torch.allclose(roles["natural"].model[1].running_mean, 0.1 * conv(x).mean((0, 2, 3)), atol=1e-6)


def test_the_loop_names_a_loss_of_the_wrong_shape():
    @register("objective", "test_reduced")
    def reduced(x, y, robust):
        yield {robust: cross_entropy(robust(x), y).mean()}

    with pytest.raises(ValueError, match=r"one loss for each of the 6 examples to 'robust'.*leave the mean"):
        raise_flat(lambda: step(Spec("objective", "test_reduced").build(), make_roles("robust")))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x, y, robust: {robust: cross_entropy(robust(x), y)}, "must be a generator, it returned dict"),
        (lambda x, y, robust: None, "must be a generator, it returned NoneType"),
        (lambda x, y, robust: (n for n in ()), "yielded nothing"),
        (lambda x, y, robust: (n for n in [3.0]), "must yield {role: losses}, got float"),
        (lambda x, y, robust: (n for n in [{robust: 3.0}]), "one loss for each .* got float"),
    ],
    ids=["returns", "forgets", "yields nothing", "yields a number", "yields no tensor"],
)
def test_an_objective_that_breaks_its_contract_is_told(body, message):
    objective = Spec("objective", "natural").build()
    objective.component, objective.roles = body, ("robust",)
    with pytest.raises(ValueError, match=message):
        step(objective, make_roles("robust"))


def raise_flat(call):
    try:
        call()
    except ValueError as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def test_fit_yields_a_record_a_batch_and_ends_epochs():
    from actkit.datasets import Split

    x, y, _ = batch(10)
    records = []
    for record in fit(Spec("objective", "natural").build(), make_roles("natural"), Split(x, y), epochs=2, batch_size=4):
        records.append((record.position.epoch, record.position.batch, record.epoch_ended, set(record.losses)))
    last = {"natural"}
    assert records == [(0, 1, False, last), (0, 2, False, last), (1, 0, True, last), (1, 1, False, last), (1, 2, False, last), (2, 0, True, last)]  # fmt: skip

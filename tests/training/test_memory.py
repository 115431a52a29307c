"""Objectives with a memory of each example, by its number: a run that was stopped goes on with the same weights and the same memory, bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from actkit.attacks import away_from
from actkit.config.registry import Attack, register
from actkit.config.spec import Spec
from actkit.datasets import Split
from actkit.errors import InputError
from actkit.losses import cross_entropy
from actkit.networks import model_files
from actkit.training.loop import fit, update
from helpers.models import PGD, batch, make_roles
from helpers.runs import Mute, go, recipe, same, weights

# -- self-adaptive training (Huang et al. 2020): soft targets move from the labels to what the model says ----------------


@register("objective", "test_self_adaptive")
class self_adaptive:
    def __init__(self, *, momentum: float = 0.9, warmup: float = 0.3):
        self.momentum, self.warmup, self.targets = momentum, warmup, torch.empty(0)

    def __call__(self, x, y, robust, *, ids, progress):
        logits, known = robust(x), self.targets.to(x.device)
        if (more := int(ids.max()) + 1 - len(known)) > 0:  # rows of -1 are of examples that it has not met
            known = torch.cat([known.view(-1, logits.shape[1]), known.new_full((more, logits.shape[1]), -1)])
        labels = torch.nn.functional.one_hot(y, logits.shape[1]).float()
        target = torch.where(known[ids] < 0, labels, known[ids])
        if progress >= self.warmup:
            target = self.momentum * target + (1 - self.momentum) * logits.detach().softmax(1)
        known[ids], self.targets = target, known
        weight = target.amax(1)
        yield {robust: len(x) * weight / weight.sum() * cross_entropy(logits, target)}

    def state_dict(self):
        return {"targets": self.targets}

    def load_state_dict(self, state):
        self.targets = state["targets"]


# -- instance-adaptive eps (Balaji et al. 2019): each example its own, wider where it withstands, narrower where not ------


@register("objective", "test_adaptive_eps")
class adaptive_eps:
    def __init__(self, *, attack: Attack, step: float = 0.2):
        self.attack, self.step, self.scale = attack, step, torch.empty(0)

    def __call__(self, x, y, robust, *, noise, ids):
        known = self.scale.to(x.device)  # each example's eps, as a share of the attack's
        known = torch.cat([known, known.new_full((max(0, int(ids.max()) + 1 - len(known)),), self.step)])
        with robust.frozen() as f:
            x_adv = x + known[ids].view(-1, 1, 1, 1) * (self.attack(away_from(f, cross_entropy, y), x, noise=noise) - x)
            withstood = f(x_adv).argmax(1) == y
        known[ids] = (known[ids] + torch.where(withstood, self.step, -self.step)).clamp(0, 1)
        self.scale = known
        yield {robust: cross_entropy(robust(x_adv), y)}

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


# -- temporal ensembling (Laine and Aila 2017): the mean of what the model said of each example before --------------------


@register("objective", "test_temporal")
class temporal:
    def __init__(self, *, decay: float = 0.6, weight: float = 3.0):
        self.decay, self.weight, self.said, self.times = decay, weight, torch.empty(0), torch.empty(0)

    def __call__(self, x, y, robust, *, ids, progress):
        logits = robust(x)
        said, times = self.said.to(x.device).view(-1, logits.shape[1]), self.times.to(x.device)
        more = max(0, int(ids.max()) + 1 - len(said))
        said, times = torch.cat([said, said.new_zeros(more, said.shape[1])]), torch.cat([times, times.new_zeros(more)])
        target = said[ids] / (1 - self.decay ** times[ids]).clamp_min(1e-12)[:, None]
        said[ids] = self.decay * said[ids] + (1 - self.decay) * logits.detach().softmax(1)
        times[ids] += 1
        self.said, self.times = said, times
        apart = ((logits.softmax(1) - target) ** 2).mean(1) * (times[ids] > 1)
        yield {robust: cross_entropy(logits, y) + self.weight * progress * apart}

    def state_dict(self):
        return {"said": self.said, "times": self.times}

    def load_state_dict(self, state):
        self.said, self.times = state["said"], state["times"]


TEXT = """
include 'digits.gin'
dataset.digits.test_fraction = 0.8
run.epochs = 3
run.batch_size = 128
run.monitor = []
run.evaluation = [@probe.accuracy()]
probe.accuracy.limit = 100
backbone.resnet.width = 4
role.schedule = None
role.warmup = 2
role.schedule_every = 'batch'
role.clip_norm = 1.0
role.decay = 'weights'
train/attack.pgd.steps = 2
run.objective = @objective.NAME()
"""


def memory(folder):
    """The objective's tensors in the newest checkpoint, and the rest of its state."""
    found, _ = model_files.newest(folder / "checkpoints")
    tensors = {k: v for k, v in load_file(found / "state.safetensors").items() if "/objective" in k}
    return tensors, json.loads((found / "state.json").read_text())


@pytest.mark.parametrize("name", ["test_self_adaptive", "test_adaptive_eps", "test_temporal"])
def test_a_memory_by_number_resumes_bit_for_bit(write, tmp_path, name):
    attack = "\nobjective.test_adaptive_eps.attack = @train/attack.pgd()" if "eps" in name else ""
    made = recipe(write, text=TEXT.replace("NAME", name) + attack)
    assert go(made, tmp_path / "straight").exit_code == 0
    assert go(made, tmp_path / "stopped", Mute(4)).exit_code == 75
    assert go(made, tmp_path / "stopped").exit_code == 0
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))
    (straight, state), (stopped, again) = memory(tmp_path / "straight"), memory(tmp_path / "stopped")
    assert same(straight, stopped)
    assert state == again
    assert all(len(tensor) == 359 for tensor in straight.values()), "one row for each training image"


X, Y = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def test_numbers_are_the_examples_own_whatever_the_order_the_batch_or_the_part_of_a_split():
    seen = {}

    @register("objective", "test_numbers")
    def numbers(x, y, robust, *, ids, batch_size):
        assert ids.dtype == torch.int64
        assert batch_size == len(x)
        for number, image in zip(ids.tolist(), x, strict=True):
            assert image.equal(seen.setdefault(number, image))
        yield {robust: cross_entropy(robust(x), y)}

    part = Split(X, Y).take(torch.arange(40)[Y == 1])
    for split, size in ((Split(X, Y), 7), (Split(X, Y), 16), (part, 5)):
        list(fit(Spec("objective", "test_numbers").build(), make_roles("robust"), split, epochs=2, batch_size=size))
    assert sorted(seen) == list(range(40))
    assert all(seen[number].equal(X[number]) for number in seen)


def test_self_adaptive_targets_leave_the_labels_by_the_momentum():
    objective = Spec("objective", "test_self_adaptive", {"momentum": 0.75, "warmup": 0.0}).build()
    roles = make_roles("robust")
    x, y, noise = batch(6)
    said = roles["robust"](x).detach().softmax(1)
    list(update(objective, x, y, roles, noise=noise, ids=torch.tensor([9, 2, 5, 0, 1, 7])))
    targets = objective.component.targets
    assert targets.shape == (10, 3)
    want = 0.75 * torch.nn.functional.one_hot(y, 3) + 0.25 * said
    assert torch.allclose(targets[[9, 2, 5, 0, 1, 7]], want, atol=1e-6)
    assert targets[[3, 4, 6, 8]].eq(-1).all()


def test_instance_adaptive_eps_widens_to_the_whole_budget_where_a_model_withstands():
    objective = Spec("objective", "test_adaptive_eps", {"attack": PGD}).build()
    roles = make_roles("robust")
    roles["robust"].optimizer.param_groups[0]["lr"] = 0.0
    with torch.no_grad():  # it says class 1, whatever the image
        roles["robust"].model[-1].weight.zero_()
        roles["robust"].model[-1].bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
    list(fit(objective, roles, Split(X, Y), epochs=5, batch_size=20))
    assert objective.component.scale[Y == 1].tolist() == pytest.approx([1.0] * int((Y == 1).sum()))
    assert objective.component.scale[Y != 1].abs().max() == 0


def test_temporal_ensembles_are_the_weighted_mean_of_what_was_said():
    objective = Spec("objective", "test_temporal").build()
    roles, said = make_roles("robust"), []
    for _ in range(3):
        said.append(roles["robust"](X[:6]).detach().softmax(1))
        # As if nothing was learnt from it: BatchNorm in training mode does not depend on its running statistics.
        list(update(objective, X[:6], Y[:6], roles, ids=torch.arange(6)))
    weighted = sum(0.4 * 0.6 ** (2 - i) * one for i, one in enumerate(said))
    assert torch.allclose(objective.component.said, weighted, atol=1e-6)
    assert objective.component.times.tolist() == [3] * 6


def test_what_wraps_an_objective_and_gives_no_numbers_is_told():
    from actkit.config.registry import Objective

    @register("objective", "test_silent_wrapper")
    class silent:
        def __init__(self, *, objective: Objective):
            self.inner, self.roles = objective, objective.roles

        def __call__(self, x, y, *models, noise):
            yield from self.inner(x, y, *models, noise=noise)

    inner = Spec("objective", "test_self_adaptive")
    objective = Spec("objective", "test_silent_wrapper", {"objective": inner}).build()
    with pytest.raises(InputError, match="objective.test_self_adaptive asks for the examples' numbers") as told:
        list(update(objective, X, Y, make_roles("robust")))
    assert "ids=ids" in told.value.help

"""Roles beyond one classifier: generators, heads with an extra class, two sets of BatchNorm, losses on features. Each proof has a number."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from actkit.attacks import away_from, pgd
from actkit.attacks.goals import ascend
from actkit.config.registry import Attack, register
from actkit.config.spec import Spec
from actkit.datasets import Data, Split
from actkit.errors import InputError
from actkit.evaluation.examination import probe_checkpoints
from actkit.evaluation.run_files import files_of_run
from actkit.losses import cross_entropy
from actkit.networks import model_files
from actkit.networks.roles import Role
from actkit.networks.trial import assert_takes
from actkit.noise import Noise
from actkit.training.loop import update
from helpers.models import PGD, batch, make_roles, step, tiny
from helpers.runs import CPU, QUICK, Mute, go, recipe

EPS = 0.1

# -- a generator of perturbations ----------------------------------------------------------------------------------------


class Generator(nn.Module):
    """A direction for each image and class, within (-1, 1)."""

    classifies = False

    def __init__(self, shape, classes):
        super().__init__()
        self.takes, self.gives = (shape, (classes,)), shape
        size = shape[0] * shape[1] * shape[2]
        self.mix = nn.Linear(size + classes, size)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x, classes):
        return self.mix(torch.cat([x.flatten(1) - 0.5, classes], 1)).tanh().view_as(x)


@register("objective", "test_generated")
def generated(x, y, robust, generator, *, eps: float, classes: int):
    """The generator climbs the loss of a model that is only consulted."""
    delta = eps * generator(x, nn.functional.one_hot(y, classes).float())
    with robust.frozen("eval") as g:
        yield {generator: -cross_entropy(g((x + delta).clamp(0, 1)), y)}


def test_a_trained_generator_reaches_the_loss_of_pgd_on_a_linear_model_within_a_hundredth():
    torch.manual_seed(0)
    robust = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    network = Generator((1, 8, 8), 2)
    generator = Role("generator", network, optimizer=torch.optim.Adam(network.parameters(), lr=0.1))
    x, y = 0.2 + 0.6 * torch.rand(32, 1, 8, 8), torch.arange(32) % 2
    objective = Spec("objective", "test_generated", {"eps": EPS, "classes": 2}).build()
    for _ in range(100):
        list(update(objective, x, y, {"robust": robust, "generator": generator}))
    with robust.frozen() as g, generator.frozen() as f, torch.no_grad():
        reached = cross_entropy(g(x + EPS * f(x, nn.functional.one_hot(y, 2).float())), y).mean()
    with robust.frozen() as g:
        x_adv = pgd(away_from(g, cross_entropy, y), x, noise=Noise(torch.arange(32)), eps=EPS, step_size=EPS, steps=5)
        best = cross_entropy(g(x_adv), y).mean()
    assert 0.99 * best < reached <= best * (1 + 1e-6)


register("backbone", "test_generator")(lambda num_classes, *, in_chans=3: Generator((in_chans, 8, 8), num_classes))

BESIDE_A_GENERATOR = (
    QUICK.replace("act_digits", "madry_digits")
    + """
run.objective = @objective.test_generated()
objective.test_generated.eps = 0.1
objective.test_generated.classes = 10
generator/role.backbone = @backbone.test_generator()
robust/role.optimizer = None
robust/role.schedule = None
"""
)


def writer(folder):
    def write(name, text):
        (folder / name).write_text(text)
        return folder / name

    return write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("generated")
    go(recipe(writer(place), text=BESIDE_A_GENERATOR), place / "run")
    return place / "run"


def test_a_run_saves_its_generator_and_examines_its_classifier_alone(run):
    assert sorted(p.stem for p in model_files.find(run)) == ["generator", "robust"]
    assert list(files_of_run(run)) == ["robust"]
    [summary] = probe_checkpoints([run], device=CPU, display=Mute())
    assert all(name.models == ["robust"] for name in summary.results)


def test_a_generator_that_is_asked_for_by_its_role_is_no_classifier(run):
    with pytest.raises(InputError, match="'generator' is no classifier"):
        probe_checkpoints([run], roles=["generator"], device=CPU, display=Mute())


def test_a_generator_as_the_headline_model_is_refused(tmp_path):
    text = QUICK.replace("act_digits", "madry_digits") + "robust/role.backbone = @backbone.test_generator()\n"
    with pytest.raises(InputError, match="is 'robust', and .*test_generator.* is no classifier"):
        go(recipe(writer(tmp_path), text=text), tmp_path / "run")


# -- a head with an extra class ------------------------------------------------------------------------------------------


class WithExtraClass(nn.Module):
    gives = (4,)

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 4)

    def forward(self, x):
        return self.fc(x.flatten(1))


def test_a_prediction_of_the_extra_class_counts_as_wrong():
    role = Role("robust", WithExtraClass())
    nn.init.zeros_(role.model.fc.weight)
    role.model.fc.bias.data = torch.tensor([0.0, 0.0, 0.0, 1.0])
    split = Split(torch.rand(6, 1, 8, 8), torch.arange(6) % 3)
    data = Data("made", (1, 8, 8), ("a", "b", "c"), {"test": 6}, lambda name: split)
    assert_takes(role, "backbone.extra", data.shape, data.num_classes)
    assert Spec("probe", "accuracy").build()(role, data).numbers["clean"] == 0


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ({"gives": (2,)}, r"gives \(2,\); a classifier of these data .* gives \(3,\)"),
        ({"gives": (5,)}, r"gives \(2, 4\) for 2 images; what it says is wanted, \(2, 5\)"),
        ({"takes": ((1, 8, 8), (3,))}, "takes 1x8x8 and 3"),
    ],
)
def test_a_network_that_says_what_does_not_fit_is_refused(says, problem):
    role = Role("robust", WithExtraClass())
    for name, value in says.items():
        setattr(role.model, name, value)
    with pytest.raises(InputError, match=problem):
        assert_takes(role, "backbone.extra", (1, 8, 8), 3)


# -- two sets of BatchNorm (AdvProp, Xie et al. 2020; DAJAT, Addepalli et al. 2022) ----------------------------------------


class TwoNorms(nn.Module):
    """A network with a second BatchNorm; `branch` says which one is used."""

    def __init__(self):
        super().__init__()
        self.net = tiny()
        self.adversarial = nn.BatchNorm2d(4)

    def forward(self, x, branch="main"):
        conv, norm, *rest = self.net
        x = (self.adversarial if branch == "adversarial" else norm)(conv(x))
        for layer in rest:
            x = layer(x)
        return x


@register("objective", "test_advprop")
def advprop(x, y, robust, *, attack: Attack, noise):
    with robust.frozen("eval", branch="adversarial") as g:
        x_adv = attack(away_from(g, cross_entropy, y), x, noise=noise)
    yield {robust: cross_entropy(robust(x), y) + cross_entropy(robust(x_adv, branch="adversarial"), y)}


def test_each_set_of_batchnorm_sees_its_own_images_alone():
    model = TwoNorms()
    before = copy.deepcopy(model)
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    step(Spec("objective", "test_advprop", {"attack": PGD}).build(), {"robust": role})
    x, y, noise = batch()
    before.eval()
    attacked = lambda x, rows: (cross_entropy(before(x, branch="adversarial"), y[rows]), None)
    x_adv = PGD.build()(attacked, x, noise=noise)
    for norm, images in ((model.net[1], x), (model.adversarial, x_adv)):
        expected = 0.1 * before.net[0](images).mean((0, 2, 3))
        torch.testing.assert_close(norm.running_mean, expected)
    assert not torch.equal(model.net[1].running_mean, model.adversarial.running_mean)


# -- a loss on the representation ------------------------------------------------------------------------------------------


def test_the_gradient_of_a_loss_on_features_equals_that_of_the_joined_function():
    role = make_roles("robust")["robust"]
    x, y, _ = batch()
    with role.frozen("eval") as g:
        anchor = g.features(x)[1].detach()

        def goal(z, rows):
            logits, features = g.features(z)
            return cross_entropy(logits, y[rows]) + ((features - anchor[rows]) ** 2).sum(1), None

        found = ascend(goal, x + 0.05, slice(None))[2]
    body, head = role.model[:-1].eval(), role.model[-1]
    z = (x + 0.05).requires_grad_()
    joined = cross_entropy(head(body(z)), y) + ((body(z) - body(x).detach()) ** 2).sum(1)
    torch.testing.assert_close(found, torch.autograd.grad(joined.sum(), z)[0])


def test_features_in_training_move_the_weights_as_the_joined_function_does_and_leave_no_hook():
    role = make_roles("robust")["robust"]
    twin = copy.deepcopy(role.model)
    x, _, _ = batch()
    logits, features = role.features(x)
    (logits.sum() + (features**2).sum()).backward()
    own = twin[:-1](x)
    (twin[-1](own).sum() + (own**2).sum()).backward()
    for found, expected in zip(role.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    assert not any(m._forward_pre_hooks for m in role.model.modules())

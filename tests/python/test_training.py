"""`actkit.train`: the loop of recipes on a model that is handed in."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import actkit
from actkit import InputError, Spec
from actkit.networks import model_files
from helpers.runs import CPU, QUICK, go, recipe

X = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1, stride=2), nn.Flatten(), nn.Linear(16, 4))  # fmt: skip


def train(objective="natural", models=None, data=None, **how):
    given = {"epochs": 1, "batch_size": 8, "seed": 0, **how}
    return actkit.train(objective, models or network(), (X, Y) if data is None else data, **given)


def values(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_module_that_is_handed_in_is_trained_in_place():
    model = network()
    before = values(model)
    made = train("natural", model)
    assert made.model is model is made.models["natural"]
    assert not values(model).equal(before)


@pytest.mark.parametrize("how", ["train", "eval"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_but_its_values_comes_back_as_it_was(how, layout):
    model = getattr(network().to(memory_format=layout), how)()
    model[0].requires_grad_(False)

    def about():
        tensors = [(n, t.stride(), t.requires_grad, t.is_contiguous(memory_format=layout)) for n, t in model.named_parameters()]  # fmt: skip
        return tensors, [(m.training, len(m._forward_pre_hooks)) for m in model.modules()], [p.grad for p in model.parameters()]  # fmt: skip

    before = about()
    train("natural", model)
    assert about() == before


def test_parameters_that_the_caller_has_frozen_stay_as_they_are():
    model = network()
    model[0].requires_grad_(False)
    kept = model[0].weight.clone()
    train("natural", model)
    assert model[0].weight.equal(kept)


def test_a_model_without_any_gradient_is_trained_whole():
    model = network().requires_grad_(False)
    before = model[0].weight.clone()
    train("natural", model)
    assert not model[0].weight.equal(before)


def test_data_and_generators_are_left_as_they_were():
    x, y, before = X.clone(), Y.clone(), torch.get_rng_state()
    train("madry", eps=0.1, crop=1, flip=True, data=(x, y))
    assert x.equal(X)
    assert y.equal(Y)
    assert torch.get_rng_state().equal(before)


def test_the_same_seed_gives_the_same_weights_and_another_others():
    made = values(train("madry", eps=0.1).model)
    assert values(train("madry", eps=0.1).model).equal(made)
    assert not values(train("madry", eps=0.1, seed=1).model).equal(made)


def test_a_data_set_of_torchs_trains_as_its_tensors_do():
    assert values(train(data=TensorDataset(X, Y)).model).equal(values(train().model))


def test_its_history_has_a_line_an_epoch_and_it_says_what_it_trained_with():
    made = train("madry", eps="8/255", epochs=2, optimizer="AdamW", lr=0.01, schedule="none")
    assert [line["epoch"] for line in made.history] == [1, 2]
    assert made.history[-1]["lr"] == {"robust": 0.01}
    said = str(made)
    for part in ("attack.pgd(eps='8/255', step_size='2/255', steps=10)", "optimizer.AdamW(lr=0.01), a constant learning rate", "20 training images", "trained in place"):  # fmt: skip
        assert part in said


def test_act_trains_a_second_network_like_the_first_with_new_weights_of_the_seed():
    model = network()
    twin = copy.deepcopy(model)
    made = train("act", model, eps=0.1, steps=1, alpha=0.5)
    assert set(made.models) == {"robust", "natural"}
    assert "natural    Sequential, a copy of robust's network with new weights" in str(made)
    assert values(train("act", twin, eps=0.1, steps=1, alpha=0.5).models["natural"]).equal(
        values(made.models["natural"])
    )


def test_the_second_network_may_be_handed_in_too():
    other = network()
    assert train("act", {"robust": network(), "natural": other}, eps=0.1, steps=1).models["natural"] is other


def test_a_network_with_a_parameter_of_its_own_asks_for_the_second_one():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = network(), nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * self.inner(x)

    with pytest.raises(InputError, match="natural cannot be made from the model that was handed in: scale has no way"):
        train("act", Scaled(), eps=0.1)


def test_a_backbone_is_built_by_its_name():
    made = train("natural", Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]}))
    assert made.model(X).shape == (20, 4)
    assert not made.model.training


def test_a_recipe_trains_to_the_weights_of_actkit_run(write, tmp_path):
    go(recipe(write), tmp_path / "run")
    made = actkit.train(recipe(write))
    (file,) = [f for f in model_files.find(tmp_path / "run") if f.stem == "robust"]
    saved, _ = model_files.load_role(file, device=CPU)
    assert all(saved.model.state_dict()[n].equal(t) for n, t in made.model.state_dict().items())
    assert "run.epochs = 2" in QUICK
    assert len(made.history) == 2


def test_a_loaded_model_is_trained_further():
    model = actkit.load_model("example:act_digits")
    before = values(model)
    data = actkit.as_data("digits")
    made = actkit.train("madry", model, (data.train.images[:64], data.train.labels[:64]), epochs=1, eps=0.15, steps=1, lr=0.01)  # fmt: skip
    assert not values(model).equal(before)
    assert made.model is model
    assert not model.training


@pytest.mark.parametrize(("objective", "step"), [("free", "step_size=0.1"), ("fast", "eps=0.1")])
def test_objectives_that_attack_by_themselves_are_given_the_eps(objective, step):
    assert step in str(train(objective, eps=0.1))


REFUSED = {
    "no epochs": ({"epochs": None}, "for how many epochs"),
    "no eps": ({"objective": "madry"}, "objective.madry attacks while it trains, and nobody says with which budget\n  help: give eps=8/255"),
    "eps without attack": ({"eps": 0.1}, "objective.natural: eps would change nothing: it has no such setting"),
    "a misspelt setting": ({"objective": "act", "eps": 0.1, "alfa": 0.5}, "'objective.act' has no parameter 'alfa'\n  help: did you mean 'alpha'"),
    "a misspelt objective": ({"objective": "madri", "eps": 0.1}, "there is no objective 'madri'\n  help: did you mean 'madry'"),
    "a role that is none": ({"models": {"robust": 1}}, "the objective has no role 'robust'\n  help: its roles are natural"),
    "a misspelt backbone": ({"models": "resnet81"}, "there is no backbone 'resnet81'\n  help: did you mean 'resnet18'"),
    "an optimizer that is none": ({"optimizer": "Adm"}, "there is no optimizer 'Adm'\n  help: did you mean 'Adam'"),
    "a setting of the optimizer": ({"lr": -1.0}, "Invalid learning rate: -1.0"),
    "too few outputs": ({"models": nn.Sequential(nn.Flatten(), nn.Linear(48, 3))}, "natural gives logits of 3 classes, data has 4"),
    "images of another size": ({"models": nn.Sequential(nn.Flatten(), nn.Linear(5, 4))}, "does not take images of 3x4x4"),
    "a last batch of one": ({"models": nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4)), "batch_size": 19}, "end in a batch of one, and natural cannot train on a single image: .*\n  help: batch_size = 18 or 20"),
    "normalised images": ({"data": (torch.randn(4, 3, 4, 4), Y[:4])}, "they look normalised"),
    "an attack beside a recipe": ({"objective": "gin/act_digits.gin", "eps": 0.1}, "the recipe says what it trains with; eps beside it would be two answers"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_trained_is_said_in_a_line_and_the_model_is_untouched(what):
    given, said = REFUSED[what]
    model = network()
    before, modes = values(model), [m.training for m in model.modules()]
    with pytest.raises(InputError, match=said):
        train(**{"models": model, **given})
    assert values(model).equal(before)
    assert [m.training for m in model.modules()] == modes


def test_one_module_in_two_roles_is_refused():
    model = network()
    with pytest.raises(InputError, match="two roles are the same module\n  help: hand in a copy"):
        train("act", {"robust": model, "natural": model}, eps=0.1)

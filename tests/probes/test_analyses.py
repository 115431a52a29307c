"""Weight norms, posterior entropy, information compression: hand-worked values, and what they must tell apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from actkit.datasets import Data, Split, digits
from actkit.errors import ActkitError, InputError
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.probes import compression, entropy, norms


def tiny(weight, bias=None) -> Role:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return Role("robust", nn.Sequential(nn.Flatten(), layer))


def points(values, labels=None) -> Data:
    images = torch.tensor(values).view(-1, len(values[0]), 1, 1)
    split = Split(images, torch.zeros(len(values), dtype=torch.long) if labels is None else torch.tensor(labels))
    return Data(
        "points", (len(values[0]), 1, 1), ("a", "b"), {"train": len(values), "test": len(values)}, lambda name: split
    )


def test_norms_are_those_of_every_weight_matrix_and_of_all_together():
    model = nn.Sequential(nn.Conv2d(1, 1, 2), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2))
    model[0].weight.data = torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]])
    model[3].weight.data = torch.tensor([[5.0], [12.0]])
    numbers = norms(Role("robust", model), digits()).numbers
    assert numbers == {"0": 5.0, "3": 13.0, "total": pytest.approx(math.sqrt(25 + 169)), "mean": 9.0}


def test_entropy_is_the_mean_over_the_training_images_in_nats():
    # Logits 0, log 3 give the posterior 1/4, 3/4; equal logits give log 2; a certain model gives 0.
    data = points([[0.0], [1.0], [0.5]])
    found = entropy(tiny([[0.0], [math.log(3.0)]]), data)
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    root = math.sqrt(3.0)
    half = -sum(p * math.log(p) for p in (1 / (1 + root), root / (1 + root)))
    assert found.numbers["mean"] == pytest.approx((math.log(2) + quarter + half) / 3, abs=1e-7)
    assert found.examples["entropy"].tolist() == pytest.approx([math.log(2), quarter, half], abs=1e-6)
    assert entropy(tiny([[0.0], [1e4]]), points([[1.0]])).numbers["mean"] == 0.0
    assert entropy(tiny([[0.0], [0.0]]), data).numbers["mean"] == pytest.approx(math.log(2))


def test_entropy_of_a_model_that_gives_nan_is_refused_also_beside_a_certain_image():
    class Half(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, -math.inf], [math.nan, 0.0]])

    with pytest.raises(ActkitError, match="NaN"):
        entropy(Role("robust", Half()), points([[0.0], [1.0]]))


def test_norms_see_a_parametrised_layer_and_a_layer_called_total():
    model = nn.Sequential()
    model.add_module("total", torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 1, bias=False)))
    weight = model.total.weight.detach()
    numbers = norms(Role("robust", model), digits()).numbers
    assert numbers["layer total"] == pytest.approx(float(weight.norm())) == numbers["total"]
    assert set(numbers) == {"total", "mean", "layer total"}


class Coins(nn.Module):
    """A representation that is the coin of each image made linear, or a constant one."""

    def __init__(self, tells: bool) -> None:
        super().__init__()
        self.tells, self.head = tells, nn.Linear(4, 2)

    def forward(self, x):
        number = (x.flatten(1)[:, 0] * 200).round().long().cpu()
        coin = Noise(number, 0).integers(2).float()
        feature = coin if self.tells else torch.ones(len(x))
        return self.head(feature[:, None].repeat(1, 4))


def test_compression_tells_a_representation_that_is_the_labels_from_one_that_is_constant():
    data = points([[i / 200] for i in range(200)])
    told = compression(Role("robust", Coins(True)), data, epochs=20, classes=None, draws=1)
    constant = compression(Role("robust", Coins(False)), data, epochs=5, classes=None)
    assert told.numbers["accuracy"] == 1.0
    keys = [(0,), *((0, draw) for draw in range(1, 5))]
    ones = [Noise(torch.arange(200), *key).integers(2).double().mean().item() for key in keys]
    chance = sum(max(one, 1 - one) for one in ones) / 5
    assert constant.numbers["chance"] == pytest.approx(chance) and chance > 0.5
    assert 1 - chance - 1e-9 <= constant.numbers["accuracy"] <= chance + 1e-9  # one answer for all
    known = {"accuracy", "std", "chance", "draws", "images", "features"}
    assert set(told.numbers) == {*known, *(f"epoch {i}" for i in range(1, 21))}
    assert [told.numbers[name] for name in ("draws", "images", "features")] == [1, 200, 4]
    assert constant.numbers["draws"] == 5


def test_compression_is_the_mean_and_the_deviation_over_draws_of_labels():
    model = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))
    found = compression(model, digits(), epochs=3, limit=100, draws=3)
    each = found.examples["correct"].double().mean(1)
    assert found.examples["correct"].shape == (3, 100) and len(set(each.tolist())) > 1
    assert found.numbers["accuracy"] == pytest.approx(float(each.mean()))
    assert found.numbers["std"] == pytest.approx(float(each.std()))
    (curve,) = found.pictures[0].data["series"].values()
    first = compression(model, digits(), epochs=3, limit=100, draws=1)
    assert first.numbers["accuracy"] == pytest.approx(float(each[0])), "the first draw is that of the seed alone"
    assert math.isnan(first.numbers["std"])
    assert curve["low"][-1] < curve["y"][-1] < curve["high"][-1]


def test_the_line_of_chance_stands_where_a_constant_answer_does():
    """Of few images the commoner label has more than a half."""
    found = compression(
        Role("robust", Coins(False)), points([[i / 200] for i in range(9)]), epochs=1, classes=None, draws=1
    )
    heads = int(Noise(torch.arange(9), 0).integers(2).sum())
    (level,) = found.pictures[0].data["levels"]
    assert level["value"] == max(heads, 9 - heads) / 9 != 0.5
    assert level["text"].startswith("a constant answer")


def test_compression_is_the_same_again_and_leaves_torchs_generator_and_the_model_alone():
    model = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), trained=True)
    before, state = {k: v.clone() for k, v in model.model.state_dict().items()}, torch.get_rng_state()
    first = compression(model, digits(), epochs=3, limit=100)
    torch.rand(7)
    assert compression(model, digits(), epochs=3, limit=100).numbers == first.numbers
    assert compression(model, digits(), epochs=3, limit=100, seed=1).numbers != first.numbers
    assert all(before[k].equal(v) for k, v in model.model.state_dict().items())
    assert model.model.training
    torch.set_rng_state(state)
    compression(model, digits(), epochs=1, limit=50)
    assert torch.get_rng_state().equal(state)


def test_a_fit_that_diverges_is_no_compression():
    model = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(ActkitError, match="diverged"):
        compression(model, digits(), epochs=3, limit=50, lr=1e30)


def test_standardised_representations_are_fitted_alike_whatever_their_scale():
    def found(scale, **how):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 10))
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p, std=0.1)
        model[1].weight.data *= scale
        model[1].bias.data *= scale
        return compression(Role("robust", model), digits(), epochs=5, limit=100, **how).numbers

    assert found(64.0) != found(1.0)
    assert found(64.0, standardise=True) == pytest.approx(found(1.0, standardise=True))


def test_no_hidden_layer_is_a_linear_fit():
    model = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    linear, deep = (
        compression(model, digits(), epochs=60, limit=200, hidden=h, draws=1).numbers["accuracy"] for h in ([], None)
    )
    assert linear < deep


def test_compression_keeps_the_images_of_the_first_classes():
    model = Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    train = digits().train
    assert compression(model, digits(), epochs=1).numbers["images"] == int((train.labels < 2).sum())
    assert compression(model, digits(), epochs=1, classes=None).numbers["images"] == len(train)


def test_the_representation_is_what_enters_the_last_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.rand(4, 3, 1, 1)
    with Role("robust", model).representation() as features:
        assert features(x).equal(model[:3](x))


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"draws": 0}, {"lr": 0.0}, {"classes": 0}, {"hidden": [0]}, {"limit": 0}]
)
def test_settings_of_the_fit_that_cannot_be_are_told(settings):
    with pytest.raises(InputError, match=r"at least|positive"):
        compression(tiny([[0.0], [1.0]]), points([[0.0], [1.0]]), **settings)

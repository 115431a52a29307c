"""Fine-tuning: another number of classes, frozen parts, learning rates by part; a run that asks for none of it is as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks.fine_tuning import Parts
from actkit.networks.roles import RoleConfig
from helpers.runs import QUICK, Mute, go, recipe, weights

LENGTH = {"epoch": 4, "batch": 20}
RESNET = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]})


def made(schedule: Spec | None = None, **how):
    config = RoleConfig(
        backbone=RESNET.build(),
        optimizer=Spec("optimizer", "SGD", {"lr": 0.1}).build(),
        schedule=schedule and schedule.build(),
        **how,
    )
    return config.make("robust", num_classes=3, in_chans=1, seed=0, device="cpu", length=LENGTH, precision="fp32")


def train(role, steps: int = 2) -> None:
    for _ in range(steps):
        x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        nn.functional.cross_entropy(role(x), torch.arange(8) % 3).backward()
        role.step()
        role.zero_grad()


def test_frozen_parts_stay_as_they_are_and_their_statistics_too():
    role = made(freeze=["conv1.*", "bn1", "layer1.*"])
    before = {name: value.clone() for name, value in role.model.state_dict().items()}
    train(role)
    with role.frozen("train") as view:
        view(torch.rand(4, 1, 8, 8))
    moved = {n for n, v in role.model.state_dict().items() if not v.equal(before[n])}
    assert not {n for n in moved if n.startswith(("conv1", "bn1", "layer1"))}
    assert any(n.startswith("layer2") for n in moved)
    assert {"fc.weight", "fc.bias"} <= moved
    assert "frozen" in role.notes[0]


def test_in_train_mode_the_view_of_a_frozen_part_is_in_eval_mode_too():
    """An attack through other statistics than the training's own would attack another network."""
    role = made(freeze=["bn1", "layer1", "layer2", "conv1"])
    x = torch.rand(4, 1, 8, 8)
    with role.frozen("train") as view, torch.no_grad():
        assert view(x).equal(role(x))


def test_parts_have_learning_rates_of_their_own_also_under_a_schedule_that_names_its_own():
    role = made(lr_scale={"fc.*": 10.0, "layer1.*": 0.1})
    assert [group["lr"] for group in role.optimizer.param_groups] == pytest.approx([0.1, 0.01, 1.0])
    assert sum(len(group["params"]) for group in role.optimizer.param_groups) == len(list(role.model.parameters()))
    assert role.lr == 0.1
    cyclic = made(Spec("schedule", "OneCycleLR", {"max_lr": 0.5}), lr_scale={"fc.*": 10.0}, schedule_every="batch")
    assert [group["max_lr"] for group in cyclic.optimizer.param_groups] == [0.5, 5.0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"freeze": ["layr1.*"]}, r"robust/role.freeze: 'layr1\.\*' matches no parameter(.|\n)*'layer1'"),
        ({"freeze": ["*"]}, "leaves nothing to train"),
        ({"lr_scale": {"head.*": 10.0}}, r"role.lr_scale: 'head\.\*' matches no parameter"),
        ({"lr_scale": {"fc.*": 0}}, r"must be a positive number, got 0"),
        ({"lr_scale": {"fc.*": 2.0}, "freeze": ["fc.*"]}, "is frozen"),
        ({"classes": "by_name"}, "there are no weights"),
    ],
)
def test_patterns_and_factors_that_mean_nothing_are_refused(how, message):
    with pytest.raises(InputError, match=message):
        made(**how)


def test_without_a_pattern_nothing_is_changed():
    assert Parts.of(RESNET.build()(3, in_chans=1), "robust", [], {}).is_whole
    role = made()
    assert len(role.optimizer.param_groups) == 1
    assert "lr_scale" not in role.optimizer.param_groups[0]
    assert role.notes == []


NAMED = """
from __future__ import annotations
import torch
from actkit import Data, Split, register

@register("dataset")
def three() -> Data:
    \"\"\"Three classes of random images.\"\"\"
    x = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    read = lambda name: Split(x, torch.arange(24) % 3)
    return Data("three", (1, 8, 8), ("a", "b", "c"), {"train": 24, "test": 24}, read)
"""

THREE = "import other.it\n" + QUICK + "run.data = @dataset.three()\nrun.epochs = 1\n"


def test_a_run_starts_from_weights_for_another_number_of_classes_with_a_new_last_layer(write, tmp_path):
    from actkit.config.recipe import load_recipe

    source = tmp_path / "source"
    go(recipe(write, "run.steps=1"), source)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/it.py").write_text(NAMED)
    told = Mute()
    settings = [f"role.weights={source}", "run.steps=1", "optimizer.SGD.lr=1e-9", "optimizer.SGD.weight_decay=0"]
    made = load_recipe(str(write("three.gin", THREE)), settings, plugins=[str(tmp_path / "other")])
    go(made, tmp_path / "run", told)
    assert any("the last layer (fc.weight, fc.bias) begins anew" in note for note in told.notes)
    assert any("the file's is for 10 classes" in note for note in told.notes)
    first, now = weights(source), weights(tmp_path / "run")
    assert now["robust.fc.weight"].shape[0] == 3
    assert torch.allclose(first["robust.layer1.0.conv1.weight"], now["robust.layer1.0.conv1.weight"], atol=1e-6)


def test_weights_of_another_network_say_which_settings_make_it_that_one(write, tmp_path):
    source = tmp_path / "source"
    go(recipe(write, "run.steps=1"), source)
    other = recipe(write, f"role.weights={source}", "backbone.resnet.layers=[1, 2]", "run.steps=1")
    with pytest.raises(InputError, match="the weights are of another network") as caught:
        go(other, tmp_path / "run")
    assert "-s 'role.backbone=@backbone.resnet()' " in caught.value.help
    assert "'backbone.resnet.layers=[1, 1]'" in caught.value.help

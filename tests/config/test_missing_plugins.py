"""Components of plugins that are not here: their Specs are shown and compared, building one raises, and files say which plugin they were saved with."""

from __future__ import annotations

import json

import pytest
import torch

from actkit.config.compare import alike, diff, flat
from actkit.config.plugins import assert_there, plugins_beside, plugins_of
from actkit.config.recipe import open_recipe
from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks import model_files
from actkit.networks.model_files import Header

GONE = Spec("objective", "of_a_plugin", {"beta": 6.0, "attack": Spec("attack", "pgd", {"eps": "8/255"})})


def test_a_spec_of_an_unknown_component_is_shown_compared_and_kept():
    assert repr(GONE) == "objective.of_a_plugin(beta=6.0, attack=attack.pgd(eps='8/255'))"
    assert Spec.from_json(json.loads(json.dumps(GONE.to_json()))) == GONE
    assert GONE.get("beta") == 6.0
    assert GONE.get("gamma", 1) == 1
    assert flat(GONE)["objective.of_a_plugin.beta"] == 6.0
    assert ("objective.of_a_plugin.beta", 6.0, 5.0) in diff(GONE, GONE.replace(beta=5.0))


def test_only_building_an_unknown_component_raises():
    with pytest.raises(InputError, match=r"there is no component 'objective.of_a_plugin'"):
        GONE.build()


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (GONE, GONE.replace(beta=6), True),
        (GONE, GONE.replace(beta=5), False),
        (GONE, GONE.replace(gamma=1), False),
        (Spec("attack", "square", {"eps": "8/255"}), Spec("attack", "square", {"eps": 8 / 255}), True),
        (Spec("probe", "accuracy"), Spec("probe", "accuracy", {"split": "test"}), True),
        (Spec("probe", "accuracy"), Spec("probe", "accuracy", {"split": "val"}), False),
        (Spec("probe", "accuracy", label="x"), Spec("probe", "accuracy"), False),
    ],
)
def test_what_is_left_out_has_its_default_where_the_component_is_here(a, b, same):
    assert alike(a, b) is same
    assert alike([a, GONE], [b, GONE]) is same


def told(saved) -> str:
    with pytest.raises(InputError) as stop:
        assert_there([GONE], saved, where="m.safetensors")
    assert stop.value.message == "'objective.of_a_plugin' is not here"
    assert stop.value.where == "m.safetensors"
    return stop.value.help


def test_a_missing_component_names_the_distribution_and_version_that_it_was_saved_with():
    assert told({"actkit-gone": "0.3.1"}).startswith(
        "it was saved with actkit-gone 0.3.1: pip install actkit-gone==0.3.1 if you trust it"
    )
    assert "--plugins mine" in told({"mine/": ""})
    assert "nothing here says which" in told({})


def test_of_several_plugins_those_that_are_here_are_left_out():
    """click stands for a plugin that is installed."""
    from importlib.metadata import version

    said = told({"click": version("click"), "actkit-gone": "0.3.1"})
    assert "actkit-gone==0.3.1" in said
    assert "click" not in said


def test_another_version_than_the_saved_one_is_told():
    assert "is installed" in told({"click": "0.0.1"})


def test_a_file_proposes_no_command_of_its_own_making():
    assert "curl" not in told({"x; curl evil | sh": "1"})


def test_actkits_own_components_come_from_no_plugin():
    assert plugins_of([Spec("attack", "pgd", {"eps": 0.1}), Spec("optimizer", "SGD"), GONE]) == {}


def test_a_model_file_says_whose_its_network_is(tmp_path):
    """And an older file, which does not, is read as before."""
    example = next(model_files.EXAMPLES.glob("act_digits/checkpoints/*/robust.safetensors"))
    old = model_files.header(example)
    assert old.plugins == {}
    network = Spec("backbone", "of_a_plugin", {"width": 4})
    data = {**old.to_json(), "backbone": network.to_json(), "plugins": {"actkit-gone": "0.3.1"}}
    made = Header.from_json(data)
    assert made.to_json()["plugins"] == {"actkit-gone": "0.3.1"}
    file = tmp_path / "m.safetensors"
    model_files.save_tensors({"w": torch.zeros(1)}, file, made.metadata())
    with pytest.raises(InputError) as stop:
        model_files.load_role(file)
    assert stop.value.message == "'backbone.of_a_plugin' is not here"
    assert "actkit-gone==0.3.1" in stop.value.help


def test_actkit_probe_says_which_plugin_to_install(tmp_path, actkit):
    example = next(model_files.EXAMPLES.glob("act_digits/checkpoints/*/robust.safetensors"))
    probe = Spec("probe", "of_a_plugin")
    data = {
        **model_files.header(example).to_json(),
        "evaluation": [probe.to_json()],
        "plugins": {"actkit-gone": "0.3.1"},
    }
    file = tmp_path / "m.safetensors"
    model_files.save_tensors(model_files.read(example)[0], file, {"actkit": json.dumps(data)})
    said = actkit("probe", "--ckpt", file)
    assert said.code == 2
    assert "'probe.of_a_plugin' is not here" in said.err
    assert "pip install actkit-gone==0.3.1" in said.err
    assert actkit("probe", "--ckpt", file, "--probe", "norms").code == 0


def test_a_runs_own_recipe_says_which_plugin_it_was_trained_with(tmp_path, actkit):
    (tmp_path / "config.gin").write_text("run.objective = @objective.of_a_plugin()\nobjective.of_a_plugin.beta = 6.0\n")
    (tmp_path / "config.json").write_text(
        json.dumps({"spec": "run", "kwargs": {}, "plugins": {"actkit-gone": "0.3.1"}})
    )
    with pytest.raises(InputError) as stop:
        open_recipe(str(tmp_path / "config.gin"))
    assert len(stop.value.problems) == 1
    assert stop.value.message == "'objective.of_a_plugin' is not here"
    assert f"{tmp_path / 'config.gin'}:1" in stop.value.where
    assert "actkit-gone==0.3.1" in stop.value.help


def test_a_recipe_in_a_plugins_folder_says_which_folder(tmp_path):
    place = tmp_path / "mine"
    (place / "gin").mkdir(parents=True)
    (place / "__init__.py").touch()
    (place / "gin/r.gin").write_text("run.objective = @objective.of_a_plugin()\n")
    assert plugins_beside(place / "gin/r.gin") == {f"{place}/": ""}
    with pytest.raises(InputError) as stop:
        open_recipe(str(place / "gin/r.gin"))
    assert f"--plugins {place}" in stop.value.help


def test_an_unknown_name_may_be_a_plugins(tmp_path):
    recipe = tmp_path / "r.gin"
    recipe.write_text("include 'act_digits.gin'\nrun.objective = @objective.madri()\n")
    with pytest.raises(
        InputError, match=r"did you mean 'objective.madry' or .*\(a plugin's is there once that is installed"
    ):
        open_recipe(str(recipe)).recipe()


PLUGIN = """
from __future__ import annotations
from torch import nn
from actkit import register

@register("backbone")
def of_a_folder(num_classes, *, in_chans=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_chans, num_classes))
"""


def test_a_training_writes_down_the_folder_that_its_network_came_from(warm, tmp_path, quick):
    """In a process whose registry is its own."""
    import subprocess

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/net.py").write_text(PLUGIN)
    settings = ["-s", "role.backbone=@backbone.of_a_folder()", "-s", "run.epochs=1", "-s", "run.evaluation=[]"]
    command = [
        warm,
        "-m",
        "actkit",
        "run",
        str(quick),
        *settings,
        "--out",
        "run",
        "--plugins",
        "mine",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/config.json").read_text())["plugins"] == {"mine/": ""}
    assert "actkit probe --ckpt run --plugins mine" in done.stderr
    (file,) = tmp_path.glob("run/checkpoints/*/robust.safetensors")
    assert model_files.header(file).plugins == {"mine/": ""}


@pytest.mark.parametrize("name", ["-r/tmp/evil", "--index-url=x", "", "/tmp/evil", "\u0440\u0430ckage"])
def test_what_a_file_calls_its_plugin_never_becomes_an_option_or_a_path_of_pip(name):
    assert "pip install" not in told({name: "1.0"})

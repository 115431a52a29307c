"""`actkit import` at the command line: what is said, what is refused, and what its file says of itself."""

from __future__ import annotations

import shlex

import pytest
import torch

from actkit.config.recipe import load_recipe
from actkit.config.spec import Spec
from actkit.networks import model_files

NETWORK = ["--arch", "resnet", "-s", "backbone.resnet.width=4", "-s", "backbone.resnet.layers=[1,1]"]


@pytest.fixture
def take(tmp_path, actkit, monkeypatch):
    """Import the state dict of a small ResNet, as `content` makes it, with these arguments."""
    monkeypatch.chdir(tmp_path)

    def call(*args, content=lambda state: state):
        torch.manual_seed(0)
        net = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]}).build()(10, in_chans=3)
        torch.save(content(net.state_dict()), "m.pt")
        return actkit("import", "m.pt", *NETWORK, *args)

    return call


def header():
    return model_files.header(model_files.Path("m.safetensors"))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("half", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ],
)
def test_a_normalisation_has_a_name(take, name, mean, std):
    said = take("--normalise", name)
    assert said.code == 0, said.err
    backbone = header().backbone
    assert (backbone.kwargs["mean"], backbone.kwargs["std"]) == (mean, std)
    assert "no normalisation" not in said.out
    assert f"normalised inside with mean {mean}" in header().contract


def test_where_none_is_named_and_none_found_it_is_said_what_that_does(take):
    said = take()
    assert said.code == 0, said.err
    assert "no normalisation is in the file and none was given" in said.out
    assert "--normalise none" in said.out
    assert "warning: it takes [0,1] images as they are; if it was trained on normalised images" in said.err
    assert "images in [0,1], NCHW, 3x32x32" in header().contract
    assert "10 classes: airplane, automobile, bird, ..., truck" in header().contract


def test_that_there_is_none_can_be_said(take):
    said = take("--normalise", "none")
    assert "normalisation" not in said.out and "normalised" not in said.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--mean", "125.3,123.0,113.9", "--std", "63.0,62.1,66.7"],
            "--mean 0.4914,0.4824,0.4467 --std 0.2471,0.2435,0.2616",
        ),
        (["--mean", "123.7,116.8,103.9", "--std", "1,1,1"], "would be for pixels of 0..255"),
        (["--mean", "nan,0.4,0.4", "--std", "0.2,0.2,0.2"], "must be finite numbers"),
        (["--mean", "-0.1,0.4,0.4", "--std", "0.2,0.2,0.2"], "must be for images in [0,1]"),
        (["--mean", "0.4,0.4,0.4", "--std", "0,0.2,0.2"], "positive deviations"),
        (["--normalise", "cifar"], "did you mean 'cifar10'"),
        (["--normalise", "cifar10", "--mean", "0.4,0.4,0.4", "--std", "0.2,0.2,0.2"], "says the same"),
        (["--rename", "fc"], "OLD=NEW is wanted"),
        (["--classes", "a,b"], "--classes names 2 classes, the model has 10"),
        (["--classes", "a,b,c,d,e,f,g,h,i,a"], "names a class twice"),
        (["--ignore", "nothing.*"], "matches no entry"),
        (["--prefix", "module"], "no entry begins with the prefix 'module.'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(take, tmp_path, args, message):
    said = take(*args)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "m.safetensors").exists()


def test_classes_are_named_in_the_models_own_order(take, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(["j", "i", "h", "g", "f", "e", "d", "c", "b", "a"]))
    assert take("--classes", "names.txt").code == 0
    assert header().classes == tuple("jihgfedcba")


def test_of_several_sets_of_weights_the_one_that_fits_is_taken_and_the_rest_said(take):
    said = take(
        content=lambda state: {"g": state, "d": {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2)}, "epoch": 3}
    )
    assert said.code == 0, said.err
    assert "beside these weights the file holds d, epoch: left out" in said.out
    assert header().imported.key == "g"


def test_values_among_the_weights_that_are_no_tensors_are_said(take):
    said = take(content=lambda state: {**state, "n_classes": 10})
    assert "beside these weights the file holds n_classes" in said.out


def test_the_settings_that_are_printed_make_a_recipes_network_that_of_the_file(take):
    said = take("--normalise", "half")
    options = shlex.split(said.err.partition("actkit run RECIPE ")[2].replace("\\\n", " "))
    recipe = load_recipe("gin/natural_digits.gin", [text for text in options if text != "-s"])
    role = recipe.spec.kwargs["roles"]["natural"]
    assert role.kwargs["weights"] == "m.safetensors"
    assert role.kwargs["backbone"].to_json() == header().backbone.to_json()

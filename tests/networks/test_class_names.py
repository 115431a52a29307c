"""Classes are compared by name wherever a model and data meet; another order needs to be asked for, and then moves the outputs."""

from __future__ import annotations

import pytest
import torch

from actkit.config.spec import Spec
from actkit.datasets import CLASSES
from actkit.errors import InputError
from actkit.networks import model_files
from actkit.networks.class_names import agree, order
from actkit.networks.first_weights import start_from
from actkit.networks.model_files import Header
from actkit.networks.roles import Role

WHO = ("the model", "the data")


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        (["cat", "dog"], ["cat", "dog"], True),
        (["Cat", "hot_dog"], ["cat", "hot dog"], True),
        (["cat", "dog"], ["dog", "cat"], False),
        (["cat", "dog"], ["cat", "cow"], False),
        (["0", "1"], ["cat", "dog"], True),
        (["class 0", "class 1"], ["cat", "dog"], True),
        ([], ["cat", "dog"], True),
        (["cat", "dog"], ["cat", "dog", "cow"], False),
    ],
)
def test_names_that_are_absent_or_numbers_conflict_with_nothing(a, b, alike):
    assert agree(a, b) is alike
    assert agree(b, a) is alike


def test_another_order_is_refused_unless_it_is_said_how():
    with pytest.raises(
        InputError, match="2 classes each, in another order: class 0 is 'a' in the model, 'b' in the data"
    ):
        order(["a", "b"], ["b", "a"], None, who=WHO)
    assert order(["a", "b", "c"], ["c", "a", "b"], "by_name", who=WHO) == [2, 0, 1]
    assert order(["a", "b"], ["b", "a"], "by_number", who=WHO) is None
    with pytest.raises(InputError, match="2 classes each, with other names"):
        order(["a", "b"], ["a", "x"], None, who=WHO)
    with pytest.raises(InputError, match="the model has no class 'x'"):
        order(["a", "b"], ["a", "x"], "by_name", who=WHO)


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def model_file(path, classes, *, data="named", seed=0):
    """A network for 8x8 images whose header says these names of classes."""
    torch.manual_seed(seed)
    backbone = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]})
    about = Header(
        role="robust",
        roles=("robust",),
        backbone=backbone,
        num_classes=len(classes),
        classes=tuple(classes),
        shape=(1, 8, 8),
        data=Spec("dataset", data),
        evaluation=(Spec("probe", "accuracy", {"limit": 20}),),
        seed=0,
        epoch=1,
        step=1,
    )
    model_files.save_tensors(backbone.build()(len(classes), in_chans=1).state_dict(), path, about.metadata())
    return path


@pytest.fixture
def named(tmp_path):
    """A plugin's data set: digits whose classes are words."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/it.py").write_text(
        f'''
from __future__ import annotations
import dataclasses
from actkit import register
from actkit.datasets import Data, digits

@register("dataset")
def named() -> Data:
    """Digits with names."""
    return dataclasses.replace(digits(), name="named", classes={DIGITS!r})
'''
    )
    return str(tmp_path / "mine")


def test_probe_compares_the_names_and_puts_outputs_into_the_datas_order(tmp_path, actkit, named):
    same = model_file(tmp_path / "same.safetensors", DIGITS)
    said = actkit("probe", "--ckpt", same, "--plugins", named, "--json")
    assert said.code == 0, said.err
    turned = DIGITS[::-1]
    weights, _ = model_files.read(same)
    other = model_file(tmp_path / "turned.safetensors", turned)
    head = {name: value.flip(0) if name.startswith("fc.") else value for name, value in weights.items()}
    model_files.save_tensors(head, other, model_files.header(other).metadata())
    refused = actkit("probe", "--ckpt", other, "--plugins", named)
    assert refused.code == 2
    assert "10 classes each, in another order: class 0 is 'nine' in turned, 'zero' in named" in refused.err
    assert "--classes by_name" in refused.err
    by_name = actkit("probe", "--ckpt", other, "--plugins", named, "--classes", "by_name", "--json")
    assert by_name.code == 0, by_name.err
    import json

    numbers = [
        json.loads(s.out)[0]["results"][f"{one}.accuracy"]["numbers"]
        for one, s in (("same", said), ("turned", by_name))
    ]
    assert numbers[0] == numbers[1]


def test_probe_says_what_the_model_takes(tmp_path, actkit, named):
    said = actkit("probe", "--ckpt", model_file(tmp_path / "m.safetensors", DIGITS), "--plugins", named)
    assert "images in [0,1], NCHW, 1x8x8" in said.err
    assert "10 classes: zero, one, two, ..., nine" in said.err


def test_transfer_between_models_whose_classes_differ_is_refused_where_the_data_have_no_names(tmp_path, actkit):
    """digits' classes are numbers, so nothing in the data could tell."""
    a = model_file(tmp_path / "a.safetensors", DIGITS, data="digits")
    b = model_file(tmp_path / "b.safetensors", DIGITS[::-1], data="digits", seed=1)
    said = actkit("probe", "--ckpt", a, "--ckpt", b, "--probe", "accuracy", "-s", "probe.accuracy.limit=10")
    assert said.code == 2
    assert "in another order" in said.err


def test_export_under_the_name_of_a_data_set_keeps_that_data_sets_order(tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turned = model_file(tmp_path / "m.safetensors", CLASSES["cifar10"][::-1], data="digits")
    said = actkit("export", turned, "--dataset", "cifar10", "--name", "a")
    assert said.code == 2
    assert "in another order: class 0 is 'truck' in the model, 'airplane' in cifar10" in said.err
    assert actkit("export", turned, "--dataset", "cifar10", "--name", "b", "--classes", "by_name").code == 0
    weights, _ = model_files.read(tmp_path / "exports/b/model.safetensors")
    assert weights["fc.bias"].equal(model_files.read(turned)[0]["fc.bias"].flip(0))
    assert model_files.header(tmp_path / "exports/b/model.safetensors").classes == tuple(CLASSES["cifar10"])


def test_first_weights_for_the_same_classes_in_another_order_are_moved_or_refused(tmp_path):
    path = model_file(tmp_path / "m.safetensors", ("a", "b", "c"))
    held, _ = model_files.read(path)
    backbone = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]}).build()
    role = Role("robust", backbone(3, in_chans=1))
    with pytest.raises(InputError, match=r"in another order(.|\n)*role.classes = 'by_name'"):
        start_from(role, path, backbone, ("c", "a", "b"), None)
    (note,) = start_from(role, path, backbone, ("c", "a", "b"), "by_name")
    assert "into the data's order" in note
    assert role.model.fc.weight.equal(held["fc.weight"][[2, 0, 1]])
    assert start_from(role, path, backbone, ("c", "a", "b"), "by_number") == []
    assert role.model.fc.weight.equal(held["fc.weight"])

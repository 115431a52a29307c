"""What a model file says of itself, as a file and back; a file that says something else is refused in one line."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from actkit.errors import InputError
from actkit.networks import model_files
from actkit.networks.model_files import Header

EXAMPLE = next(model_files.EXAMPLES.glob("act_digits/checkpoints/*/robust.safetensors"))
IMPORTED = {"file": "theirs.pt", "sha256": "ab", "key": "model", "notes": ["left out 3 entries"]}


def example() -> dict:
    """What the example model's file says, as it stands there: a file of the first format."""
    return model_files.read(EXAMPLE, tensors=False)[1]


def written(folder, data) -> object:
    file = folder / "m.safetensors"
    model_files.save_tensors({"w": torch.zeros(1)}, file, {"actkit": json.dumps(data)})
    return file


def imported() -> dict:
    return {**example(), "objective": "", "seed": None, "epoch": None, "step": None, "imported": IMPORTED}


@pytest.mark.parametrize(
    "data", [example(), imported(), {**example(), "later": [1]}], ids=["a run's", "imported", "a later actkit's"]
)
def test_a_header_comes_back_byte_for_byte(data, tmp_path):
    found = model_files.header(written(tmp_path, data))
    assert found.metadata() == {"actkit": json.dumps(data)}
    assert Header.from_json(found.to_json()) == found


def test_the_example_models_header_is_typed():
    found = model_files.header(EXAMPLE)
    assert (found.role, found.roles, found.shape, found.num_classes) == ("robust", ("robust", "natural"), (1, 8, 8), 10)
    assert (found.is_headline, found.objective_name, found.step) == (True, "act", 720)
    assert [spec.title for spec in found.evaluation] == ["accuracy", "pgd20", "audit"]
    assert found.backbone.name == "resnet"


def test_an_average_is_a_role_of_its_own(tmp_path):
    data = {**example(), "role": "robust.ema", "roles": ["robust", "natural", "robust.ema"]}
    found = model_files.header(written(tmp_path, data))
    assert (found.role, found.is_headline) == ("robust.ema", False)


def test_a_file_may_leave_out_what_older_ones_left_out(tmp_path):
    data = {k: v for k, v in example().items() if k not in ("format", "classes", "objective", "versions")}
    found = model_files.header(written(tmp_path, data))
    assert (found.classes, found.objective, found.versions) == ((), "", {})


def no_plain(*names):
    return [(name, f"{name!r} is no plain name") for name in names]


def role(name):
    return {"role": name, "roles": [name]}


MUTANTS = {
    **{f"a role called {name!r}": (role(name), said) for name, said in no_plain("../robust", "/etc/x", "a/b", "robust ema", ".hidden", "a..b", "1", "a\\b")},
    **{f"an objective called {name!r}": ({"objective": f"objective.{name}()"}, said) for name, said in no_plain("../../x", "a/b")},
    "another role beside it": ({"roles": ["robust", "../x"]}, "'../x' is no plain name"),
    "a role that is none of the roles": ({"role": "teacher"}, "the role 'teacher' is none of robust, natural"),
    "a role of a number": ({"role": 3}, "role: should be str, got 3 (int)"),
    "roles of a text": ({"roles": "robust"}, "roles: should be"),
    "no roles": ({"roles": []}, "is none of"),
    "a backbone of a text": ({"backbone": "resnet18"}, "backbone: should be a component, got 'resnet18' (str)"),
    "a backbone without settings": ({"backbone": {"spec": "backbone.resnet18"}}, "backbone: should be a component"),
    "settings in a list": ({"backbone": {"spec": "backbone.resnet18", "kwargs": []}}, "backbone: should be a component"),
    "a probe as a backbone": ({"backbone": {"spec": "probe.accuracy", "kwargs": {}}}, "probe.accuracy should be a backbone"),
    "a backbone as data": ({"data": {"spec": "backbone.resnet18", "kwargs": {}}}, "backbone.resnet18 should be a dataset"),
    "data of null": ({"data": None}, "data: should be a component"),
    "a component inside that is none": ({"data": {"spec": "dataset.holdout", "kwargs": {"data": {"spec": []}}}}, "data: should be a component"),
    "an evaluation of one probe": ({"evaluation": {"spec": "probe.accuracy", "kwargs": {}}}, "evaluation: should be"),
    "a label that leads elsewhere": ({"evaluation": [{"spec": "probe.accuracy", "kwargs": {}, "label": "../x"}]}, "'../x' is no plain name"),
    "a label of a number": ({"evaluation": [{"spec": "probe.accuracy", "kwargs": {}, "label": 1}]}, "evaluation[0]: should be a component"),
    "classes of numbers": ({"classes": [0, 1]}, "classes[0]: should be str"),
    "ten classes as a text": ({"num_classes": "10"}, "num_classes: should be int"),
    "classes that are true": ({"num_classes": True}, "num_classes: should be int"),
    "no class": ({"num_classes": 0}, "num_classes = 0"),
    "a flat image": ({"shape": [8, 8]}, "shape: should be"),
    "an image of fractions": ({"shape": [1, 8.0, 8]}, "shape[1]: should be int"),
    "an image of nothing": ({"shape": [1, 0, 8]}, "shape = [1, 0, 8]"),
    "an image without end": ({"shape": [1, 10**9, 8]}, "shape = [1, 1000000000, 8]"),
    "a seed of a text": ({"seed": "0"}, "seed: should be int"),
    "no step and no origin": ({"step": None}, "nor where it was imported from"),
    "versions of a text": ({"versions": "0.1.0"}, "versions: should be"),
    "an origin of a text": ({"imported": "theirs.pt"}, "imported: should be an object"),
    "an origin without a sum": ({"imported": {"file": "theirs.pt"}}, "imported: it lacks 'sha256'"),
    "a later format": ({"format": "9"}, "it has format 9, this actkit reads 1"),
    "an objective of null": ({"objective": None}, "objective: should be str"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MUTANTS.values(), ids=MUTANTS)
def test_a_file_that_says_something_else_is_refused_in_one_line(change, message, tmp_path):
    file = written(tmp_path, copy.deepcopy(example()) | change)
    with pytest.raises(InputError) as raised:
        model_files.header(file)
    assert message in raised.value.message
    assert raised.value.where == str(file)
    assert len(raised.value.message.splitlines()) == 1


@pytest.mark.parametrize("key", ["num_classes", "shape", "data", "evaluation", "seed", "epoch", "step"])
def test_what_a_header_lacks_is_named(key, tmp_path):
    data = example()
    del data[key]
    with pytest.raises(InputError, match=f"it lacks '{key}'"):
        model_files.header(written(tmp_path, data))


@pytest.mark.parametrize("data", [None, 3, [], "x", {}, {"role": "robust"}])
def test_a_file_that_describes_no_model_is_said_to_be_anothers(data, tmp_path):
    with pytest.raises(InputError, match="no description of its model"):
        model_files.header(written(tmp_path, data))


def test_a_header_that_nests_without_end_is_refused(tmp_path):
    file = tmp_path / "m.safetensors"
    model_files.save_tensors({"w": torch.zeros(1)}, file, {"actkit": "[" * 200_000})
    with pytest.raises(InputError, match="nests without end"):
        model_files.header(file)


def test_nothing_is_written_outside_by_a_files_own_names(tmp_path, actkit):
    """A role that is a path would be the name of a result's file."""
    file = written(tmp_path, {**example(), **role("../../outside")})
    said = actkit("probe", "--ckpt", file, "--out", tmp_path / "a/b")
    assert said.code == 2
    assert "no plain name" in said.err and "Traceback" not in said.err

"""A run's own files: where its models lie, which the manifest says; a recipe that is damaged is told in one line, whoever reads it."""

from __future__ import annotations

import json
import shutil

import pytest

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.evaluation.run_files import files_of_run, last_files_of_run, spec_of_run
from actkit.networks.model_files import EXAMPLES
from actkit.training.execute import execute
from helpers.finished import finished_run
from helpers.runs import CPU, Mute, recipe

DAMAGED = {
    "cut short": '{"spec": "run", "kwa',
    "a list": "[]",
    "without a name": '{"kwargs": {}}',
    "with a list of settings": '{"spec": "run", "kwargs": []}',
    "with damage inside": '{"spec": "run", "kwargs": {"data": {"spec": 3, "kwargs": {}}}}',
    "of something else": '{"spec": "dataset.digits", "kwargs": {}}',
    "no text": b"\xff\xfe\x00",
}


@pytest.fixture(params=DAMAGED.values(), ids=DAMAGED)
def damaged(request, tmp_path):
    folder = finished_run(tmp_path / "run")
    text = request.param if isinstance(request.param, bytes) else request.param.encode()
    (folder / "config.json").write_bytes(text)
    return folder


def test_a_runs_recipe_is_read_as_it_was_written(tmp_path):
    folder = finished_run(tmp_path / "run", seed=3)
    assert spec_of_run(folder) == Spec.from_json(json.loads((folder / "config.json").read_text()))
    assert spec_of_run(folder).kwargs["seed"] == 3


def test_a_damaged_recipe_of_a_run_is_told(damaged):
    with pytest.raises(InputError, match=r"this run's config.json cannot be read"):
        spec_of_run(damaged)


def test_whoever_compares_or_reports_or_goes_on_with_a_damaged_run_is_told(actkit, damaged, write):
    for command in (["config", "diff", damaged, damaged], ["report", damaged]):
        said = actkit(*command)
        assert said.code == 2
        assert "this run's config.json cannot be read" in said.err
    with pytest.raises(InputError, match=r"this run's config.json cannot be read"):
        execute(recipe(write), out=str(damaged), device=CPU, display=Mute(), command="")


def test_a_file_that_the_manifest_does_not_name_is_no_model_of_the_run(tmp_path):
    run = shutil.copytree(EXAMPLES / "act_digits", tmp_path / "run")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    shutil.copy(checkpoint / "robust.safetensors", checkpoint / "another.safetensors")
    assert list(files_of_run(run)) == ["robust", "natural"]


def test_a_run_whose_last_checkpoint_is_the_chosen_one_has_no_other_models(tmp_path):
    run = shutil.copytree(EXAMPLES / "act_digits", tmp_path / "run")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    (run / "checkpoints/best").write_text(checkpoint.name)
    assert last_files_of_run(run) == {}

"""A last batch of one image: refused before anything is trained where a network cannot train on it, by the dry run too."""

from __future__ import annotations

import pytest

from actkit.errors import InputError
from helpers.images import folder
from helpers.runs import go, recipe

# BatchNorm at its end sees one pixel of an image of 32.
DEEP = """
include 'natural_digits.gin'
run.epochs = 1
run.batch_size = 16
run.monitor = []
run.evaluation = [@probe.accuracy()]
run.data = @dataset.imagefolder()
dataset.imagefolder.root = '{root}'
dataset.imagefolder.crop = 0
role.backbone = @backbone.resnet18()
backbone.resnet18.stem = 'imagenet'
"""


@pytest.fixture
def deep(tmp_path):
    return DEEP.format(root=folder(tmp_path / "d", size=(32, 32), per_class=11, classes=("a", "b", "c")))


def test_it_is_refused_with_sizes_that_would_do_and_leaves_no_folder(deep, write, tmp_path):
    with pytest.raises(InputError, match="33 training images in batches of 16 end in a batch of one") as told:
        go(recipe(write, text=deep), tmp_path / "runs/there")
    assert told.value.help == "run.batch_size = 15 or 17"
    assert not (tmp_path / "runs").exists()


def test_a_part_of_one_image_is_refused_too_with_what_would_do(deep, write, tmp_path):
    with pytest.raises(InputError, match="batches of 15 in 2 parts each come to a part of one image") as told:
        go(recipe(write, "run.batch_size=15", "run.accumulate=2", text=deep), tmp_path / "run")
    assert told.value.help == "run.batch_size = 14 or 13 or a smaller run.accumulate"


def test_a_dry_run_refuses_it_too(deep, write, actkit):
    said = actkit("run", write("deep.gin", deep), "--dry-run", "--device", "cpu")
    assert said.code == 2
    assert "end in a batch of one" in said.err


@pytest.mark.parametrize("setting", ["run.steps=2", "run.batch_size=17", "backbone.resnet18.stem=cifar"])
def test_it_is_no_matter_where_it_is_not_reached_or_can_be_normalised(setting, deep, write, tmp_path):
    steps = [] if setting.startswith("run.steps") else ["run.steps=1"]
    settings = [setting, *steps, "probe.accuracy.limit=2"]
    assert go(recipe(write, *settings, text=deep), tmp_path / "run").exit_code == 0


def test_a_refused_try_leaves_what_was_there(deep, write, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError):
        go(recipe(write, text=deep), tmp_path / "run")
    assert (tmp_path / "run").is_dir()


def test_unreadable_images_leave_no_folder(deep, write, tmp_path):
    (tmp_path / "d/train/a/0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="not a readable image"):
        go(recipe(write, "run.steps=1", text=deep), tmp_path / "run")
    assert not (tmp_path / "run").exists()

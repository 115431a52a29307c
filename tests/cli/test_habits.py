"""What people type out of habit works: plurals, bare names, examples in the help, one clear line for a mistake."""

from __future__ import annotations

import json
import os
import re
import shlex

import click
import pytest
import torch

from actkit import cross_entropy, register
from actkit.cli.group import main
from actkit.config.recipe import load_recipe
from helpers.images import folder, photographs

# A step of a small network on 90 images.
SMALL = [
    part
    for setting in (
        "dataset.digits.test_fraction=0.95", "backbone.resnet.width=2", "run.steps=1", "run.monitor=[]", "run.evaluation=[accuracy]", "probe.accuracy.limit=50",
    )
    for part in ("-s", setting)
]  # fmt: skip


@pytest.mark.parametrize(("typed", "same"), [
    (["attacks"], ["attack"]), (["Datasets"], ["dataset"]), (["schedules"], ["schedule"]), (["recipe"], ["recipes"]), (["plugin"], ["plugins"]),
    (["attacks", "pgd"], ["attack", "pgd"]), (["pgd"], ["attack", "pgd"]), (["attack.pgd"], ["attack", "pgd"]),
])  # fmt: skip
def test_list_takes_a_kind_as_it_is_typed(actkit, monkeypatch, typed, same):
    monkeypatch.setenv("ACTKIT_DISABLE_PLUGINS", "1")
    said, wanted = actkit("list", *typed), actkit("list", *same)
    assert (said.code, said.out, said.err) == (0, wanted.out, wanted.err)


def test_list_run_shows_the_settings_of_a_run_itself(actkit):
    out = actkit("list", "run").out
    assert re.search(r"^  epochs +int +required$", out, re.M)
    assert re.search(r"^  monitor +a list of probe +default none$", out, re.M)
    assert "run.objective = ..." in out
    assert re.search(r"^  optimizer +an optimizer or None +default None$", actkit("list", "role").out, re.M)


def test_what_is_no_kind_and_no_component_gets_the_nearest_of_both(actkit):
    assert "did you mean 'attack'" in actkit("list", "atacks").err
    assert "did you mean 'square'" in actkit("list", "sqare").err
    assert "'run' has settings, and no components" in actkit("list", "run", "epochs").err


def test_recipes_are_listed_before_evaluations_and_parts(actkit):
    said = {one["recipe"]: one["use"] for one in json.loads(actkit("list", "recipes", "--json").out)}
    assert said["gin/act_digits.gin"] == said["gin/studies/cifar10_small.gin"] == "run"
    assert said["gin/evaluation_table2.gin"] == "evaluation"
    assert (
        said["gin/cifar10.gin"] == said["gin/defences/act.gin"] == said["gin/studies/cifar10_small/base.gin"] == "part"
    )
    recipes, evaluations, parts = actkit("list", "recipes").out.split("\n\n")
    assert recipes.startswith("RECIPE") and "gin/cifar10.gin" not in recipes
    assert evaluations.startswith("EVALUATION") and parts.startswith("PART") and "gin/cifar10.gin" in parts


@pytest.mark.parametrize(
    ("file", "what"),
    [("gin/cifar10.gin", "a part that recipes include"), ("gin/evaluation_table2.gin", "an evaluation")],
)
def test_a_part_that_is_run_is_called_what_it_is(actkit, file, what):
    said = actkit("run", file)
    assert said.code == 2
    assert said.err.splitlines()[0].endswith(f"{file} is {what}, and cannot be run: it says nothing of run.objective")
    assert len(said.err.splitlines()) == 2


@pytest.mark.parametrize("recipe", ["gin/act_digits.gin", "gin/act_moons.gin", "gin/own_images.gin"])
def test_what_is_listed_as_a_recipe_says_all_that_a_run_needs(recipe):
    assert load_recipe(recipe).spec.kwargs["roles"]


@pytest.mark.parametrize(
    ("setting", "path", "shown"),
    [
        ("run.data=moons", ["data"], "dataset.moons()"),
        ("run.objective=natural", ["objective"], "objective.natural()"),
        ("role.optimizer=AdamW", ["roles", "robust", "optimizer"], "optimizer.AdamW"),
        ("objective.act.attack=fgsm", ["objective", "attack"], "attack.fgsm(eps=0.15)"),
        ("run.evaluation=[accuracy, norms]", ["evaluation"], "[probe.accuracy(), probe.norms()]"),
        ("run.evaluation=[first/accuracy]", ["evaluation"], "[probe.accuracy()]"),
    ],
)
def test_a_component_stands_by_its_bare_name_on_the_command_line(setting, path, shown):
    fgsm = ["train/attack.fgsm.eps=0.15"] if "fgsm" in setting else []
    found = load_recipe("gin/act_digits.gin", [setting, *fgsm]).spec
    for name in path:
        found = found[name] if isinstance(found, dict) else found.kwargs[name]
    assert repr(found).startswith(shown)


def test_a_list_of_words_and_numbers_is_read_as_such():
    spec = load_recipe("gin/act_digits.gin", ["schedule.MultiStepLR.milestones=[5, 10]", "role.freeze=[conv1.*, fc.bias]"]).spec  # fmt: skip
    role = spec.kwargs["roles"]["robust"]
    assert role.kwargs["schedule"].kwargs["milestones"] == [5, 10]
    assert role.kwargs["freeze"] == ["conv1.*", "fc.bias"]


def test_config_FILE_shows_it_and_a_run_too(actkit, tmp_path):
    shown = actkit("config", "show", "gin/act_digits.gin", "-s", "run.epochs=3").out
    assert actkit("config", "gin/act_digits.gin", "-s", "run.epochs=3").out == shown
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.gin").write_text(shown)
    assert actkit("config", tmp_path / "run").out == shown


@pytest.mark.parametrize(
    ("typed", "message"), [("shwo", "Did you mean 'show'"), ("gin/act_digit.gin", "did you mean 'gin/act_digits.gin'")]
)
def test_what_config_does_not_know_gets_the_nearest(actkit, typed, message):
    said = actkit("config", typed)
    assert said.code == 2
    assert message in said.err


# -- help ----------------------------------------------------------------------------------------------------------------


def commands(group: click.Group = main, name: str = "actkit") -> dict[str, click.Command]:
    found = {}
    for word, command in group.commands.items():
        found[f"{name} {word}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{name} {word}")
    return found


def examples(command: click.Command) -> list[str]:
    """The command lines in a help, those inside `echo 'eval "$(...)"'` too."""
    lines = [
        re.sub(r"^echo 'eval \"\$\((.*)\)\"'.*", r"\1", line.strip()) for line in (command.help or "").splitlines()
    ]
    return [line for line in lines if line.startswith("actkit ")]


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_shows_examples_that_the_command_line_takes(name):
    lines = examples(commands()[name])
    own = [line for line in lines if line.startswith(f"{name} ")]
    assert 2 <= len(own) or (len(own) == 1 and len(lines) >= 2)
    for line in lines:
        words = shlex.split(re.split(r"   |  #| >>? ", line)[0])[1:]
        command, context = main, click.Context(main)
        while isinstance(command, click.Group):
            word, command, words = command.resolve_command(context, words)
            assert command is not None, line
            context = click.Context(command, info_name=word, resilient_parsing=True)
        command.make_parser(context).parse_args(words)


# -- threads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    """The number that torch computes with is put back, and so is what processes inherit."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_those_that_were_asked_for_and_are_recorded(actkit, threads, tmp_path):
    said = actkit("run", "gin/natural_digits.gin", *SMALL, "--threads", "2", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    made = json.loads((tmp_path / "run/environment.json").read_text())
    assert made["threads"] == torch.get_num_threads() == 2
    assert " --threads 2 " in made["command"]


def test_threads_are_what_torch_finds_when_it_is_imported_and_what_a_study_starts_inherits(actkit, threads):
    assert actkit("run", "nowhere.gin", "--threads", "2").code == 2
    assert os.environ["OMP_NUM_THREADS"] == "2"


# -- mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plugins", "nowhere"], "help: give the folder that holds the plugin's .py files; an installed plugin (`actkit list plugins`) needs no --plugins"),
        (["--plugins", "mien"], "help: did you mean 'mine'?"),
        (["-s", "run.epochs=ten"], "run.epochs should be int, got 'ten' (str)\n  --> --set run.epochs=ten\n  help: write a whole number, such as 10"),
        (["-s", "optimizer.SGD.momentum=high"], "help: write a number, such as 0.5 or '8/255'"),
        (["-s", "run.keep=2.5"], "help: write a whole number, such as 10; the default is 2"),
        (["-s", "run.data=3"], "help: `actkit list dataset` shows what can stand here"),
        (["--device", "gpu"], "--device gpu: there is no device 'gpu'\n  help: cuda is the first GPU, cuda:1 the second; or auto, or cpu"),
        (["--threads", "0"], "Invalid value for '--threads'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_says_what_to_do(actkit, tmp_path, monkeypatch, args, message):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    said = actkit("run", "gin/act_digits.gin", *args)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "runs").exists()


def test_a_batch_larger_than_the_data_set_is_said_and_timed_as_what_it_holds(actkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = []

    @register("objective", "test_sizes")
    def sized(x, y, robust):
        sizes.append(len(x))
        yield {robust: cross_entropy(robust(x), y)}

    few = [*SMALL, "-s", "run.objective=test_sizes", "-s", "run.batch_size=5000", "--device", "cpu"]
    said = actkit("run", "gin/natural_digits.gin", *few, "--dry-run")
    assert "run.batch_size is 5,000 and there are 90 training images: every batch holds all of them" in said.out
    assert max(sizes) == 90
    done = actkit("run", "gin/natural_digits.gin", *few, "--out", "run")
    assert done.code == 0 and "every batch holds all of them" in done.err


def test_a_run_without_data_leaves_a_folder_as_it_was(actkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/.mine").write_text("kept")
    small = ["-s", "role.backbone=wrn_16_2", "--device", "cpu"]
    for out in ("there", "new/run"):
        said = actkit("run", "gin/natural_cifar10.gin", *small, "--out", out)
        assert said.code == 2 and "CIFAR-10 is not there" in said.err
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["there", "there/.mine"]


# -- own pictures --------------------------------------------------------------------------------------------------------


def test_own_pictures_of_one_size_give_the_size_and_those_of_several_are_asked_about(actkit, tmp_path):
    small = ["-s", "role.backbone=resnet", "-s", "backbone.resnet.width=4", "--dry-run", "--device", "cpu"]
    one = folder(tmp_path / "one", size=(40, 40))
    said = actkit("run", "own_images.gin", "-s", f"dataset.imagefolder.root={one}", *small)
    assert said.code == 0 and said.err == ""
    assert re.search(r"^data .* of 3x40x40, 2 classes$", said.out, re.M)
    cost = re.search(r"^an example +(\d+) units", said.out, re.M)
    assert cost and int(cost[1]) < 700, "a light evaluation"
    several = [
        "-s",
        f"dataset.imagefolder.root={photographs(tmp_path / 'several')}",
        "-s",
        "run.evaluation=[accuracy]",
        *small,
    ]
    assert "dataset.imagefolder.size = N resizes" in actkit("run", "own_images.gin", *several).err
    said = actkit("run", "own_images.gin", *several, "-s", "dataset.imagefolder.size=32")
    assert said.code == 0 and "of 3x32x32" in said.out

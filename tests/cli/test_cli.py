"""The command line: what it shows, and what it costs to ask."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import grad as gradient_of

from actkit import cross_entropy, register
from actkit.cli.options import arguments, command_line
from actkit.config.recipe import load_recipe
from actkit.training.dry_run import count
from helpers import ROOT


def of_plugins() -> set[str]:
    """The study's recipes of defences that plugins bring: `tests/test_plugins.py` counts those, with the plugins."""
    folder = ROOT / "gin/studies/shelf_digits"
    own = {path.name for path in (ROOT / "gin").glob("*.gin")} | {path.name for path in folder.glob("*.gin")}
    named = {path: set(re.findall(r"^include '(.+)'", path.read_text(), re.M)) for path in folder.glob("*.gin")}
    return {path.name for path, files in named.items() if not files <= own}


# Those that train; the others are parts of them, or evaluations, or are for a folder that is not there (own_images.gin: test_habits.py).
RECIPES = [
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "gin").rglob("*.gin"))
    if ("_" in path.name and path.parent.name == "gin" and not path.name.startswith(("evaluation", "own")))
    or (
        "studies" in path.relative_to(ROOT).parts
        and path.name not in ("base.gin", "digits_defences.gin", *of_plugins())
    )
]
# By what the name begins with.
UNITS = {"natural": 3, "helper": 3, "fast": 5, "madry": 23, "trades": 27, "act": 26, "cifar10": 26, "shelf": 23}


@pytest.mark.parametrize(
    "command",
    [["--help"], ["run", "--help"], ["list", "recipes"], ["list", "plugins"], ["new", "attack", "mine"]],
    ids=" ".join,
)
def test_what_computes_nothing_answers_without_importing_torch_or_a_tables_library(command, tmp_path):
    code = (
        f"import sys\nfrom actkit.cli import main\ntry:\n    main.main({command!r})\nexcept SystemExit: pass\n"
        "print({'torch', 'timm', 'gin', 'rich', 'numpy'} & set(sys.modules))"
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "ACTKIT_DISABLE_PLUGINS": "1"},
    )
    assert done.stdout.strip().endswith("set()")
    assert "error" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["probe"],
        ["list"],
        ["config"],
        ["config", "show"],
        ["config", "check"],
        ["config", "diff"],
        ["import"],
        ["export"],
        ["report"],
    ],
)
def test_every_command_explains_itself(actkit, command):
    said = actkit(*command, "--help")
    assert said.code == 0
    assert "Usage: actkit" in said.out


def test_the_options_of_run_are_what_scripts_rely_on(actkit):
    options = set(re.findall(r"--[a-z-]+", actkit("run", "--help").out))
    assert options == {
        "--set", "--plugins", "--trust", "--seed", "--out", "--device", "--dry-run", "--json", "--help",
        "--seeds", "--sweep", "--jobs", "--executor", "--single", "--tensorboard", "--threads",
    }  # fmt: skip


def smaller(recipe: str) -> list[str]:
    """What a test can afford of the largest ones, and of those whose images may not be there."""
    fewer = ["eval/attack.pgd.steps=1", "probe.robust_accuracy.starts=1"]
    if "wrn" in recipe or "cifar100" in recipe or "alpha" in recipe:
        return [*fewer, "role.backbone=wrn_16_2"]
    if "cifar10_small" in recipe:
        return [*fewer, "run.data=cifar10"]
    return [*fewer, "dataset.imagenet.size=32"] if "imagenet" in recipe else fewer


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_of_every_shipped_recipe_costs_what_algebra_says_and_is_counted_without_data(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    counted = count(load_recipe(recipe, smaller(recipe)), folder=tmp_path / "run", device=torch.device("cpu"))
    objective = counted.run.objective.spec
    wanted = 3 * objective.get("replays") if "free" in recipe else UNITS[Path(recipe).stem.partition("_")[0]]
    assert counted.units == wanted
    assert counted.evaluation.units > 0
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


def test_a_dry_run_of_a_recipe_whose_data_are_not_there_prints_its_plan_and_writes_nothing(
    actkit, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    said = actkit("run", "gin/natural_cifar10.gin", "--dry-run", "--device", "cpu", "-s", "role.backbone=wrn_16_2")
    assert said.code == 0, said.err
    assert re.search(r"^a step +3 units", said.out, re.M)
    assert re.search(r"^time +about .* on cpu: .* a step, .* for the evaluation", said.out, re.M)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_gives_its_numbers_as_json(actkit):
    said = actkit("run", "gin/natural_digits.gin", "--dry-run", "--json", "--device", "cpu", "-s", "run.steps=7")
    found = json.loads(said.out)
    assert (found["units"], found["batches"]) == (3, 7)  # a forward pass, and a backward pass of twice that
    assert found["seconds_a_step"] > 0
    assert found["config"]["spec"] == "run"


def test_an_input_gradient_is_told_from_a_backward_pass_wherever_it_is_asked_for(write):
    """By an objective that calls `torch.autograd.grad` under a name of its own, once for the input and once for the weights."""

    @register("objective", "test_gradients")
    def gradients(x, y, robust):
        x = x.clone().requires_grad_()
        loss = cross_entropy(robust(x), y)
        gradient_of(loss.sum(), x, retain_graph=True)
        gradient_of(outputs=loss.sum(), inputs=[next(robust.model.parameters())], retain_graph=True)
        yield {robust: loss}

    text = "include 'digits.gin'\nrun.objective = @objective.test_gradients()\nrun.evaluation = [@probe.accuracy()]\n"
    counted = count(load_recipe(str(write("r.gin", text))), folder=Path("run"), device=torch.device("cpu"))
    passes = {(p.direction, p.weights): n for p, n in counted.passes.items()}
    assert passes == {("forward", "live"): 1, ("backward", "frozen"): 1, ("backward", "live"): 2}
    assert counted.units == 1 + 1 + 2 * 2


def test_the_plan_says_which_model_runs_how_often_in_which_mode(actkit):
    out = actkit("run", "gin/act_digits.gin", "--dry-run", "--device", "cpu", "-s", "eval/attack.pgd.steps=1").out
    for line in (
        r"natural +1 x forward +in train mode, weights live",
        r"robust +10 x forward +in eval +mode, weights frozen",
        r"robust +10 x backward in eval +mode, weights frozen",
        r"robust +1 x forward +in train mode, weights live",
    ):
        assert re.search(line, out)


def test_run_prints_the_table_on_stdout_and_all_else_on_stderr(actkit, quick, tmp_path):
    said = actkit("run", quick, "--out", tmp_path / "run", "--device", "cpu", "--seed", "5")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == [
        "model",
        "clean",
        "PGD-2",
        "worst",
        "run",
        "(linf",
        "0.15)",
        "PGD-2",
        "per-example",
        "worst",
        "(linf",
        "0.15)",
    ]
    assert [line.split()[0] for line in lines[1:3]] == ["robust", "natural"]
    assert "seed 5" in lines[3]
    assert re.search(r"epoch 2/2  robust: loss \d", said.err)
    assert f"actkit probe --ckpt {tmp_path / 'run'}" in said.err
    again = actkit("run", quick, "--out", tmp_path / "run", "--device", "cpu", "--seed", "5")
    assert again.out == said.out
    assert "this run is done" in again.err


def test_the_default_folder_depends_on_the_settings_and_the_seed_alone(actkit, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [
        json.loads(actkit("run", quick, "--json", "--device", "cpu", *args).out)["folder"]
        for args in ([], [], ["--seed", "1"])
    ]
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].startswith("runs/quick/seed0-")
    assert folders[2].startswith("runs/quick/seed1-")


def test_list_shows_components_recipes_and_one_in_detail(actkit):
    out = actkit("list").out
    assert re.search(r"^objective +act +actkit +Adversarial Concurrent Training", out, re.M)
    assert re.search(r"^optimizer +SGD +torch", out, re.M)
    assert {line.split()[0] for line in actkit("list", "objective").out.splitlines()[1:]} == {"objective"}
    assert re.search(
        r"^gin/act_cifar10.gin +Adversarial Concurrent Training on CIFAR-10, ResNet-18, as the paper prints it",
        actkit("list", "recipes").out,
        re.M,
    )
    detail = actkit("list", "objective", "act").out
    for part in ("temperature", "default 0.9", "robust, natural", "an attack", "objective.act.attack = ..."):
        assert part in detail


def test_a_run_reads_its_recipe_once(actkit, quick, monkeypatch):
    read, path = [], Path(quick)
    original = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *args, **how: (read.append(self), original(self, *args, **how))[1]
    )
    assert actkit("run", quick, "--dry-run", "--device", "cpu").code == 0
    assert [p for p in read if p.name == path.name] == [path]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"-s": ("a=1", "b=2")}, ["-s", "a=1", "-s", "b=2"]),
        ({"--trust": True, "--out": "my run"}, ["--trust", "--out", "my run"]),
        ({"--trust": False, "--out": None, "--plugins": ()}, []),
    ],
    ids=str,
)
def test_options_are_written_as_they_are_typed(options, words):
    assert arguments(options) == words
    assert command_line("run", ["r.gin"], options) == shlex.join(["actkit", "run", "r.gin", *words])


def test_a_results_command_line_says_what_was_typed_the_seed_as_a_setting(actkit, quick, tmp_path):
    out = tmp_path / "my run"
    assert actkit("run", quick, "--seed", "5", "-s", "run.steps=1", "--device", "cpu", "--out", out).code == 0
    written = json.loads((out / "summary.json").read_text())["command"]
    assert written == f"actkit run {quick} -s run.steps=1 -s run.seed=5 --device cpu --out '{out}'"
    said = actkit("probe", "--ckpt", out, "--probe", "accuracy", "--device", "cpu", "--out", tmp_path / "probed")
    assert said.code == 0, said.err
    written = json.loads((tmp_path / "probed/summary.json").read_text())["command"]
    assert written == f"actkit probe --ckpt '{out}' --probe accuracy --device cpu"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["list", "objectve"], "did you mean 'objective'"),
        (["list", "objective", "actt"], "did you mean 'objective.act'"),
        (["run"], "Missing argument 'FILE'"),
        (["run", "gin/act_digits.gin", "--device", "cuda:99"], "--device cuda:99"),
        (["run", "gin/act_digits.gin", "--device", "gpu"], "there is no device 'gpu'"),
        (["run", "gin/act_digits.gin", "--plugins", "nowhere"], "no such folder"),
        (["run", "gin/act_digits.gin", "-s", "run.epochs=0"], "run.epochs must be at least 1"),
        (["run", "gin/act_digits.gin", "-s", "train/attack.pgd.eps=-0.1", "--dry-run"], "eps must not be negative"),
        (["run", "gin/act_digits.gin", "-s", "objective.act.alpha=1.5"], "alpha must lie in [0,1], got 1.5"),
        (["run", "gin/act_digits.gin", "-s", "objective.act.temperature=0.0"], "temperature must be positive"),
        (["run", "gin/act_cifar10.gin", "--out", "OUT"], "CIFAR-10 is not there"),
        (
            [
                "run",
                "gin/act_cifar10.gin",
                "--out",
                "OUT",
                "-s",
                "run.data=imagefolder",
                "-s",
                "dataset.imagefolder.root=nowhere",
            ],
            "does not exist",
        ),
        (["run", "gin/act_digits.gin", "--out", __file__], "the run's folder cannot be used"),
        (
            ["run", "gin/act_digits.gin", "-s", "probe.robust_accuracy.starts=0", "--dry-run"],
            "starts must be at least 1",
        ),
        (["run", "gin/act_digits.gin", "-s", "probe.accuracy.limit=0", "--dry-run"], "limit must be at least 1"),
        (
            [
                "run",
                "gin/act_cifar10.gin",
                "--out",
                "OUT",
                "-s",
                "run.data=imagefolder",
                "-s",
                "dataset.imagefolder.root=EMPTY",
            ],
            "there are no images",
        ),
        (["probe"], "Missing option '--ckpt'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_a_mistake_on_the_command_line_gets_one_clear_line_and_exit_code_2(
    actkit, tmp_path, monkeypatch, args, message
):
    monkeypatch.chdir(tmp_path)
    for split in ("train/cat", "test/cat"):
        (tmp_path / "EMPTY" / split).mkdir(parents=True)
    said = actkit(*args)
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_plugin_folder_is_used_by_a_recipe(actkit, write, tmp_path):
    write(
        "extras/mine.py",
        "from __future__ import annotations\nfrom actkit import cross_entropy, register\n\n"
        "@register('objective', 'test_plugin')\ndef mine(x, y, robust, *, scale: float = 1.0):\n    '''Mine.'''\n"
        "    yield {robust: scale * cross_entropy(robust(x), y)}\n",
    )
    path = write(
        "r.gin",
        "import extras.mine\ninclude 'digits.gin'\nrun.objective = @objective.test_plugin()\nobjective.test_plugin.scale = 0.5\n",
    )
    assert actkit("run", path, "--dry-run").code == 2
    said = actkit("run", path, "--dry-run", "--plugins", tmp_path / "extras", "--device", "cpu")
    assert said.code == 0, said.err
    assert "objective.test_plugin(scale=0.5)" in said.out

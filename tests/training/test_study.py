"""Studies: which cells, which folders, and what happens to a study that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from actkit.errors import InputError
from actkit.training.study import cells, parse_sweep
from helpers.runs import QUICK


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("objective.act.alpha=0.1,0.5", "objective.act.alpha", ["0.1", "0.5"]),
        ("train/attack.pgd.eps='4/255','8/255'", "train/attack.pgd.eps", ["'4/255'", "'8/255'"]),
        ("backbone.resnet.layers=[1, 1],[2, 2]", "backbone.resnet.layers", ["[1, 1]", "[2, 2]"]),
        ("run.data='a,b'", "run.data", ["'a,b'"]),
    ],
)
def test_values_are_parted_at_commas_outside_brackets_and_quotes(text, key, values):
    assert parse_sweep(text) == (key, values)


@pytest.mark.parametrize("text", ["alpha", "alpha=", "=1", "alpha=1,,2"])
def test_a_sweep_that_is_none_is_told(text):
    with pytest.raises(InputError, match="--sweep"):
        parse_sweep(text)


def test_every_combination_is_a_cell_in_the_folder_that_its_own_run_would_have(quick):
    from actkit.config.recipe import load_recipe
    from actkit.training.folder import folder_of

    made = cells(
        [str(quick)],
        seeds=[0, 1],
        sweep={"objective.act.alpha": [0.1, 0.9], "run.epochs": [1]},
        settings=["run.batch_size=256"],
    )
    assert [c.title for c in made] == [
        "quick alpha=0.1 epochs=1 seed 0", "quick alpha=0.1 epochs=1 seed 1", "quick alpha=0.9 epochs=1 seed 0", "quick alpha=0.9 epochs=1 seed 1",
    ]  # fmt: skip
    alone = load_recipe(str(quick), ["run.batch_size=256", "objective.act.alpha=0.9", "run.epochs=1", "run.seed=1"])
    assert made[3].folder == folder_of(alone)
    assert len({c.folder for c in made}) == 4


def test_all_that_is_wrong_with_a_study_is_told_before_anything_runs(quick):
    with pytest.raises(InputError) as told:
        cells([str(quick)], seeds=[0], sweep={"objective.act.alpha": [0.5, 7, 8]})
    assert len(told.value.problems) == 2
    with pytest.raises(
        InputError, match=r"two cells of the study are one and the same run: .*alpha=0.5.* and .*alpha=0.50"
    ):
        cells([str(quick)], seeds=[0], sweep={"objective.act.alpha": ["0.5", "0.50"]})
    with pytest.raises(InputError, match="two cells"):
        cells([str(quick)], seeds=[1, 1], sweep={})


def test_a_recipes_own_seed_is_kept_unless_others_are_asked_for(quick):
    assert [c.seed for c in cells([str(quick)], seeds=None, sweep={"run.epochs": [1]}, settings=["run.seed=7"])] == [7]


STUDY = QUICK + "\nstudy.seeds = [0, 1]\nstudy.sweep = {'objective.act.alpha': [0.3, 0.6]}\n"


def test_a_study_declared_in_a_recipe_is_planned(actkit, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = actkit("run", write("s.gin", STUDY), "--dry-run", "--device", "cpu")
    assert said.code == 0, said.err
    assert "nothing uses it" not in said.err
    assert "4 cells, 4 to do: about" in said.out
    found = json.loads(actkit("run", tmp_path / "s.gin", "--dry-run", "--json", "--seeds", "5", "--device", "cpu").out)
    assert [c["title"] for c in found["cells"]] == ["s alpha=0.3 seed 5", "s alpha=0.6 seed 5"]
    assert [p.name for p in tmp_path.iterdir()] == ["s.gin"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "a"], "--seeds a: whole numbers are wanted"),
        (["--seeds", "0", "--seed", "1"], "--seed and --seeds say two things"),
        (["--seeds", "0,-1"], "--seeds 0,-1: a seed is a whole number from 0 on, got -1"),
        (["--seeds", "0", "--seeds", "1"], "--seeds is given twice\n  help: --seeds 0,1"),
        (["--seeds", "0,1,0"], "--seeds 0,1,0: a seed is there twice\n  help: give 0,1"),
        (["--seeds", "0,1", "-s", "run.seed=3"], "run.seed and the study's seeds say two things"),
        (["--sweep", "objective.act.alhpa=1"], "has no parameter 'alhpa'"),
        (["--sweep", "nothing"], "a setting and its values are wanted"),
        (["--seeds", ""], "--seeds '': whole numbers are wanted"),
        (["--sweep", "run.seed=1,2"], "give --seeds"),
        (["--sweep", "run.epochs=1", "--sweep", "run.epochs=2"], "run.epochs is given twice"),
    ],
)
def test_a_mistake_in_a_study_gets_one_line(actkit, quick, args, message):
    said = actkit("run", quick, *args)
    assert said.code == 2
    assert message in said.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("study.seeds = []", "study.seeds names none"),
        ("study.recipes = []", "study.recipes names none"),
        ("study.seeds = [0, 0]", "study.seeds: a seed is there twice"),
        ("study.seeds = [-1]", "study.seeds: a seed is a whole number from 0 on, got -1"),
        ("study.sweep = {'run.epochs': 2}", "'run.epochs' has no list of values, but 2"),
        ("study.sweep = {'run.epochs': '1,2'}", "has no list of values"),
        ("study.sweep = {'role.backbone': [@backbone.resnet18(), @backbone.resnet34()]}", "write it as text: '@backbone.resnet34()'"),
        ("study.sweep = {'run.seed': [1, 2]}", "study.seeds"),
        ("study.recipes = ['qiuck.gin']", "there is no recipe 'qiuck.gin'"),
    ],
)  # fmt: skip
def test_a_declared_study_that_makes_no_sense_is_told(actkit, write, quick, line, message):
    said = actkit("run", write("s.gin", f"{QUICK}\n{line}\n"))
    assert said.code == 2
    assert message in said.err


def test_a_study_finds_its_recipes_beside_itself(actkit, write, quick, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write("s.gin", QUICK + "\nstudy.recipes = ['quick.gin', 'trades_digits.gin']\n")
    said = actkit("run", "../s.gin", "--dry-run", "--json", "--device", "cpu")
    assert said.code == 0, said.err
    assert [c["title"] for c in json.loads(said.out)["cells"]] == ["quick seed 0", "trades_digits seed 0"]


def test_a_declared_study_runs_its_cells_and_not_itself(actkit, write, tmp_path, monkeypatch):
    """In processes that start cold, as a user's do."""
    monkeypatch.chdir(tmp_path)
    write("s.gin", QUICK + "\nrun.epochs = 1\nstudy.seeds = [0, 1]\nstudy.recipes = ['s.gin']\n")
    said = actkit("run", "s.gin", "-j", "2", "--device", "cpu")
    assert said.code == 0, said.err
    assert len(list(tmp_path.rglob("summary.json"))) == 2
    assert said.err.startswith("study      2 cells, 2 to do, 2 at a time\nstart: s seed 0 (runs/s/seed0-")
    assert "report     runs/s/report.html\n" in said.err
    assert "s, seed1-" in (tmp_path / "runs/s/report.html").read_text()
    (summary,) = tmp_path.rglob("seed1-*/summary.json")
    assert json.loads(summary.read_text())["command"].startswith("actkit run s.gin -s run.seed=1 --single --device cpu")
    assert actkit("run", "s.gin", "--single", "--device", "cpu").err.startswith("recipe")
    assert actkit("run", "s.gin", "--single", "--seeds", "0").code == 2


@pytest.mark.parametrize(
    ("study", "cells"),
    [("digits_defences", 6), ("cifar10_small", 5), ("cifar10_small_readings", 3)],
)
def test_every_shipped_study_is_right(actkit, study, cells):
    said = actkit("config", "check", f"gin/studies/{study}.gin", "-s", "run.data=cifar10")
    assert (said.code, said.err) == (0, "")
    assert f"a study: {cells} cells of " in said.out


NAMED = "study.recipes = ['quick.gin', 'trades_digits.gin']\nstudy.seeds = [0, 1]\n"


def shown(actkit, *args) -> dict[str, dict]:
    """What `config show` says of each recipe's run."""
    said = actkit("config", "show", *args, "--json")
    assert said.code == 0, said.err
    return {Path(name).name: recipe["kwargs"] for name, recipe in json.loads(said.out)["recipes"].items()}


def test_what_else_a_study_binds_applies_to_each_of_its_recipes_after_their_own_and_before_s(actkit, write, quick):
    study = write("s.gin", NAMED + "EPS = 0.2\nHOW_LONG = 3\nrun.epochs = %HOW_LONG\n")
    found = shown(actkit, study)
    assert {name: run["epochs"] for name, run in found.items()} == {"quick.gin": 3, "trades_digits.gin": 3}
    assert all(run["evaluation"][1]["kwargs"]["attack"]["kwargs"]["eps"] == 0.2 for run in found.values())
    given = shown(actkit, study, "-s", "run.epochs=5")
    assert {run["epochs"] for run in given.values()} == {5}
    assert "run.epochs = %HOW_LONG  # " in actkit("config", "show", study, "--origin").out
    assert f"{study}:5" in actkit("config", "show", study, "--origin").out


def test_each_cells_own_command_has_the_studys_lines(write, quick):
    from actkit.cli.options import RecipeOptions
    from actkit.cli.studies import declared_in

    study = write("s.gin", NAMED + "EPS = 0.2\nrun.epochs = 3\nrole.backbone = @backbone.mlp()\n")
    reading = RecipeOptions(settings=("run.batch_size=64",))
    made = declared_in(reading.open(str(study)), reading)
    assert [cell.title for cell in made.cells] == ["quick seed 0", "quick seed 1", "trades_digits seed 0", "trades_digits seed 1"]  # fmt: skip
    assert made.cells[2].command([])[:11] == [
        "run", "trades_digits.gin", "--single", "-s", "EPS=0.2", "-s", "run.epochs=3", "-s", "role.backbone=@backbone.mlp()", "-s", "run.batch_size=64",
    ]  # fmt: skip


def test_a_line_that_does_nothing_in_one_of_the_recipes_is_refused(actkit, write, quick):
    said = actkit("run", write("s.gin", NAMED + "objective.act.alpha = 0.1\nrun.epochs = 1\n"))
    assert said.code == 2
    assert "nothing in trades_digits.gin uses objective.act.alpha\n  --> " in said.err
    assert "s.gin:3" in said.err
    assert "this one has objective.trades: bind it in those that use it" in said.err
    said = actkit("run", write("s.gin", NAMED + "EPSS = 1\n"))
    assert said.err.count("nothing uses a macro 'EPSS'") == 1
    assert "help: did you mean 'EPS'?" in said.err


def test_a_macro_of_the_study_alone_is_none_of_the_recipes(actkit, write, quick):
    text = "SEEDS = [4]\nstudy.recipes = ['quick.gin', 'trades_digits.gin']\nstudy.seeds = %SEEDS\n"
    said = actkit("config", "check", write("s.gin", text))
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("s.gin  (a study: 2 cells of 2 recipes)\n")


@pytest.mark.parametrize(("line", "what"), [("include 'digits.gin'", "an include"), ("import actkit", "an import")])
def test_what_cannot_reach_the_recipes_is_refused(actkit, write, quick, line, what):
    said = actkit("run", write("s.gin", f"{line}\n{NAMED}"))
    assert said.code == 2
    assert f"study.recipes: {what} in this file does not reach the recipes that it names" in said.err


def test_a_study_that_is_a_recipe_too_applies_its_own_lines_alone_and_can_be_run_itself(actkit, write, quick):
    study = write("s.gin", f"include 'madry_digits.gin'\n{NAMED}run.epochs = 1\n")
    assert {run["objective"]["spec"] for run in shown(actkit, study).values()} == {"objective.act", "objective.trades"}
    assert "objective    objective.madry" in actkit("run", study, "--single", "--dry-run", "--device", "cpu").out


def test_a_study_of_recipes_is_none_itself(actkit, write, quick):
    said = actkit("run", write("s.gin", NAMED), "--single")
    assert said.code == 2
    assert said.err.startswith("error: this file is a study of other recipes and no recipe itself\n")


def test_two_recipes_that_say_the_same_are_one_run(actkit, write, quick):
    write("other.gin", "include 'quick.gin'\n")
    said = actkit("run", write("s.gin", "study.recipes = ['quick.gin', 'other.gin']\n"))
    assert said.code == 2
    assert "two cells of the study are one and the same run: quick seed 0 and other seed 0" in said.err


def test_seeds_given_beside_those_of_the_file_are_said(write, quick):
    from actkit.cli.options import RecipeOptions
    from actkit.cli.studies import declared_in

    made = declared_in(RecipeOptions().open(str(write("s.gin", NAMED))), RecipeOptions(), seeds="3")
    assert made.notes == ("--seeds 3 instead of the file's study.seeds = [0, 1]",)
    assert [cell.title for cell in made.cells] == ["quick seed 3", "trades_digits seed 3"]


def test_every_cell_of_a_study_is_checked(actkit, write, quick):
    study = write("s.gin", NAMED + "study.sweep = {'train/attack.pgd.eps': [0.1, -1]}\n")
    said = actkit("config", "check", study)
    assert said.code == 2
    assert said.out == ""
    assert said.err.count("eps must not be negative, got -1") == 1


def test_studies_are_compared_recipe_by_recipe(actkit, write, quick):
    a, b = write("a.gin", NAMED + "run.epochs = 1\n"), write("b.gin", NAMED.replace("[0, 1]", "[2]"))
    lines = [line.split() for line in actkit("config", "diff", a, b).out.splitlines()[1:]]
    assert lines == [
        ["study.seeds", "[0,", "1]", "[2]"],
        ["quick:", "run.epochs", "1", "2"],
        ["trades_digits:", "run.epochs", "1", "60"],
    ]
    (line,) = actkit("config", "diff", a, "trades_digits.gin").out.splitlines()[1:]
    assert line.split() == ["trades_digits:", "run.epochs", "1", "60"]
    said = actkit("config", "diff", a, "madry_digits.gin")
    assert said.code == 2
    assert "have no recipe of one name: quick, trades_digits and madry_digits" in said.err


def test_the_dry_run_of_a_study_says_what_each_cell_costs(actkit, write, quick):
    study = write("s.gin", "study.recipes = ['quick.gin']\nstudy.seeds = [0]\nrun.epochs = 100000\n")
    line, whole = actkit("run", study, "--dry-run", "--device", "cpu").out.splitlines()
    assert line.split()[3:5] == ["to", "run"] and line.split()[6] in ("h", "days", "min")
    assert line.split()[5] in whole


def test_a_cell_of_seed_0_is_the_plain_run(actkit, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = json.loads(actkit("run", quick, "--seeds", "0", "--dry-run", "--json", "--device", "cpu").out)
    assert f"folder       {found['cells'][0]['folder']}" in actkit("run", quick, "--dry-run", "--device", "cpu").out


def test_a_study_that_has_no_place_is_told_before_it_starts(actkit, quick):
    said = actkit("run", quick, "--seeds", "0,1", "--out", "/proc/x", "--device", "cpu")
    assert said.code == 2
    assert "the folder cannot be made" in said.err


def test_a_component_is_swept_as_text(actkit, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("s.gin", QUICK + "\nstudy.sweep = {'role.backbone': ['@backbone.resnet()', '@backbone.mlp()']}\n")
    monkeypatch.setattr("actkit.training.study.dry_run_study", lambda study, **how: ([c.title for c in study], 0.0))
    said = actkit("run", "s.gin", "--dry-run")
    assert said.out.split("\n")[:2] == ["s backbone=@backbone.resnet() seed 0", "s backbone=@backbone.mlp() seed 0"]


def start(python: str, recipe: Path, folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [python, "-m", "actkit", "run", str(recipe), "--seeds", "0,1", "--device", "cpu"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_study_does_only_what_is_left_and_reports_the_same(warm, write, tmp_path):
    """The run under way is stopped with it, saves, and goes on; the whole equals an uninterrupted study."""
    recipe = write("s.gin", QUICK.replace("run.epochs = 2", "run.epochs = 12"))
    killed = start(warm, recipe, tmp_path / "killed")
    until = time.monotonic() + 240
    while time.monotonic() < until:  # until the second cell is under way
        under_way = [p for p in (tmp_path / "killed/runs/s").glob("seed1-*") if any(p.glob("checkpoints/step-*"))]
        if under_way:
            break
        time.sleep(0.01)
    killed.send_signal(signal.SIGTERM)
    _, said = killed.communicate()
    assert killed.returncode == 75, said
    log = under_way[0].with_name(under_way[0].name + ".log")
    assert "finishing this batch, then saving" in log.read_text()
    assert not (under_way[0] / "summary.json").exists()
    done = {p.parent: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("summary.json")}
    assert len(done) == 1
    again = start(warm, recipe, tmp_path / "killed")
    out, said = again.communicate()
    assert again.returncode == 0, said
    assert "1 of 2 cells are done already" in said
    assert "resumed    after" in log.read_text()
    assert all((folder / "summary.json").stat().st_mtime_ns == when for folder, when in done.items())
    assert out == start(warm, recipe, tmp_path / "straight").communicate()[0]
    assert "±" in out

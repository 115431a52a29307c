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
    (summary,) = tmp_path.rglob("seed1-*/summary.json")
    assert json.loads(summary.read_text())["command"].startswith("actkit run s.gin -s run.seed=1 --single --device cpu")
    assert actkit("run", "s.gin", "--single", "--device", "cpu").err.startswith("recipe")
    assert actkit("run", "s.gin", "--single", "--seeds", "0").code == 2


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

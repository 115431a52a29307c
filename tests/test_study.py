"""Studies: which cells, which folders, what happens to those that fail, and to a study that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actkit.errors import InputError
from actkit.study import Cell, carry_out, cells, swept
from conftest import QUICK


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
    assert swept(text) == (key, values)


@pytest.mark.parametrize("text", ["alpha", "alpha=", "=1", "alpha=1,,2"])
def test_a_sweep_that_is_none_is_told(text):
    with pytest.raises(InputError, match="--sweep"):
        swept(text)


def test_every_combination_is_a_cell_in_the_folder_that_its_own_run_would_have(quick):
    from actkit import config
    from actkit.run import folder_of

    made = cells(
        [str(quick)],
        seeds=[0, 1],
        sweep={"objective.act.alpha": [0.1, 0.9], "run.epochs": [1]},
        settings=["run.batch_size=256"],
    )
    assert [c.title for c in made] == [
        "quick alpha=0.1 epochs=1 seed 0", "quick alpha=0.1 epochs=1 seed 1", "quick alpha=0.9 epochs=1 seed 0", "quick alpha=0.9 epochs=1 seed 1",
    ]  # fmt: skip
    alone = config.load(str(quick), ["run.batch_size=256", "objective.act.alpha=0.9", "run.epochs=1", "run.seed=1"])
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


class Fake:
    """An executor whose runs end as they are told to."""

    jobs = 2

    def __init__(self, codes: dict[str, int]) -> None:
        self.codes, self.ran = codes, []

    def __call__(self, arguments, log):
        self.ran.append(arguments)
        code = self.codes[log.stem]
        if code == 0:
            log.with_suffix("").mkdir()
            (log.with_suffix("") / "summary.json").write_text("{}")
        log.write_text("epoch 1\nerror: it broke\n  --> here\n" if code == 1 else "fine\n")
        return code

    def stop(self, number):
        self.stopped = number


def fake_cells(tmp_path, names):
    return [Cell("r.gin", ("a.b.c=1",), i, tmp_path / name, name) for i, name in enumerate(names)]


def test_done_cells_are_skipped_and_failed_ones_do_not_stop_the_rest(tmp_path):
    study = fake_cells(tmp_path, ["done", "bad", "good", "flagged"])
    study[0].folder.mkdir()
    (study[0].folder / "summary.json").write_text("{}")
    said, executor = [], Fake({"bad": 1, "good": 0, "flagged": 3})
    ended, code = carry_out(study, executor, say=said.append, extra=["--device", "cpu"])
    assert code == 1
    assert {one.cell.title: (one.code, one.said) for one in ended if one.code == 1} == {"bad": (1, "it broke")}
    assert sorted(a[a.index("--seed") + 1] for a in executor.ran) == ["1", "2", "3"]
    assert executor.ran[0][-2:] == ["--device", "cpu"]
    assert said[0] == "1 of 4 cells are done already"
    assert any("bad: failed after 0 s (exit code 1): it broke" in line for line in said)


@pytest.mark.parametrize(("codes", "wanted"), [({"a": 0, "b": 0}, 0), ({"a": 0, "b": 3}, 3), ({"a": 2, "b": 3}, 1)])
def test_the_exit_code_is_the_worst_of_the_cells(tmp_path, codes, wanted):
    assert carry_out(fake_cells(tmp_path, codes), Fake(codes), say=lambda text: None)[1] == wanted


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
    ],
)
def test_a_mistake_in_a_study_gets_one_line(actkit, quick, args, message):
    said = actkit("run", quick, *args)
    assert said.code == 2
    assert message in said.err


def test_a_killed_study_does_only_what_is_left_and_reports_the_same(write, tmp_path):
    """The run under way is stopped with it, saves, and goes on; the whole equals an uninterrupted study."""
    recipe = write("s.gin", QUICK.replace("run.epochs = 2", "run.epochs = 4"))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder: Path) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "actkit", "run", str(recipe), "--seeds", "0,1,2", "--device", "cpu"]
        return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    straight = start(tmp_path / "straight")
    killed = start(tmp_path / "killed")
    until = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("summary.json")) and time.monotonic() < until:
        time.sleep(0.1)
    killed.send_signal(signal.SIGTERM)
    _, said = killed.communicate()
    assert killed.returncode == 75, said
    done = {p.parent: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("summary.json")}
    assert 1 <= len(done) < 3
    again = start(tmp_path / "killed")
    out, said = again.communicate()
    assert again.returncode == 0, said
    assert f"{len(done)} of 3 cells are done already" in said
    assert all((folder / "summary.json").stat().st_mtime_ns == when for folder, when in done.items())
    assert out == straight.communicate()[0]
    assert "±" in out

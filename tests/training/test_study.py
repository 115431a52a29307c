"""Studies: which cells, which folders, what happens to those that fail, and to a study that is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from actkit.errors import InputError
from actkit.training.executors import Cluster, Local
from actkit.training.study import Cell, cells, parse_sweep
from actkit.training.tasks import run_tasks
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


FINE = json.dumps(
    {"data": "d", "data_fingerprint": {}, "evaluation": [], "results": {}, "stopped_early": False, "recipe": "r", "command": "c", "sizes": {}, "seed": 0, "epochs": 1, "steps": 1}
)  # fmt: skip
FLAGGED = FINE.replace("false", "true")


class Fake:
    """An executor whose runs end as they are told to."""

    jobs = 2

    def __init__(self, codes: dict[str, int]) -> None:
        self.codes, self.ran = codes, []

    def __call__(self, arguments, log):
        self.ran.append(arguments)
        code = self.codes[log.stem]
        if code in (0, 3):
            log.with_suffix("").mkdir()
            (log.with_suffix("") / "summary.json").write_text(FINE if code == 0 else FLAGGED)
        log.write_text("epoch 1\nerror: it broke\n  --> here\n" if code == 1 else "fine\n")
        return code

    def stop(self, number):
        self.stopped = number


def fake_cells(tmp_path, names):
    return [Cell("r.gin", ("a.b.c=1",), i, tmp_path / name, name) for i, name in enumerate(names)]


def test_done_cells_are_skipped_and_failed_ones_do_not_stop_the_rest(tmp_path):
    study = fake_cells(tmp_path, ["done", "bad", "good", "flagged"])
    study[0].folder.mkdir()
    (study[0].folder / "summary.json").write_text(FINE)
    said, executor = [], Fake({"bad": 1, "good": 0, "flagged": 3})
    ended, code = run_tasks(study, executor, say=said.append, extra=["--device", "cpu"])
    assert code == 1
    assert {one.task.title: (one.code, one.error) for one in ended if one.code == 1} == {"bad": (1, "it broke")}
    assert sorted(a[a.index("--seed") + 1] for a in executor.ran) == ["1", "2", "3"]
    assert executor.ran[0][-2:] == ["--device", "cpu"]
    assert said[0] == "1 of 4 cells are done already"
    assert any("bad: failed after 0 s (exit code 1): it broke" in line for line in said)


@pytest.mark.parametrize(("codes", "wanted"), [({"a": 0, "b": 0}, 0), ({"a": 0, "b": 3}, 3), ({"a": 2, "b": 3}, 1)])
def test_the_exit_code_is_the_worst_of_the_cells(tmp_path, codes, wanted):
    study = fake_cells(tmp_path, codes)
    assert run_tasks(study, Fake(codes), say=lambda text: None)[1] == wanted
    if wanted == 3:  # and the same when it is asked again, with nothing left to do
        assert run_tasks(study, Fake({}), say=lambda text: None) == ([], 3)


def test_a_cell_that_was_told_to_stop_is_not_a_failed_one(tmp_path):
    said = []
    ended, code = run_tasks(fake_cells(tmp_path, ["a", "b"]), Fake({"a": 75, "b": 0}), say=said.append)
    assert code == 75
    assert not any(one.failed for one in ended)
    assert any("the same study goes on with it" in line for line in said)


def test_a_cell_that_cannot_be_started_does_not_stop_the_rest(tmp_path):
    class Full(Fake):
        def __call__(self, arguments, log):
            if log.stem == "a":
                raise OSError(28, "No space left on device", str(log))
            return super().__call__(arguments, log)

    ended, code = run_tasks(fake_cells(tmp_path, ["a", "b"]), Full({"b": 0}), say=lambda text: None)
    assert code == 1
    assert {one.task.title: one.code for one in ended} == {"a": 1, "b": 0}
    assert "No space left on device" in next(one.error for one in ended if one.failed)


@pytest.fixture
def forked(warm, monkeypatch):
    """What is under test starts its processes warm."""
    monkeypatch.setattr(sys, "executable", warm)


def test_a_cell_that_another_process_is_at_is_waited_for_and_its_log_left_alone(tmp_path, warm):
    (cell,) = fake_cells(tmp_path, ["a"])
    said = []
    holder = subprocess.Popen(
        [warm, "-c", f"""
import os, pathlib, time
from actkit.files import locked
folder = pathlib.Path({str(cell.folder)!r})
with locked(folder):
    folder.with_name("held.new").write_text(str(os.getpid()))
    folder.with_name("held.new").rename(folder.with_name("held"))
    while not folder.with_name("waiting").exists(): time.sleep(0.05)
    (folder / "summary.json").write_text({FINE!r})
"""]
    )  # fmt: skip
    (tmp_path / "a.log").write_text("the other's")
    until = time.monotonic() + 60
    while not (tmp_path / "held").exists() and time.monotonic() < until:
        time.sleep(0.05)

    def say(text):
        said.append(text)
        (tmp_path / "waiting").touch()

    executor = Fake({})
    ended, code = run_tasks([cell], executor, say=say)
    holder.wait()
    assert code == 0
    assert executor.ran == []
    assert f"waiting for process {(tmp_path / 'held').read_text()}" in said[0]
    assert (tmp_path / "a.log").read_text() == "the other's"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_passed_on_and_nothing_more_is_started(tmp_path, number):
    class Asks(Fake):
        jobs = 1

        def __call__(self, arguments, log):
            os.kill(os.getpid(), number)
            until = time.monotonic() + 30
            while not hasattr(self, "stopped") and time.monotonic() < until:
                time.sleep(0.01)
            return super().__call__(arguments, log)

    executor = Asks({"a": -15, "b": 0})  # one that a signal reached before it could handle it
    ended, code = run_tasks(fake_cells(tmp_path, ["a", "b"]), executor, say=lambda text: None)
    assert code == (130 if number == signal.SIGINT else 75)
    assert executor.stopped == (number if number == signal.SIGINT else signal.SIGTERM)
    assert len(executor.ran) == 1
    assert [one.code for one in ended] == [75]


def test_local_processes_are_told_their_share_of_the_machine(tmp_path, monkeypatch):
    """Cores are shared out unless the user says otherwise; GPUs by turns."""
    told = []

    class Process:
        def __init__(self, command, env, **how):
            told.append(env)

        def wait(self):
            time.sleep(0.2)
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr("actkit.training.executors.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run_tasks(fake_cells(tmp_path, "abcd"), Local(2, gpus=["4", "5"]), say=lambda text: None)
    assert {env["OMP_NUM_THREADS"] for env in told} == {"4"}
    assert sorted(env["CUDA_VISIBLE_DEVICES"] for env in told[:2]) == ["4", "5"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_tasks(fake_cells(tmp_path, "e"), Local(2), say=lambda text: None)
    assert told[-1]["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in told[-1]


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
    write("s.gin", QUICK + "\nstudy.recipes = ['quick.gin', 'act_digits.gin']\n")
    said = actkit("run", "../s.gin", "--dry-run", "--json", "--device", "cpu")
    assert said.code == 0, said.err
    assert [c["title"] for c in json.loads(said.out)["cells"]] == ["quick seed 0", "act_digits seed 0"]


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


class FakeRay:
    """As much of Ray as the adapter uses; a cancelled task gets KeyboardInterrupt, as with Ray."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self) -> None:
        self.asked: dict = {}
        self.cancelled: list = []

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, **asked):
        self.asked = asked

        def wrapped(function):
            class Task:
                @staticmethod
                def remote(*args):
                    return lambda: function(*args)

            return Task

        return wrapped

    def get(self, task):
        return task()

    def cancel(self, task):
        self.cancelled.append(task)


def test_cells_on_a_cluster_write_their_logs_and_fail_alone(tmp_path, quick, monkeypatch, forked):
    monkeypatch.chdir(tmp_path)
    ray = FakeRay()
    study = cells([str(quick)], seeds=[0], sweep={}) + fake_cells(tmp_path, ["bad"])
    ended, code = run_tasks(study, Cluster(ray), say=lambda text: None, extra=["--device", "cpu"])
    assert ray.asked == {"num_cpus": 1, "num_gpus": 0, "max_retries": 0}
    assert code == 1
    assert {one.task.title: one.code for one in ended} == {"quick seed 0": 0, "bad": 2}
    assert study[0].done
    assert "epoch 2/2" in study[0].folder.with_name(study[0].folder.name + ".log").read_text()


def test_a_machine_of_the_cluster_that_is_gone_is_a_failure(tmp_path):
    class Gone(FakeRay):
        def get(self, task):
            raise self.exceptions.RayError("the node died\nmore")

    ended, code = run_tasks(fake_cells(tmp_path, ["a"]), Cluster(Gone()), say=lambda text: None)
    assert code == 1
    assert ended[0].error == "RayError: the node died"


def test_a_cancelled_task_lets_its_run_save(write, tmp_path, monkeypatch, forked):
    """What a machine of the cluster does when Ray interrupts it: SIGTERM for the run, which saves."""
    recipe = write("s.gin", QUICK.replace("run.epochs = 2", "run.epochs = 500"))
    monkeypatch.chdir(tmp_path)
    (cell,) = cells([str(recipe)], seeds=[0], sweep={})

    def interrupt():
        until = time.monotonic() + 60
        while not any(cell.folder.glob("checkpoints/step-*")) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    code = Cluster(FakeRay())(cell.command(["--device", "cpu"]), tmp_path / "a.log")
    assert code == 75
    assert cell.state == "to resume"


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")
def test_a_study_on_a_local_ray(quick, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    ray = str(Path(sys.executable).with_name("ray"))
    begun = subprocess.run(
        [ray, "start", "--head", "--num-cpus", "2", "--include-dashboard=false", "--port", "0"], env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    try:
        done = subprocess.run(
            [sys.executable, "-m", "actkit", "run", str(quick), "--seeds", "0,1", "--executor", "ray", "--device", "cpu"],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        subprocess.run([ray, "stop", "--force"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("summary.json"))) == 2
    assert "±" in done.stdout

"""Tasks: several at a time, on this machine or a cluster; what happens to those that fail, and when a signal comes."""

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

from actkit.training.executors import Cluster, Local
from actkit.training.study import Cell, cells
from actkit.training.tasks import run_tasks
from helpers.runs import QUICK

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
    assert {line.split(";")[0] for line in said if line.startswith("start")} == {
        f"start: {name} ({tmp_path / name}.log)" for name in ("bad", "good", "flagged")
    }
    assert sorted(line[:5] for line in said if line.startswith("[")) == ["[2/4]", "[3/4]", "[4/4]"]


def test_a_cell_whose_numbers_are_unverified_says_why_a_line_a_red_flag(tmp_path):
    found = {"numbers": {}, "images": 4, "columns": [], "threat": None, "flags": [], "verified": False, "because": ["robust, noise: 3 of 4 images", "robust, APGD-T: 0 of 4"]}  # fmt: skip

    class Doubted(Fake):
        def __call__(self, arguments, log):
            code = super().__call__(arguments, log)
            read = json.loads(FINE) | {"results": {"robust.pgd": found}}
            (log.with_suffix("") / "summary.json").write_text(json.dumps(read))
            return code

    said = []
    _, code = run_tasks(fake_cells(tmp_path, ["a"]), Doubted({"a": 3}), say=said.append)
    assert code == 3
    assert said[-2:] == ["      UNVERIFIED: robust, noise: 3 of 4 images", "      UNVERIFIED: robust, APGD-T: 0 of 4"]


def test_how_far_the_whole_is_is_shown_while_it_runs(tmp_path):
    shown = []
    run_tasks(fake_cells(tmp_path, ["a", "b"]), Fake({"a": 0, "b": 1}), say=lambda text: None, show=shown.append)
    assert {one.cells for one in shown} == {2}
    assert shown[-1].ended == 2


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
    until = time.monotonic() + 300
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
            until = time.monotonic() + 300
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
    log = study[0].folder.with_name(study[0].folder.name + ".log").read_text()
    assert log.index("epoch 2/2") < log.index("PGD-2 worst run") < log.index("files      ")


def test_a_machine_of_the_cluster_that_is_gone_is_a_failure(tmp_path):
    class Gone(FakeRay):
        def get(self, task):
            raise self.exceptions.RayError("the node died\nmore")

    ended, code = run_tasks(fake_cells(tmp_path, ["a"]), Cluster(Gone()), say=lambda text: None)
    assert code == 1
    assert ended[0].error == "RayError: the node died"


def test_a_cancelled_task_lets_its_run_save(write, tmp_path, monkeypatch, forked):
    """What a machine of the cluster does when Ray interrupts it: SIGTERM for the run, which saves."""
    recipe = write("s.gin", QUICK.replace("run.epochs = 2", "run.epochs = 2000"))
    monkeypatch.chdir(tmp_path)
    (cell,) = cells([str(recipe)], seeds=[0], sweep={})

    def interrupt():
        until = time.monotonic() + 300
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

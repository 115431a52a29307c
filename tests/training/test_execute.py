"""Runs: the same seed gives the same weights, also across a stop; what a folder holds; what a checkpoint promises."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actkit.config.recipe import load_recipe
from actkit.errors import InputError
from actkit.files import locked, umask
from actkit.networks import model_files
from actkit.reports.rows import summary_caption
from helpers import ROOT
from helpers.runs import QUICK, Mute, go, recipe, same, weights

FREE = """
include 'digits.gin'
run.objective = @objective.free()
objective.free.eps = 0.1
objective.free.step_size = 0.05
objective.free.replays = 2
dataset.digits.test_fraction = 0.8
run.epochs = 2
run.batch_size = 128
run.monitor = []
run.evaluation = [@probe.accuracy()]
backbone.resnet.width = 4
role.schedule = @schedule.OneCycleLR()
role.schedule_every = 'batch'
schedule.OneCycleLR.max_lr = 0.05
dataset.digits.crop = 1
"""
TEXTS = {"act": QUICK, "free": FREE, "fast": FREE.replace("free", "fast").replace("objective.fast.replays = 2\n", "")}


def test_two_runs_with_one_seed_give_identical_weights_and_another_seed_others(write, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        go(recipe(write, f"run.seed={seed}"), tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert same(a, b)
    assert not same(a, c)
    results = [json.loads((tmp_path / name / "summary.json").read_text())["results"] for name in "ab"]
    assert results[0] == results[1]
    assert not a["robust.conv1.weight"].equal(a["natural.conv1.weight"]), "the two models start apart"


@pytest.fixture(scope="module", params=TEXTS)
def straight(request, tmp_path_factory) -> tuple[str, Path]:
    """A recipe, and the run of it that nothing stopped."""
    base = tmp_path_factory.mktemp("straight")
    (base / "quick.gin").write_text(TEXTS[request.param])
    go(load_recipe(str(base / "quick.gin")), base / "run")
    return TEXTS[request.param], base / "run"


@pytest.mark.parametrize("stop_at", [1, 3, 4], ids=["mid-epoch", "end of epoch", "mid second epoch"])
def test_a_run_stopped_in_the_middle_and_resumed_gives_the_straight_runs_weights(write, tmp_path, straight, stop_at):
    text, whole = straight
    made = recipe(write, text=text)
    stopped = go(made, tmp_path / "stopped", Mute(stop_at))
    assert stopped.exit_code == 75
    assert model_files.newest(tmp_path / "stopped/checkpoints")[0].name == f"step-{stop_at:08d}"
    assert go(made, tmp_path / "stopped").exit_code == 0
    assert same(weights(whole), weights(tmp_path / "stopped"))
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, tmp_path / "stopped")
    ]
    assert losses[0] == losses[1]


def test_looking_at_the_models_between_epochs_changes_nothing(write, tmp_path):
    go(recipe(write), tmp_path / "blind")
    go(recipe(write, "run.monitor=[@probe.accuracy(), @pgd/probe.robust_accuracy()]"), tmp_path / "watched")
    assert same(weights(tmp_path / "blind"), weights(tmp_path / "watched"))
    assert "worst_run" in (tmp_path / "watched/metrics.jsonl").read_text()


def test_metrics_stand_in_a_csv_also_after_a_resume(write, tmp_path):
    made = recipe(write, "run.monitor=[@pgd/probe.robust_accuracy()]", "run.epochs=3", "run.monitor_every=2")
    assert go(made, tmp_path / "run", Mute(4)).exit_code == 75
    assert go(made, tmp_path / "run").exit_code == 0
    entries = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss.robust"]) for row in rows] == [e["loss"]["robust"] for e in entries]
    seen = [e.get("monitor", {}).get("robust.pgd", {}).get("worst_run", "") for e in entries]
    assert [row["monitor.robust.pgd.worst_run"] and float(row["monitor.robust.pgd.worst_run"]) for row in rows] == seen
    assert seen[0] == "" and seen[1] != ""


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra `tensorboard`")
def test_tensorboards_events_are_the_metrics_each_epoch_once_also_after_a_kill(write, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = recipe(write, "run.monitor=[@pgd/probe.robust_accuracy()]", "run.epochs=3", "run.save_every=2")
    assert go(made, tmp_path / "run", Mute(4), tensorboard=True).exit_code == 75
    assert go(made, tmp_path / "run", tensorboard=True).exit_code == 0
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    entries = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = [(e.step, e.value) for e in events.Scalars("loss/robust")]
    assert found == [(e["step"], pytest.approx(e["loss"]["robust"])) for e in entries]
    assert [e.step for e in events.Scalars("monitor/robust.pgd.worst_run")] == [e["step"] for e in entries]


def test_tensorboard_that_is_not_there_is_told(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"actkit\[tensorboard\]"):
        go(recipe(write), tmp_path / "run", tensorboard=True)


def test_a_done_run_says_so_and_does_nothing(write, tmp_path):
    made = recipe(write)
    first = go(made, tmp_path / "run")
    before = (tmp_path / "run/summary.json").stat().st_mtime_ns
    display = Mute()
    again = go(made, tmp_path / "run", display)
    assert "this run is done" in display.notes[-1]
    assert again.summary == first.summary
    assert (tmp_path / "run/summary.json").stat().st_mtime_ns == before


def test_the_folder_holds_its_recipe_and_results(write, tmp_path):
    made = recipe(write)
    go(made, tmp_path / "run")
    assert load_recipe(str(tmp_path / "run/config.gin")).spec == made.spec
    names = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "metrics.csv",
        "summary.json",
        "probes/robust.pgd20.json",
        "probes/robust.pgd20.safetensors",
    } <= names
    about = json.loads((tmp_path / "run/probes/robust.pgd20.json").read_text())
    hits = load_file(tmp_path / "run/probes/robust.pgd20.safetensors")["correct"]
    assert hits.shape == (2, 100)
    assert about["numbers"]["worst_run"] == pytest.approx(hits.double().mean(1).min().item())
    assert about["numbers"]["per_example_worst"] == pytest.approx(hits.all(0).double().mean().item())
    assert about["command"] == "actkit run quick.gin"


def test_a_folder_of_other_settings_is_refused_and_the_difference_shown(write, tmp_path):
    go(recipe(write), tmp_path / "run")
    with pytest.raises(
        InputError, match=r"other settings(.|\n)*run.objective.alpha: 0.5 there, 0.7 now(.|\n)*choose another --out"
    ):
        go(recipe(write, "objective.act.alpha=0.7"), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("...")
    with pytest.raises(InputError, match="not empty and holds no run"):
        go(recipe(write), tmp_path / "mine")


def test_a_run_that_never_saved_may_change_its_mind(write, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        go(recipe(write, "run.data=imagefolder", "dataset.imagefolder.root=nowhere"), tmp_path / "run")
    assert go(recipe(write), tmp_path / "run").exit_code == 0


def test_how_data_are_fetched_and_read_is_not_part_of_a_run(write, tmp_path):
    from actkit.training.folder import folder_of

    plain, fetching = (load_recipe("gin/act_cifar10.gin", extra) for extra in ([], ["dataset.cifar10.download=true"]))
    assert folder_of(plain) == folder_of(fetching)
    held = [
        ["run.data=holdout", "dataset.holdout.data=cifar10", *extra]
        for extra in ([], ["dataset.cifar10.download=true"])
    ]
    assert len({folder_of(load_recipe("gin/act_cifar10.gin", settings)) for settings in held}) == 1
    workers = [load_recipe("gin/act_imagenet.gin", [f"dataset.imagenet.workers={n}"]) for n in (0, 4)]
    assert len({folder_of(made) for made in workers}) == 1
    assert folder_of(plain) != folder_of(load_recipe("gin/act_cifar10.gin", ["dataset.cifar10.crop=2"]))


def test_a_broken_newest_checkpoint_does_not_count_when_old_ones_are_pruned(write, tmp_path):
    made = recipe(write, "run.keep=1")
    go(made, tmp_path / "run", Mute(4))
    flip(newest(tmp_path / "run") / "robust.safetensors")
    go(recipe(write, "run.keep=1"), tmp_path / "other", Mute(2))
    shutil.copytree(newest(tmp_path / "other"), tmp_path / "run/checkpoints/step-00000002")
    display = Mute(3)
    go(made, tmp_path / "run", display)
    assert len(display.warnings) == 1
    assert model_files.newest(tmp_path / "run/checkpoints")[0].name == "step-00000003"


def test_a_temporary_folder_of_a_killed_writer_is_no_obstacle(write, tmp_path):
    left = tmp_path / f"run/checkpoints/.tmp-{os.getpid()}-step-00000003"
    left.mkdir(parents=True)
    (tmp_path / "run/config.json").write_text("{}")
    go(recipe(write), tmp_path / "run")
    assert not left.exists()


def test_tied_weights_are_saved(tmp_path):
    from actkit.networks.model_files import save_tensors

    weight = torch.rand(3)
    save_tensors({"a": weight, "b": weight}, tmp_path / "tied.safetensors")
    assert load_file(tmp_path / "tied.safetensors")["b"].equal(weight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["role.backbone=mlp"], "backbone.mlp.. does not take images of 1x8x8"),
        (["optimizer.SGD.lr=-1.0"], "optimizer.SGD.*cannot be made: Invalid learning rate"),
        (["optimizer.SGD.nesterov=true", "optimizer.SGD.momentum=0.0"], "cannot be made: Nesterov"),
        (
            ["run.evaluation=[@probe.robust_accuracy(), @probe.robust_accuracy()]"],
            "run.evaluation: two probes are called 'robust_accuracy'",
        ),
        (["run.stop_on_drop=0.2"], "watches accuracy under attack, and no probe in run.monitor attacks"),
        (["role.schedule=ReduceLROnPlateau"], "there is no component 'schedule.ReduceLROnPlateau'"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else None,
)
def test_settings_that_cannot_work_together_are_told(write, tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        go(recipe(write, *overrides), tmp_path / "run")


def test_act_on_an_image_folder_trains_some_steps_and_is_evaluated(actkit, tmp_path):
    from helpers.images import folder

    folder(tmp_path / "images", size=(32, 32), per_class=4)
    said = actkit(
        "run", "gin/act_cifar10.gin", "--out", tmp_path / "run", "--device", "cpu", "-s", "run.data=imagefolder",
        "-s", f"dataset.imagefolder.root={tmp_path / 'images'}", "-s", "run.steps=2", "-s", "run.batch_size=4", "-s", "role.backbone=resnet", "-s", "train/attack.pgd.steps=1",
        "-s", "eval/attack.pgd.steps=1", "-s", "probe.robust_accuracy.starts=1", "-s", "run.monitor=[]",
        "-s", "run.evaluation=[@probe.accuracy(), @pgd20/probe.robust_accuracy()]",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["robust", "natural"]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    repeated = json.loads(actkit("probe", "--ckpt", tmp_path / "run", "--json", "--device", "cpu").out)[0]
    assert repeated["results"] == summary["results"]


def test_a_second_run_in_the_same_folder_is_refused(write, tmp_path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(InputError, match=r"another run is using this folder \(process \d+"),
    ):
        go(recipe(write), tmp_path / "run")


def test_steps_bound_a_training(write, tmp_path):
    outcome = go(recipe(write, "run.steps=2"), tmp_path / "run")
    assert (outcome.summary.to_json()["steps"], outcome.summary.to_json()["epochs"]) == (2, 0)
    assert set(outcome.summary.to_json()["results"]) == {
        "robust.accuracy",
        "robust.pgd20",
        "natural.accuracy",
        "natural.pgd20",
    }


def test_a_helper_keeps_its_weights_and_starts_from_a_checkpoint(write, tmp_path):
    from actkit.config.registry import register
    from actkit.losses import cross_entropy

    @register("objective", "test_helped")
    def helped(x, y, robust, helper):
        yield {robust: cross_entropy(robust(x) + helper(x), y)}

    go(recipe(write), tmp_path / "first")
    overrides = [
        "run.objective=@objective.test_helped()",
        "robust/role.optimizer=@optimizer.SGD()",
        f"helper/role.weights={tmp_path / 'first'}",
    ]
    text = QUICK.replace("act_digits", "digits")
    with pytest.raises(InputError, match=r"could be any of natural.safetensors, robust.safetensors"):
        go(recipe(write, *overrides, "helper/role.optimizer=none", text=text), tmp_path / "second")
    file = model_files.find(tmp_path / "first")[1]
    go(
        recipe(write, *overrides[:2], f"helper/role.weights={file}", "helper/role.optimizer=none", text=text),
        tmp_path / "third",
    )
    first, second = weights(tmp_path / "first"), weights(tmp_path / "third")
    assert all(
        first[f"robust.{k.removeprefix('helper.')}"].equal(v) for k, v in second.items() if k.startswith("helper.")
    )


@pytest.fixture
def looks(monkeypatch):
    """Let the monitor see these accuracies under attack."""
    import actkit.training.execute as module

    def see(*accuracies: float) -> None:
        seen, real = iter(accuracies), module.examine

        def examine(probes, roles, data, progress=None):
            results = real(probes, roles, data, progress)
            if len(probes) == 1:
                results["robust.pgd"].numbers["worst_run"] = next(seen)
            return results

        monkeypatch.setattr(module, "examine", examine)

    return see


STOPPED = ["run.epochs=9", "run.monitor=[@pgd/probe.robust_accuracy()]", "run.stop_on_drop=0.3"]


def test_a_sudden_fall_of_robustness_stops_the_run_and_the_epoch_before_it_is_examined_beside_the_last(
    write, tmp_path, looks
):
    looks(0.6, 0.65, 0.1)
    display = Mute()
    outcome = go(recipe(write, *STOPPED), tmp_path / "run", display)
    said = outcome.summary.to_json()
    assert (outcome.exit_code, said["epochs"], said["trained_epochs"], said["stopped_early"]) == (3, 2, 3, True)
    assert "fell from 65.0 to 10.0 %" in display.warnings[0]
    assert "examining epoch 2, the last before accuracy under attack fell, and epoch 3, after the fall" in display.notes
    assert {"robust", "natural", "robust.last", "natural.last"} == set(outcome.summary.model_names)
    assert [file.parent.name for file in model_files.find(tmp_path / "run")] == ["step-00000006"] * 2
    assert "2 epochs (6 batches), the last before robustness fell; the training went on to epoch 3" in " ".join(
        summary_caption(outcome.summary)
    )


@pytest.mark.parametrize(
    "more",
    [["run.keep=1"], ["run.save_every=5"], ["run.monitor_every=2", "run.keep=1"]],
    ids=["one is kept", "few are saved", "seldom looked at"],
)
def test_the_epoch_before_a_fall_is_there_however_few_checkpoints_are_kept(write, tmp_path, looks, more):
    looks(0.6, 0.65, 0.1)
    outcome = go(recipe(write, *STOPPED, *more), tmp_path / "run")
    every = 2 if "run.monitor_every=2" in more else 1
    run = outcome.summary.run
    assert (run.epochs, run.trained_epochs) == (2 * every, 3 * every)
    kept = {path.name for path in (tmp_path / "run/checkpoints").glob("step-*")}
    assert {f"step-{6 * every:08d}", f"step-{9 * every:08d}"} <= kept


def test_a_run_that_fell_and_was_stopped_before_its_examination_goes_on_with_the_epoch_before(write, tmp_path, looks):
    looks(0.6, 0.65, 0.1)
    made = recipe(write, *STOPPED)
    go(made, tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    (tmp_path / "run/checkpoints/best").unlink()
    assert go(made, tmp_path / "run").summary.run.epochs == 2


@pytest.mark.parametrize(("rate", "warned"), [(0.05, True), (-0.05, False)], ids=["loss falls", "loss rises"])
def test_a_sudden_fall_is_a_warning_only_if_the_training_loss_falls_too(write, tmp_path, looks, rate, warned):
    looks(0.6, 0.3, 0.3)
    display = Mute()
    settings = [
        "run.epochs=3",
        "run.monitor=[@pgd/probe.robust_accuracy()]",
        "optimizer.SGD.weight_decay=0.0",
        "optimizer.SGD.momentum=0.0",
    ]
    if rate < 0:
        settings.append("optimizer.SGD.maximize=true")
    outcome = go(recipe(write, *settings, f"optimizer.SGD.lr={abs(rate)}"), tmp_path / "run", display)
    assert outcome.exit_code == 0
    assert any("fell from" in warning for warning in display.warnings) is warned


def test_diverged_weights_are_never_saved(write, tmp_path):
    made = recipe(write, "optimizer.SGD.lr=1e20", "run.epochs=3")
    from actkit.errors import ActkitError

    with pytest.raises(ActkitError, match="training diverged") as caught:
        go(made, tmp_path / "run")
    assert caught.value.exit_code == 1
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


# -- checkpoints ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("finished")
    (base / "quick.gin").write_text(QUICK)
    go(load_recipe(str(base / "quick.gin")), base / "run")
    return base / "run"


@pytest.fixture
def run_copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def test_probe_rebuilds_the_models_from_their_files_alone_and_repeats_the_numbers(
    actkit, finished, tmp_path, monkeypatch
):
    summary = json.loads((finished / "summary.json").read_text())
    alone = tmp_path / "elsewhere"
    shutil.copytree(newest(finished), alone)
    monkeypatch.chdir(tmp_path)
    for path in (finished, alone):
        said = actkit("probe", "--ckpt", path, "--json", "--device", "cpu")
        assert said.code == 0
        assert json.loads(said.out)[0]["results"] == summary["results"]
    one = json.loads(actkit("probe", "--ckpt", alone / "robust.safetensors", "--json", "--device", "cpu").out)[0]
    assert one["results"] == {k: v for k, v in summary["results"].items() if k.startswith("robust")}


def test_probe_shows_the_table_and_takes_another_attack(actkit, finished):
    said = actkit("probe", "--ckpt", finished, "-s", "attack.pgd.steps=3", "--device", "cpu")
    assert "PGD-3 worst run" in said.out
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["robust", "natural"]
    said = actkit("probe", "--ckpt", finished, "-s", "dataset.cifar10.root=x")
    assert (said.code, "there is no dataset.cifar10 here" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda c: (c / "robust.safetensors").write_bytes((c / "robust.safetensors").read_bytes()[:500]),
            "robust.safetensors has 500 bytes",
        ),
        (lambda c: flip(c / "robust.safetensors"), "was altered"),
        (lambda c: (c / "natural.safetensors").unlink(), "natural.safetensors is missing"),
        (lambda c: (c / "manifest.json").write_text("{"), "manifest cannot be read"),
        (lambda c: (c / "manifest.json").unlink(), "no whole checkpoint|no manifest.json"),
    ],
    ids=["cut short", "one bit flipped", "file gone", "manifest torn", "manifest gone"],
)
def test_a_harmed_checkpoint_is_told_by_probe_and_passed_over_by_a_resume(actkit, write, run_copy, harm, message):
    harm(newest(run_copy))
    said = actkit("probe", "--ckpt", newest(run_copy))
    assert said.code == 2
    assert __import__("re").search(message, said.err)
    assert "Traceback" not in said.err
    (run_copy / "summary.json").unlink()  # so that the run goes on
    display = Mute()
    straight = weights(run_copy) if model_files.problem(newest(run_copy)) is None else None
    outcome = go(recipe(write), run_copy, display)
    assert straight is None
    assert "going back to the one before" in display.warnings[0]
    assert outcome.summary.to_json()["steps"] == 6


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such checkpoint"),
        (b"", "cannot be read"),
        (b"not a checkpoint at all", "cannot be read"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "cannot be read"),
    ],
    ids=["missing", "empty", "text", "a header of a terabyte"],
)
def test_a_single_file_that_is_no_checkpoint_is_told(actkit, tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    said = actkit("probe", "--ckpt", path)
    assert (said.code, message in said.err, "Traceback" in said.err) == (2, True, False)


def test_a_single_file_cut_short_or_of_another_network_is_told(actkit, finished, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = newest(finished) / "robust.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-1])
    assert (actkit("probe", "--ckpt", cut).code, "cut short" in actkit("probe", "--ckpt", cut).err) == (2, True)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    other = load_file(file)
    other["fc.weight"] = torch.zeros(3, 3)
    save_file(other, tmp_path / "shape.safetensors", metadata=header)
    assert (
        "fc.weight has shape (3, 3), the model needs" in actkit("probe", "--ckpt", tmp_path / "shape.safetensors").err
    )
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "no description of its model" in actkit("probe", "--ckpt", tmp_path / "foreign.safetensors").err


def test_a_folder_of_one_run_stands_for_it_and_one_of_several_is_told(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "recipe/seed0")
    assert model_files.find(tmp_path / "recipe") == model_files.find(tmp_path / "recipe/seed0")
    shutil.copytree(finished, tmp_path / "recipe/seed1")
    with pytest.raises(InputError, match=r"there are 2 runs here(.|\n)*choose one"):
        model_files.find(tmp_path / "recipe")


def test_a_folder_that_is_no_run_is_told(actkit, tmp_path):
    said = actkit("probe", "--ckpt", tmp_path)
    assert (said.code, "neither a run nor a checkpoint" in said.err) == (2, True)


def test_only_the_newest_checkpoints_are_kept_and_files_are_readable_by_others(finished):
    steps = sorted((finished / "checkpoints").glob("step-*"))
    assert [s.name for s in steps] == ["step-00000003", "step-00000006"]
    assert (steps[-1] / "robust.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask()


CRASH = """
import os, sys, pathlib, torch
sys.path.insert(0, sys.argv[4])
from actkit.config.recipe import load_recipe
from actkit import files
from actkit.networks import model_files
from actkit.training.execute import execute
from helpers.runs import Mute
calls, at = [0], int(sys.argv[3])
def dying(real):
    def call(*a, **k):
        calls[0] += 1
        if calls[0] == at: os._exit(9)
        return real(*a, **k)
    return call
files.fsync = dying(files.fsync)
model_files.fsync = dying(model_files.fsync)
pathlib.Path.replace = dying(pathlib.Path.replace)
execute(load_recipe(sys.argv[1]), out=sys.argv[2], device=torch.device("cpu"), display=Mute(), command="x")
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 33, 3))
def test_a_kill_at_any_moment_of_saving_loses_no_whole_checkpoint(warm, write, tmp_path, finished, at):
    path = write("quick.gin", QUICK)
    done = subprocess.run([warm, "-c", CRASH, path, tmp_path / "run", str(at), ROOT / "tests"], check=False)
    assert done.returncode in (0, 9)
    go(load_recipe(str(path)), tmp_path / "run")
    assert same(weights(tmp_path / "run"), weights(finished))
    assert not list((tmp_path / "run/checkpoints").glob(".tmp*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_the_command_with_its_exit_code_and_a_whole_checkpoint(warm, write, tmp_path, number, code):
    path = write("quick.gin", QUICK.replace("run.epochs = 2", "run.epochs = 4000"))
    command = [warm, "-m", "actkit", "run", str(path), "--out", str(tmp_path / "run"), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("run/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    found, warnings = model_files.newest(tmp_path / "run/checkpoints")
    assert found is not None
    assert warnings == []
    state = json.loads((found / "state.json").read_text())
    assert ["step", int(found.name[5:])] in state["$dict"][0][1]["$dict"]


def test_a_stop_while_examining_says_that_what_is_measured_is_kept_and_how_to_go_on(write, tmp_path, finished):
    class Stopped(Mute):
        def say(self, text, style=""):
            super().say(text, style)
            if text.startswith("examining"):
                os.kill(os.getpid(), signal.SIGTERM)

    display, made = Stopped(), load_recipe(str(write("quick.gin", QUICK)))
    with pytest.raises(SystemExit) as ended:
        go(made, tmp_path / "run", display)
    assert ended.value.code == 75
    assert display.notes[-1].startswith("stopped while examining: the models are trained and saved")
    assert display.notes[-1].endswith(f"what is measured so far is kept; the same command goes on from there: {tmp_path / 'run'}")  # fmt: skip
    assert go(made, tmp_path / "run").summary.to_json()["results"] == json.loads((finished / "summary.json").read_text())["results"]  # fmt: skip


def test_a_run_notes_how_large_its_models_are_how_long_it_was_examined_and_shows_adversarial_images(finished):
    noted = json.loads((finished / "environment.json").read_text())
    assert noted["parameters"].keys() == {"robust", "natural"}
    assert noted["examination_seconds"] > 0
    shown = json.loads((finished / "probes/adversarial_images.picture.json").read_text())
    assert [row["name"] for row in shown["data"]["rows"]] == ["robust", "natural"]
    assert "adversarial_images" not in (finished / "summary.json").read_text()


def test_the_first_lines_of_a_run_say_what_is_trained_on_what_and_how_it_will_be_examined(write, tmp_path):
    display = Mute(stop_at=1)
    go(recipe(write), tmp_path / "run", display)
    said = "\n".join(display.notes)
    assert "trains     robust and natural: 2 epochs of 3 batches of 128, fp32, seed 0" in said
    assert "data       digits: 359 training and 1,438 test images of 1x8x8, 10 classes" in said
    assert "examined   at the end by accuracy, pgd20" in said


# -- the best by a validation split --------------------------------------------------------------------------------------

CHOOSING = [
    "run.data=holdout", "dataset.holdout.data=digits", "dataset.holdout.size=100", "run.epochs=5", "run.keep=1", "run.best=pgd",
    "run.monitor=[@pgd/probe.robust_accuracy()]", "pgd/probe.robust_accuracy.split=val", "pgd/probe.robust_accuracy.starts=1",
]  # fmt: skip


def test_the_best_epoch_by_the_validation_split_is_kept_examined_and_meant_by_the_run(write, tmp_path, looks, actkit):
    looks(0.1, 0.3, 0.5, 0.4, 0.45)
    made = recipe(write, *CHOOSING)
    outcome = go(made, tmp_path / "run")
    steps = sorted(p.name for p in (tmp_path / "run/checkpoints").glob("step-*"))
    assert steps == ["step-00000009", "step-00000015"]  # the best of three epochs of 3 batches, and the last
    assert (
        outcome.summary.to_json()["epochs"],
        outcome.summary.to_json()["steps"],
        outcome.summary.to_json()["trained_epochs"],
    ) == (3, 9, 5)
    again = json.loads(actkit("probe", "--ckpt", tmp_path / "run", "--json", "--device", "cpu").out)[0]
    assert again["results"] == {n: r for n, r in outcome.summary.to_json()["results"].items() if ".last." not in n}
    last = json.loads(
        actkit("probe", "--ckpt", tmp_path / "run/checkpoints" / steps[1], "--json", "--device", "cpu").out
    )[0]
    lasts = {n.replace(".last.", "."): r for n, r in outcome.summary.to_json()["results"].items() if ".last." in n}
    assert {n: r["numbers"] for n, r in last["results"].items()} == {n: r["numbers"] for n, r in lasts.items()}
    shown = actkit(
        "run", tmp_path / "quick.gin", *(part for s in CHOOSING for part in ("-s", s)), "--out", tmp_path / "run"
    )
    assert "seed 0, 3 epochs (9 batches), the best of 5 by pgd" in shown.out
    # Choosing looks, and changes nothing of the training.
    go(recipe(write, *CHOOSING[:5], "run.monitor=[]"), tmp_path / "blind")
    straight, _ = model_files.newest(tmp_path / "blind/checkpoints")
    for file in ("robust.safetensors", "natural.safetensors"):
        assert same(load_file(straight / file), load_file(tmp_path / "run/checkpoints" / steps[1] / file))


def test_a_stop_and_a_resume_choose_the_same_epoch(write, tmp_path, looks):
    looks(0.1, 0.5, 0.3, 0.4, 0.45)
    made = recipe(write, *CHOOSING, "run.save_every=2")
    assert go(made, tmp_path / "run", Mute(8)).exit_code == 75
    outcome = go(made, tmp_path / "run")
    assert (outcome.summary.to_json()["epochs"], outcome.summary.to_json()["best"]) == (2, "pgd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["pgd/probe.robust_accuracy.split=test"], "would choose a model by the split 'test'; only 'val' may choose"),
        (["run.best=pdg"], "run.best = 'pdg' is no probe in run.monitor"),
        (["run.data=digits"], "digits has no split 'val'"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else None,
)
def test_a_model_is_never_chosen_by_the_test_set(write, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        go(recipe(write, *CHOOSING, *change), tmp_path / "run")


# -- images that stay in their files ---------------------------------------------------------------------------------------

LARGE = [
    "run.data=imagenet", "dataset.imagenet.size=8", "dataset.imagenet.mode=L", "run.batch_size=5", "run.epochs=2",
    "train/attack.pgd.steps=1", "run.evaluation=[@probe.accuracy(), @pgd20/probe.robust_accuracy()]",
]  # fmt: skip


def test_a_run_on_files_stops_and_resumes_bit_for_bit_whatever_the_workers(write, tmp_path):
    from helpers.images import photographs

    root = f"dataset.imagenet.root={photographs(tmp_path / 'images')}"
    go(recipe(write, *LARGE, root, "dataset.imagenet.workers=0"), tmp_path / "straight")
    made = recipe(write, *LARGE, root, "dataset.imagenet.workers=2")
    assert go(made, tmp_path / "stopped", Mute(2)).exit_code == 75
    outcome = go(recipe(write, *LARGE, root, "dataset.imagenet.workers=1"), tmp_path / "stopped")
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))
    straight = json.loads((tmp_path / "straight/summary.json").read_text())
    assert straight["results"] == outcome.summary.to_json()["results"]
    assert straight["data_fingerprint"]["test"].startswith("files-")


# -- what a person may meet ------------------------------------------------------------------------------------------------


def test_a_damaged_newest_checkpoint_is_never_examined_as_if_it_were_the_run(actkit, run_copy):
    steps = sorted((run_copy / "checkpoints").glob("step-*"))
    flip(steps[-1] / "robust.safetensors")
    for command in (["probe", "--ckpt", run_copy], ["export", run_copy, "--out", run_copy.parent / "e"]):
        said = actkit(*command)
        assert said.code == 2
        assert "the run's newest checkpoint is damaged" in said.err
        assert f"give the one before by its name: {steps[0]}" in said.err
        assert said.out == ""
    assert actkit("probe", "--ckpt", steps[0], "--probe", "accuracy").code == 0
    assert actkit("report", run_copy).code == 0  # what was measured while it was whole


def test_best_without_a_look_is_told_and_not_claimed(write, tmp_path, actkit):
    display = Mute()
    outcome = go(recipe(write, *CHOOSING, "run.steps=1"), tmp_path / "run", display)
    assert "no epoch ended" in display.warnings[0]
    assert outcome.summary.to_json()["best"] is None
    assert (outcome.summary.to_json()["steps"], outcome.summary.to_json()["epochs"]) == (1, 0)


@pytest.mark.parametrize("command", ["export", "probe", "probe --csv", "import"])
def test_a_place_that_cannot_be_written_gets_one_line(actkit, finished, command, tmp_path):
    if command == "import":
        from actkit.config.spec import Spec

        torch.save(
            Spec("backbone", "resnet", {"width": 16, "layers": [1, 1]}).build()(10, in_chans=1).state_dict(),
            tmp_path / "m.pt",
        )
        args = [
            "import",
            tmp_path / "m.pt",
            "--arch",
            "resnet",
            "--like",
            "gin/digits.gin",
            "--out",
            "/proc/z.safetensors",
        ]
    else:
        option = "--csv" if "csv" in command else "--out"
        ckpt = [finished] if command == "export" else ["--ckpt", finished, "--probe", "accuracy"]
        args = [command.split()[0], *ckpt, option, "/proc/z/z"]
    said = actkit(*args)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("  help:")
    assert "cannot be" in said.err
    assert "Traceback" not in said.err


def test_a_model_can_be_examined_on_another_data_set(actkit, finished, tmp_path):
    from helpers.images import folder

    folder(tmp_path / "images", size=(8, 8), per_class=3, classes=tuple("0123456789"))
    given = [
        "-s",
        "run.data=imagefolder",
        "-s",
        f"dataset.imagefolder.root={tmp_path / 'images'}",
        "-s",
        "dataset.imagefolder.mode=L",
    ]
    said = actkit("probe", "--ckpt", finished, "--probe", "accuracy", *given)
    assert said.code == 0, said.err
    assert "imagefolder:images" in said.out
    said = actkit("probe", "--ckpt", finished, "-s", "run.data=imagefodler")
    assert said.code == 2
    assert "did you mean 'dataset.imagefolder'" in said.err


def test_foreign_files_and_unknown_roles_get_the_next_step(actkit, finished, tmp_path):
    torch.save({"a.b": torch.zeros(2)}, tmp_path / "x.pth")
    assert "`actkit import` makes a checkpoint" in actkit("probe", "--ckpt", tmp_path / "x.pth").err
    assert "did you mean 'natural'" in actkit("probe", "--ckpt", finished, "--role", "natrual").err

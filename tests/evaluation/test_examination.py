"""`actkit probe`: which probes on which models, in which tables; interruption; what a red flag does."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.evaluation.selection import Subject, names_of, probes_named
from actkit.files import sha256
from actkit.networks import model_files
from actkit.networks.normalisation import NONE_FOUND
from helpers.runs import QUICK


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs on digits: ACT (two models) and Madry."""
    from actkit.cli.group import main

    base = tmp_path_factory.mktemp("runs")
    for name in ("act", "madry"):
        (base / f"{name}.gin").write_text(QUICK.replace("act_digits", f"{name}_digits"))
        with pytest.raises(SystemExit) as stop:
            main.main(["run", str(base / f"{name}.gin"), "--out", str(base / name), "--device", "cpu"])
        assert not stop.value.code
    return base


FEW = ("-s", "dataset.digits.test_fraction=0.05", "--device", "cpu")


def columns(said) -> list[str]:
    return re.split(r"  +", said.out.splitlines()[0].strip())


def test_transfer_gives_the_matrix_of_table_3(actkit, runs):
    said = actkit("probe", "--probe", "transfer", "--ckpt", runs / "act", "--ckpt", runs / "madry", *FEW)
    assert said.code == 0, said.err + said.out
    assert columns(said) == [
        "model",
        *(f"{title} (linf 0.15)" for title in ("PGD-2 from act", "from act.natural", "from madry")),
    ]
    assert [line.split()[0] for line in said.out.splitlines()[1:4]] == ["act", "act.natural", "madry"]
    found = json.loads(
        actkit(
            "probe",
            "--json",
            "--probe",
            "transfer",
            "--role",
            "headline",
            "--ckpt",
            runs / "act",
            "--ckpt",
            runs / "madry",
            *FEW,
        ).out
    )[0]
    assert list(found["results"]) == ["act.transfer", "madry.transfer"]
    assert list(found["models"]) == ["act", "madry"]
    assert all(set(r["numbers"]) == {"act", "madry"} for r in found["results"].values())


def test_models_of_one_evaluation_share_a_table_and_those_of_another_eps_do_not(actkit, runs):
    both = actkit("probe", "--ckpt", runs / "act", "--ckpt", runs / "madry", *FEW)
    assert both.code == 0
    assert [line.split()[0] for line in both.out.splitlines()[1:4]] == ["act", "act.natural", "madry"]
    assert both.out.count("model ") == 1 and "different evaluations" not in both.err


def with_eps(runs, tmp_path, eps):
    """The Madry model, as if it had been saved with another eps."""
    file = model_files.find(runs / "madry")[0]
    about = model_files.header(file).to_json()
    about["evaluation"] = json.loads(json.dumps(about["evaluation"]).replace('"eps": 0.15', f'"eps": "{eps}"'))
    model_files.save_tensors(load_file(file), tmp_path / "other.safetensors", {"actkit": json.dumps(about)})
    return tmp_path / "other.safetensors"


def test_results_of_different_eps_are_not_put_into_one_table_unsaid(actkit, runs, tmp_path):
    other = with_eps(runs, tmp_path, "8/255")
    said = actkit("probe", "--ckpt", runs / "act", "--ckpt", other, *FEW)
    assert "2 different evaluations or data sets: one table for each" in said.err
    assert said.out.count("model ") == 2 and "eps='8/255'" in said.out and "eps=0.15" in said.out
    matrix = actkit("probe", "--probe", "transfer", "--ckpt", runs / "act", "--ckpt", other, *FEW)
    assert "other was saved with another evaluation: all are examined as act was" in matrix.err


def test_columns_of_different_eps_or_numbers_of_images_say_theirs(actkit, runs, write):
    said = actkit("probe", "--ckpt", runs / "madry", "--evaluation", write("two.gin", TWO_EPS), *FEW)
    assert columns(said) == ["model", "PGD-2 (linf 4/255)", "PGD-2 (linf 8/255)"]
    few = ("-s", "small/probe.robust_accuracy.limit=20", "-s", "attack.pgd.eps=4/255")
    said = actkit("probe", "--ckpt", runs / "madry", "--evaluation", write("two.gin", TWO_EPS), *few, *FEW)
    assert columns(said) == ["model", "PGD-2 (linf 4/255, 20 images)", "PGD-2 (linf 4/255, 90 images)"]


TWO_EPS = """
run.evaluation = [@small/probe.robust_accuracy(), @large/probe.robust_accuracy()]
probe.robust_accuracy.starts = 1
small/probe.robust_accuracy.attack = @eval/small/attack.pgd()
large/probe.robust_accuracy.attack = @eval/large/attack.pgd()
eval/attack.pgd.steps = 2
eval/attack.pgd.step_size = 0.01
eval/small/attack.pgd.eps = '4/255'
eval/large/attack.pgd.eps = '8/255'
"""


def test_a_probe_by_its_name_takes_the_attack_of_the_models_own_evaluation(actkit, runs):
    stored = list(model_files.header(model_files.find(runs / "act")[0]).evaluation)
    (attack,) = {s.kwargs["attack"] for s in stored if "attack" in s.kwargs}
    assert probes_named("pgd20", stored) == probes_named("robust_accuracy", stored) == [stored[1]]
    assert probes_named("audit", stored) == [Spec("probe", "audit", {"attack": attack})]
    assert probes_named("autoattack", stored) == [Spec("probe", "autoattack", {"eps": 0.15})]
    l2 = [stored[1].replace(attack=attack.replace(norm="l2"))]
    assert probes_named("autoattack", l2) == [Spec("probe", "autoattack", {"eps": 0.15, "norm": "l2"})]
    assert probes_named("fgsm_k", stored) == [Spec("probe", "fgsm_k")], "it searches its eps"


def test_pgd20_by_that_name_is_the_stored_one_where_there_is_one_and_no_other_eps_is_asked_for(actkit, runs):
    said = actkit("probe", "--ckpt", runs / "madry", "--probe", "pgd20", "--eps", "0.15", *FEW)
    assert "pgd20      as it is stored with the model: probe.robust_accuracy(attack=attack.pgd(" in said.err
    assert columns(said)[1] == "PGD-2 worst run (linf 0.15)", "its label is pgd20, its steps are two"
    said = actkit("probe", "--ckpt", runs / "madry", "--probe", "pgd20", "--eps", "32/255", *FEW)
    assert (
        "pgd20      by that name: probe.robust_accuracy(attack=attack.pgd(eps='32/255', step_size='8/255'" in said.err
    )
    assert columns(said) == ["model", "PGD-20 any iterate (linf 32/255)"]
    said = actkit("probe", "--ckpt", runs / "madry", "--probe", "pgd4", "-s", "probe.robust_accuracy.limit=5", *FEW)
    assert columns(said) == ["model", "PGD-4 any iterate (linf 0.15)"], "the eps is that of the stored attack"


def test_one_option_puts_every_probe_under_a_threat_model_and_the_step_that_comes_of_it_is_said(actkit, runs, tmp_path):
    few = ("-s", "probe.autoattack.steps=2", "-s", "probe.autoattack.targets=1", "--csv", tmp_path / "numbers.csv")
    probes = ("--probe", "robust_accuracy", "--probe", "autoattack")
    said = actkit("probe", "--ckpt", runs / "madry", *probes, "--eps", "0.3", "--norm", "l2", *few, *FEW)
    assert said.code == 0, said.err
    assert "threat     pgd20: attack.pgd, 2 steps of 0.03 in l2 eps 0.3" in said.err
    assert "threat     autoattack: probe.autoattack, l2 eps 0.3" in said.err
    assert all(title.endswith("(l2 0.3)") for title in columns(said)[1:])
    rows = list(csv.DictReader((tmp_path / "numbers.csv").open()))
    assert {(row["norm"], row["eps"]) for row in rows} == {("l2", "0.3")}


@pytest.mark.parametrize("probe", ["autoattack", "audit", "pgd20"])
def test_an_eps_that_nothing_says_is_asked_for(actkit, runs, tmp_path, probe):
    file = model_files.find(runs / "madry")[0]
    about = {**model_files.header(file).to_json(), "evaluation": [Spec("probe", "accuracy").to_json()]}
    model_files.save_tensors(load_file(file), tmp_path / "mine.safetensors", {"actkit": json.dumps(about)})
    said = actkit("probe", "--ckpt", tmp_path / "mine.safetensors", "--probe", probe, *FEW)
    assert said.code == 2 and "nothing stored with the model says one" in said.err and "give --eps 8/255" in said.err
    few = ["-s", "attack.pgd.steps=5"] if probe != "autoattack" else ["-s", "probe.autoattack.steps=2"]
    said = actkit("probe", "--ckpt", tmp_path / "mine.safetensors", "--probe", probe, "--eps", "8/255", *few, *FEW)
    assert said.code == 0, said.err
    assert "eps='8/255'" in said.out and "mine" in said.out


def test_an_eps_that_is_asked_for_without_its_step_is_refused_what_a_recipe_means_is_only_said(actkit, runs, write):
    crossing = TWO_EPS.replace("step_size = 0.01", "step_size = 0.02")
    probe = ("probe", "--ckpt", runs / "madry", "--evaluation", write("two.gin", crossing), *FEW)
    said = actkit(*probe, "-s", "attack.pgd.eps=0.2")
    assert said.code == 2 and "small: 2 steps of 0.02 reach 0.04, not eps 0.2" in said.err
    assert "--eps moves the step size with eps" in said.err
    assert "most of the ball" not in actkit(*probe, "--eps", "0.2").err
    said = actkit("probe", "--ckpt", runs / "madry", "--evaluation", write("two.gin", TWO_EPS), *FEW)
    assert said.code == 0 and "warning: large: 2 steps of 0.01 reach 0.02, not eps 8/255" in said.err


@pytest.mark.parametrize(
    ("name", "settings", "titles"),
    [
        ("sweep", ["-s", "probe.sweep.values=['1/255',0.1]"], ["PGD-2 any iterate eps 1/255 (linf)", "eps 0.1 (linf)"]),
        ("sweep", ["-s", "probe.sweep.over=steps", "-s", "probe.sweep.values=[1,3]"], ["PGD any iterate steps 1 (linf 0.15)", "steps 3 (linf 0.15)"]),
        ("autoattack", ["-s", "probe.autoattack.steps=2", "-s", "probe.autoattack.queries=2"], ["APGD-CE (linf 0.15)", "+ APGD-T (linf 0.15)", "+ Square (linf 0.15)"]),
        ("fgsm_k", ["-s", "probe.fgsm_k.tries=4"], ["FGSM^k mean", "with misclassified as 0"]),
        ("pgd20", ["-s", "pgd20/probe.robust_accuracy.attack=fgsm", "-s", "probe.robust_accuracy.starts=1"], ["FGSM (linf 0.15)"]),
        ("pgd20", ["-s", "probe.robust_accuracy.mode=worst_case"], ["PGD-2 any iterate (linf 0.15)"]),
        ("accuracy", [], ["clean"]),
    ],
)  # fmt: skip
def test_every_probe_runs_by_its_name(actkit, runs, name, settings, titles):
    said = actkit("probe", "--ckpt", runs / "madry", "--probe", name, *settings, *FEW)
    assert said.code == 0, said.err
    assert columns(said)[:3] == ["model", *titles][:3]


def test_an_evaluation_may_come_from_a_recipe(actkit, runs):
    few = ["-s", "attack.pgd.steps=2", "-s", "probe.fgsm_k.tries=3"]
    said = actkit("probe", "--ckpt", runs / "madry", "--evaluation", "gin/evaluation_table2.gin", *few, *FEW)
    assert said.code == 0, said.err
    assert columns(said)[0:2] == ["model", "clean"] and "FGSM^k mean" in columns(said)
    assert "eps=0.031" in said.out, "the recipe's eps, and it is said"


def test_results_and_each_examples_outcome_can_be_kept(actkit, runs, tmp_path):
    said = actkit("probe", "--ckpt", runs / "madry", "--probe", "pgd20", "--out", tmp_path / "kept", "--json", *FEW)
    summary = json.loads(said.out)[0]
    assert json.loads((tmp_path / "kept/summary.json").read_text()) == summary
    about = json.loads((tmp_path / "kept/robust.pgd20.json").read_text())
    assert load_file(tmp_path / "kept/robust.pgd20.safetensors")["correct"].shape == (2, 90)
    assert about["threat"] == {"norm": "linf", "eps": "0.15", "value": 0.15}
    assert about["models"]["robust"]["sha256"] == sha256(model_files.find(runs / "madry")[0])
    assert about["command"].startswith("actkit probe --ckpt")


BAD = {
    "an unknown probe": (["--probe", "adit"], "there is no probe 'adit'", "audit"),
    "an unknown role": (["--role", "teacher"], "no model here has the role teacher", ""),
    "one model for transfer": (["--probe", "transfer"], "needs at least two models", "--ckpt several times"),
    "a setting of nothing": (["-s", "probe.sweep.over=eps"], "there is no probe.sweep here", ""),
    "an eps that another component has": (["-s", "probe.autoattack.eps=0.1"], "there is no probe.autoattack here", "eps is attack.pgd.eps here; --eps 8/255 sets it for every probe"),
    "an eps that an attack has": (["--probe", "autoattack", "-s", "attack.pgd.eps=0.1"], "there is no attack.pgd here", "eps is probe.autoattack.eps here; --eps 8/255"),
    "an eps that the probe's attack has": (["-s", "probe.robust_accuracy.eps=0.1"], "no parameter 'eps'", "eps is attack.pgd.eps here; --eps 8/255"),
    "a macro": (["-s", "EPS=0.1"], "no macros", "--eps 8/255"),
    "a norm without its eps": (["--norm", "l2"], "has an eps of linf", "--norm l2 --eps 0.5"),
    "a parameter that is not there": (["-s", "probe.accuracy.limits=3"], "no parameter 'limits'", "limit"),
    "grey levels for eps": (["-s", "attack.pgd.eps=8"], "eps must not be above 1, got 8", "'8/255'"),
    "a negative eps": (["-s", "attack.pgd.eps=-0.1"], "eps must not be negative", ""),
    "no steps": (["-s", "attack.pgd.steps=0"], "at least 1 step", ""),
    "another number of classes": (["-s", "dataset.digits.test_fraction=0.05", "--evaluation", "none.gin"], "config file not found", ""),
    "a setting of the training": (["-s", "train/attack.pgd.eps=0.3"], "the scope train is that of training", "write attack.pgd.eps"),
    "an evaluation without probes": (["--evaluation", "gin/cyclic.gin"], "no run.evaluation", ""),
}  # fmt: skip


@pytest.mark.parametrize(("args", "message", "remedy"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_gets_one_clear_line(actkit, runs, args, message, remedy):
    said = actkit("probe", "--ckpt", runs / "madry", "--device", "cpu", *args)
    assert (said.code, said.out) == (2, "")
    assert message in said.err and remedy in said.err
    assert "Traceback" not in said.err


def test_an_examination_does_not_replace_a_runs_own_summary(actkit, runs):
    run = runs / "madry"
    before = (run / "summary.json").read_text()
    said = actkit("probe", "--ckpt", run, "--out", run, "--probe", "norms", *FEW)
    assert said.code == 2
    assert "a run or an export lies in this folder" in said.err
    assert (run / "summary.json").read_text() == before


def test_an_examination_writes_into_a_new_an_empty_or_its_own_folder_alone(actkit, runs, tmp_path):
    probe = ("probe", "--ckpt", runs / "madry", "--probe", "norms", "--out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    said = actkit(*probe, tmp_path / "mine")
    assert said.code == 2 and "other files lie in this folder: thesis.tex" in said.err and "an empty folder" in said.err
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    for folder in ("new", "empty", "empty"):
        assert actkit(*probe, tmp_path / folder).code == 0


def test_an_imported_model_of_which_nobody_says_how_images_were_normalised_is_warned_of(actkit, runs, tmp_path):
    file = model_files.find(runs / "madry")[0]

    def imported(name, notes):
        about = model_files.header(file).to_json()
        about["imported"] = {"file": "m.pt", "sha256": "0", "key": "", "notes": notes}
        weights = {key: torch.zeros_like(value) for key, value in load_file(file).items()}
        model_files.save_tensors(weights, tmp_path / name, {"actkit": json.dumps(about)})
        return actkit("probe", "--ckpt", tmp_path / name, "--probe", "accuracy", *FEW)

    said = imported("unsaid.safetensors", [NONE_FOUND])
    assert "warning: unsaid: it takes [0,1] images as they are" in said.err
    assert "next to chance (10.0 %)" in said.err and "--normalise, or --mean and --std" in said.err
    assert "it takes [0,1] images as they are" not in imported("said.safetensors", []).err


def folders(runs, tmp_path):
    """Folders that --ckpt cannot mean, and what is said of each: the nearest right path."""
    (tmp_path / "new").mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "new" / name).write_text("")
    (tmp_path / "all/recipe").mkdir(parents=True)
    shutil.copytree(runs / "madry", tmp_path / "all/recipe/run")
    (tmp_path / "files").mkdir()
    shutil.copy(model_files.find(runs / "madry")[0], tmp_path / "files/mine.safetensors")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/model.pt").write_text("")
    return {
        "new": "this run is not finished, and has saved no checkpoint yet",
        "all": f"the newest is {tmp_path / 'all/recipe/run'}",
        "all/recipe/run/checkpoints": f"give the run itself: {tmp_path / 'all/recipe/run'}",
        "files": f"give one of its model files: {tmp_path / 'files/mine.safetensors'}",
        "theirs": f"actkit import {tmp_path / 'theirs/model.pt'} --arch NAME",
    }


def test_a_folder_without_a_model_says_what_is_there_and_the_nearest_right_path(runs, tmp_path):
    for folder, said in folders(runs, tmp_path).items():
        with pytest.raises(InputError, match=re.escape(said)):
            model_files.find(tmp_path / folder)


def test_a_model_for_another_number_of_classes_is_told(actkit, runs, tmp_path):
    file = model_files.find(runs / "madry")[0]
    about = model_files.header(file).to_json()
    about["data"] = {"spec": "dataset.moons", "kwargs": {}}
    model_files.save_tensors(load_file(file), tmp_path / "other.safetensors", {"actkit": json.dumps(about)})
    said = actkit("probe", "--ckpt", tmp_path / "other.safetensors", "--device", "cpu")
    assert said.code == 2 and "the model is for 10 classes and 1 channels, moons has 2 and 2" in said.err
    both = actkit(
        "probe",
        "--ckpt",
        runs / "act",
        "--ckpt",
        tmp_path / "other.safetensors",
        "--probe",
        "transfer",
        "--device",
        "cpu",
    )
    assert both.code == 2 and "the models are for different data" in both.err


def test_models_get_names_that_tell_them_apart():
    def subject(objective, role, roles, seed, file=None):
        example = model_files.header(next(model_files.EXAMPLES.glob("act_digits/checkpoints/*/robust.safetensors")))
        about = dataclasses.replace(
            example, objective=f"objective.{objective}()", role=role, roles=tuple(roles), seed=seed
        )
        return Subject(file, about, "", None, (), by_file=file is not None)

    act = [subject("act", role, ["robust", "natural"], 0) for role in ("robust", "natural")]
    madry = [subject("madry", "robust", ["robust"], seed) for seed in (0, 1, 1)]
    assert names_of(act, several=False) == ["robust", "natural"]
    assert names_of(act + madry, several=True) == [
        "act",
        "act.natural",
        "madry@seed0",
        "madry@seed1#1",
        "madry@seed1#2",
    ]
    files = [
        subject("act", "robust", ["robust"], 0, Path(file)) for file in ("a/mine.safetensors", "b/mine.safetensors")
    ]
    other = subject("act", "robust", ["robust"], 0, Path("a/other.safetensors"))
    assert names_of([other], several=False) == ["other"], "by the file's name, not 'robust'"
    assert names_of([*files, other], several=True) == ["a.mine", "b.mine", "other"]
    in_a_run = subject("act", "robust", ["robust"], 0, Path("run/robust.safetensors"))
    assert names_of([in_a_run], several=False) == ["robust"]


# -- interruption --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_examination_goes_on_where_it_was(actkit, warm, runs, tmp_path, number):
    """Killed from outside in the middle of its starts; the same command again computes only what is left."""
    args = [
        "probe", "--ckpt", str(runs / "madry"), "--probe", "pgd20", "-s", "probe.robust_accuracy.starts=40",
        "-s", "probe.robust_accuracy.batch_size=64", "--json", "--device", "cpu",
    ]  # fmt: skip
    began = subprocess.Popen(
        [warm, "-c", SLOW, *args], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert any("ready" in line for line in began.stderr)
    time.sleep(0.3)
    began.send_signal(number)
    out, err = began.communicate(timeout=60)
    assert began.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[number], err
    assert out == "" and "Traceback" not in err
    assert re.search(r"stopped; \d+ of at most 80 parts are kept; the same command goes on", err)
    (left,) = (tmp_path / "cache/actkit/unfinished").glob("*.safetensors")
    parts = len(load_file(left))
    assert 0 < parts < 80
    again = actkit(*(a for a in args if a != "--json"))
    assert again.code == 0 and f"going on with an interrupted examination: {parts} parts are done" in again.err
    assert not left.exists(), "what is finished is no longer unfinished"
    assert actkit(*(a for a in args if a != "--json")).out == again.out


# The command line, each part of the examination taking a few milliseconds longer.
SLOW = """
import sys, time
import actkit.probes.result as result
from actkit.cli import main
part = result.Progress.part
def slow(self, name, compute):
    if name == "0/0/1":
        print("ready", file=sys.stderr, flush=True)
    time.sleep(0.05)
    return part(self, name, compute)
result.Progress.part = slow
main.main(sys.argv[1:], prog_name="actkit")
"""


def test_what_is_done_when_it_is_stopped_is_printed(actkit, runs, monkeypatch, tmp_path):
    """A plugin's probe that somebody interrupts, after the accuracies are done."""
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "endless.py").write_text(ENDLESS)
    args = ("probe", "--ckpt", runs / "madry", "--probe", "accuracy", "--probe", "endless", "--plugins", plugin, *FEW)
    said = actkit(*args)
    assert said.code == 130
    assert columns(said) == ["model", "clean"] and "probe.endless" not in said.out
    assert "stopped; 1 of at most" in said.err and "the same command goes on" in said.err


ENDLESS = """
import actkit

@actkit.register("probe")
def endless(model, data, *, limit: int | None = None):
    if len(data.split("test")) > 1:
        raise KeyboardInterrupt
    return actkit.Result({})
"""


def test_it_is_said_before_what_an_examination_will_cost(actkit, runs):
    said = actkit("probe", "--ckpt", runs / "madry", "--probe", "pgd4", "--eps", "0.1", *FEW)
    # Clean, four steps, and the last point; a gradient a step.
    assert re.search(r"cost       at most 6 forward and 4 backward passes an image, about [\d.]+ m?s on cpu", said.err)


def test_what_another_examination_left_is_not_taken_over(tmp_path):
    from rich.console import Console

    from actkit.cli.display import Terminal
    from actkit.evaluation.resume import resumable

    display = Terminal(Console(), quiet=True)
    path = tmp_path / "left.safetensors"
    with pytest.raises(KeyboardInterrupt), resumable(path, "mine", display) as progress:
        progress.part("a", lambda: torch.ones(2))
        raise KeyboardInterrupt
    with resumable(path, "mine", display) as progress:
        assert progress.part("a", lambda: torch.zeros(2)).tolist() == [1, 1]
        with pytest.raises(KeyboardInterrupt), resumable(path, "yours", display) as other:
            assert other.part("a", lambda: torch.zeros(2)).tolist() == [0, 0]
            raise KeyboardInterrupt
    path.write_text("torn")
    with resumable(path, "mine", display) as progress:
        assert progress.kept == {}


def test_an_examination_whose_progress_cannot_be_kept_goes_on_with_a_warning(tmp_path, capsys):
    from rich.console import Console

    from actkit.cli.display import Terminal
    from actkit.evaluation.resume import resumable

    (tmp_path / "file").write_text("no folder")
    display = Terminal(Console(width=300))
    with resumable(tmp_path / "file/left.safetensors", "mine", display, every=0.0) as progress:
        for name in "abc":
            progress.part(name, lambda: torch.ones(2))
    assert capsys.readouterr().out.count("progress cannot be kept") == 1


# -- red flags -----------------------------------------------------------------------------------------------------------

MASKED = """
from __future__ import annotations
import torch
from actkit import register
from actkit import Backbone

class Quantised(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x * 15).round() / 15)

@register("backbone")
def quantised(num_classes, *, net: Backbone, in_chans=3):
    return Quantised(net(num_classes, in_chans=in_chans))
"""


def test_under_a_red_flag_every_robust_accuracy_is_marked_wherever_it_is_shown(actkit, write, tmp_path):
    write("masks/quantised.py", MASKED)
    plugins = ("--plugins", tmp_path / "masks", "--device", "cpu")
    text = QUICK.replace("act_digits", "natural_digits").replace("run.epochs = 2", "run.epochs = 6")
    recipe = write(
        "masked.gin", text + "role.backbone = @backbone.quantised()\nbackbone.quantised.net = @backbone.resnet()\n"
    )
    run = ("run", recipe, "--out", tmp_path / "run", *plugins)
    first = actkit(*run)
    assert first.code == 0 and "UNVERIFIED" not in first.out
    audit = actkit(
        "probe", "--ckpt", tmp_path / "run", "--probe", "audit", "-s", "probe.audit.limit=30", "-s", "probe.audit.steps=5",
        "-s", "probe.audit.queries=20", *plugins,
    )  # fmt: skip
    assert audit.code == 3, audit.err
    assert re.search(r"red +zero gradients: \d+ of \d+ images have no gradient at all", audit.out)
    again = actkit(*run)
    assert again.code == 3
    cells = re.split(r"  +", again.out.splitlines()[1].strip())
    assert [cell.endswith("UNVERIFIED") for cell in cells] == [False, False, True, True], "clean accuracy stands"
    assert json.loads(actkit(*run, "--json").out)["results"]["natural.pgd20"]["verified"] is False
    probed = actkit("probe", "--ckpt", tmp_path / "run", "--probe", "pgd20", "--probe", "accuracy", *plugins)
    assert probed.out.splitlines()[1].count("UNVERIFIED") == 2
    actkit(
        "probe", "--ckpt", tmp_path / "run", "--probe", "audit", "-s", "probe.audit.limit=2", "-s", "probe.audit.steps=1",
        "-s", "probe.audit.queries=1", "-s", "attack.pgd.steps=1", *plugins,
    )  # fmt: skip
    assert actkit(*run).code == 3, "what another audit finds takes no flag back"
    (tmp_path / "run/probes/flags-natural.json").write_text("{}")
    assert "UNVERIFIED" not in actkit(*run).out


def test_flags_stand_by_weights_and_by_what_was_checked(runs, tmp_path):
    """An audit of an older checkpoint, on other data, or beside other models takes no flag back; the same one does."""
    from actkit.evaluation.flags import keep_flags, standing_flags
    from actkit.evaluation.summary import apply_flags
    from actkit.probes.result import Flag, Result

    shutil.copytree(runs / "madry", tmp_path / "run", ignore=shutil.ignore_patterns("flags-*"))
    file = model_files.find(tmp_path / "run")[0]
    other = model_files.find(runs / "act")[0]
    audit = [Spec("probe", "audit")]

    def judge(level, file=file, tested="a", beside=()):
        files = {"m": file, **{f"o{i}": path for i, path in enumerate(beside)}}
        results = {"m.audit": Result({}, flags=(Flag("monotone", level, "it rises"),))}
        keep_flags(results, files, audit, {"test": tested}, None)
        return apply_flags(results, files)

    judge("red")
    judge("green", tested="b")
    judge("green", beside=[other])
    assert [f.level for f in standing_flags(file)] == ["red", "green", "green"]
    results = {"m.x": Result({}, attacked=True), "m>n.x": Result({}, attacked=True)}
    attacked = apply_flags(results, {"m": file})
    assert attacked["m", "x"].because == attacked["m>n", "x"].because == ("m, monotone: it rises",)
    assert attacked["m", "x"].unverified
    weights = load_file(file)
    saved = file.read_bytes()
    model_files.save_tensors({k: v + 1 for k, v in weights.items()}, file, model_files.header(file).metadata())
    assert standing_flags(file) == [], "other weights, other flags"
    judge("green")
    file.write_bytes(saved)
    assert standing_flags(file)[0].level == "red"
    judge("green")
    assert "red" not in [f.level for f in standing_flags(file)]


def test_what_a_probe_of_two_models_flags_stands_beside_both(runs, tmp_path):
    from actkit.evaluation.flags import keep_flags, standing_flags
    from actkit.probes.result import Flag, Result

    shutil.copytree(runs / "act", tmp_path / "run", ignore=shutil.ignore_patterns("flags-*"))
    files = {file.stem: file for file in model_files.find(tmp_path / "run")}
    there, back = Flag("pair", "red", "there"), Flag("pair", "green", "and back")
    results = {"robust>natural.pair": Result({}, flags=(there,)), "natural>robust.pair": Result({}, flags=(back,))}
    keep_flags(results, files, [Spec("probe", "pair")], {"test": "a"}, None)
    assert {model: standing_flags(file) for model, file in files.items()} == {model: [there, back] for model in files}


def test_an_examination_is_another_one_when_its_data_or_its_code_changes(runs, write):
    from actkit.config.plugins import load_plugin_folder
    from actkit.evaluation.resume import key_of

    file = model_files.find(runs / "madry")
    write(
        "keyed/probe_k.py",
        "from __future__ import annotations\nfrom actkit import register\n@register('probe')\ndef keyed(model, data):\n    pass\n",
    )
    load_plugin_folder(write("keyed/other.py", "").parent)
    data, probes, cpu = Spec("dataset", "digits"), [Spec("probe", "keyed")], torch.device("cpu")
    key = key_of(file, data, probes, {"test": "a"}, cpu)
    assert key_of(file, data, probes, {"test": "a"}, cpu) == key
    assert key_of(file, data, probes, {"test": "b"}, cpu) != key
    assert key_of(file, Spec("dataset", "digits", {"flip": True}), probes, {"test": "a"}, cpu) != key
    write("keyed/probe_k.py", "# mended\n")
    assert key_of(file, data, probes, {"test": "a"}, cpu) != key


def test_a_probe_with_no_settings_at_all_goes_through_run_plan_and_probe(actkit, write, tmp_path):
    write(
        "bare/bare_probe.py",
        """
from __future__ import annotations
from actkit import register
from actkit.probes import Result

@register("probe")
def parameters(model, data):
    \"\"\"How many there are.\"\"\"
    return Result({"parameters": float(sum(p.numel() for p in model.model.parameters()))})
""",
    )
    recipe = write("bare.gin", QUICK + "run.evaluation = [@probe.parameters()]\n")
    common = ("--plugins", tmp_path / "bare", "--device", "cpu")
    assert actkit("run", recipe, "--dry-run", *common).code == 0
    said = actkit("run", recipe, "--out", tmp_path / "run", *common)
    assert (said.code, columns(said)) == (0, ["model", "parameters"])
    assert actkit("probe", "--ckpt", tmp_path / "run", *common).out.splitlines()[:2] == said.out.splitlines()[:2]


UNFIT = {
    "a loss for more classes": (["run.data=moons", "probe.robust_accuracy.loss=dlr", "role.backbone=mlp"], "needs 3 classes, moons has 2"),
    "a split that is not there": (["probe.robust_accuracy.split=val"], "digits has no split 'val'"),
    "no starts": (["probe.robust_accuracy.starts=0"], "starts must be at least 1"),
    "a targeted loss by the paper": (["probe.robust_accuracy.loss=targeted_dlr"], "mode = 'worst_case'"),
    "transfer in a run of one model": (
        ["run.evaluation=[@probe.transfer()]", "probe.transfer.attack=@eval/attack.pgd()"], "needs at least two models, there is 1"
    ),
    "falling values": (["run.evaluation=[@probe.sweep()]", "probe.sweep.attack=@eval/attack.pgd()", "probe.sweep.values=[2,1]"], "must rise"),
    "a search from nothing": (["run.evaluation=[@probe.fgsm_k()]", "probe.fgsm_k.eps=0.0"], "starts from an eps above 0"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), UNFIT.values(), ids=UNFIT)
def test_an_evaluation_that_cannot_work_is_told_before_the_training(actkit, write, tmp_path, settings, message):
    recipe = write("madry.gin", QUICK.replace("act_digits", "madry_digits"))
    given = [part for setting in settings for part in ("-s", setting)]
    said = actkit("run", recipe, "--out", tmp_path / "run", "--device", "cpu", *given)
    assert said.code == 2, said.err
    assert message in said.err and "epoch" not in said.err and "Traceback" not in said.err


def test_a_run_whose_own_audit_is_red_ends_with_code_3(actkit, write, tmp_path):
    write("masks_b/quantised.py", MASKED.replace("quantised(num", "quantised_b(num"))
    text = QUICK.replace("act_digits", "natural_digits").replace("run.epochs = 2", "run.epochs = 6")
    text += """
role.backbone = @backbone.quantised_b()
backbone.quantised_b.net = @backbone.resnet()
run.evaluation = [@pgd/probe.robust_accuracy(), @probe.audit()]
probe.audit.limit = 30
probe.audit.steps = 5
probe.audit.queries = 20
"""
    said = actkit(
        "run",
        write("masked.gin", text),
        "--out",
        tmp_path / "run",
        "--plugins",
        tmp_path / "masks_b",
        "--device",
        "cpu",
    )
    assert said.code == 3
    assert "UNVERIFIED" in said.out.splitlines()[1] and "red    zero gradients" in said.out
    assert "unbelievable" in said.err
    assert json.loads((tmp_path / "run/probes/natural.pgd.json").read_text())["verified"] is False

"""What `actkit report` reads: runs of several studies, half done, damaged, of plugins that are not here; and it reads them without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actkit.config.spec import Spec
from actkit.errors import ActkitError, InputError
from actkit.evaluation.run_states import keep_failure, state_of
from actkit.files import locked
from actkit.reports.overview import formatted, overview
from actkit.reports.runs import find, headline_of, listed
from helpers.finished import EVALUATION, finished_run


def unfinished_run(folder: Path, *, ended: int = 0, **how) -> Path:
    """A run of two epochs that has no result yet, some of its epochs ended."""
    finished_run(folder, **how)
    (folder / "summary.json").unlink()
    lines = [json.dumps({"epoch": n, "step": n, "loss": {}}) for n in range(1, ended + 1)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"epoch": 9, "st']))
    return folder


def spec_of(folder: Path) -> Spec:
    return Spec.from_json(json.loads((folder / "config.json").read_text()))


def state(folder: Path) -> str:
    return str(state_of(folder, spec_of(folder)))


# -- how far a run is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "said"),
    [(0, "stopped in the first epoch of 2"), (1, "stopped at epoch 1 of 2"), (2, "trained, not examined")],
)
def test_a_run_that_nobody_is_at_says_where_it_stopped(tmp_path, ended, said):
    assert state(unfinished_run(tmp_path / "run", ended=ended)) == said


@pytest.mark.parametrize(("ended", "said"), [(1, "training, epoch 2 of 2"), (2, "examining")])
def test_a_run_that_a_process_is_at_says_what_it_does(tmp_path, ended, said):
    folder = unfinished_run(tmp_path / "run", ended=ended)
    with locked(folder):
        assert state(folder) == said


def test_a_run_that_failed_says_why_in_one_line(tmp_path):
    folder = unfinished_run(tmp_path / "run", ended=1)
    keep_failure(folder, ActkitError("training diverged\nin two lines", help="lower the learning rate"))
    assert state(folder) == "failed at epoch 1 of 2: training diverged"
    keep_failure(folder, MemoryError())
    assert state(folder) == "failed at epoch 1 of 2: MemoryError: MemoryError"


def test_a_run_that_ends_earlier_by_its_steps_is_trained(tmp_path):
    folder = unfinished_run(tmp_path / "run")
    spec = spec_of(folder)
    (folder / "config.json").write_text(json.dumps(spec.replace(steps=5).to_json()))
    (folder / "checkpoints/step-00000005").mkdir()
    assert state(folder) == "trained, not examined"


def test_a_run_that_fails_says_so_in_its_folder_until_it_goes_on(actkit, quick, tmp_path):
    command = [
        "run",
        quick,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        "-s",
        "run.epochs=1",
        "-s",
        "run.evaluation=[]",
    ]
    assert actkit(*command, "-s", "SGD.lr=1e30").code == 1
    said = actkit("report", tmp_path / "run")
    assert said.code == 0, said.err
    assert "failed in the first epoch of 1: training diverged" in said.out
    assert actkit(*command).code == 0
    assert not (tmp_path / "run/failure.json").exists()


# -- nothing refuses the rest ----------------------------------------------------------------------------------------------


def of_plugin(folder: Path, **how) -> Path:
    """A run whose objective, network and probe are of plugins that are not installed here."""
    evaluation = [
        *EVALUATION,
        Spec("probe", "of_a_plugin", {"attack": Spec("attack", "of_a_plugin", {"eps": "8/255"})}),
    ]
    finished_run(folder, objective="from_a_plugin", evaluation=evaluation, **how)
    spec = spec_of(folder)
    roles = {"robust": Spec("", "role", {"backbone": Spec("backbone", "of_a_plugin", {"width": 4})})}
    (folder / "config.json").write_text(json.dumps(spec.replace(roles=roles).to_json()))
    return folder


def test_runs_of_absent_plugins_stand_in_a_table_as_others_do(tmp_path, actkit):
    for seed, robust in enumerate([0.5, 0.6]):
        of_plugin(tmp_path / f"s{seed}", seed=seed, robust=robust)
    said = actkit("report", tmp_path)
    assert said.code == 0, said.err
    assert "55.00 ± 7.07" in said.out
    assert "attack.of_a_plugin(eps='8/255')" in said.out


def test_what_does_not_go_together_stands_in_tables_of_its_own(tmp_path):
    finished_run(tmp_path / "a", clean=0.9)
    finished_run(tmp_path / "b", clean=0.8, fingerprint="other data")
    of_plugin(tmp_path / "c", clean=0.7)
    finished_run(tmp_path / "d", clean=0.6, seed=1)
    made = overview(find([tmp_path]))
    assert [[run.folder.name for run in group] for group in made.groups] == [["a", "d"], ["b"], ["c"]]
    text = formatted(made, "table")
    assert text.count("mean ± standard deviation") == 3
    assert "75.00 ± 21.21" in text


def test_one_damaged_file_is_named_in_a_line_and_the_others_are_shown(tmp_path, actkit):
    finished_run(tmp_path / "a")
    (finished_run(tmp_path / "b", seed=1) / "summary.json").write_text("{")
    (finished_run(tmp_path / "c", seed=2) / "config.json").write_text("[]")
    unfinished_run(tmp_path / "d", seed=3, ended=1)
    said = actkit("report", tmp_path)
    assert said.code == 0
    (damaged, other) = [line for line in said.out.splitlines() if line.startswith("damaged: ")]
    assert str(tmp_path / "b") in damaged and "summary.json cannot be read" in damaged
    assert str(tmp_path / "c") in other and "config.json cannot be read" in other
    assert f"not finished: {tmp_path / 'd'}: stopped at epoch 1 of 2" in said.out
    assert "90.00" in said.out


def test_a_copy_of_a_run_counts_once(tmp_path):
    finished_run(tmp_path / "a")
    finished_run(tmp_path / "b")
    made = overview(find([tmp_path]))
    assert [row.seeds for table in made.tables for row in table.rows] == [(0,)]
    assert made.notes == [f"left out: {tmp_path / 'b'}: the same settings and seed as {tmp_path / 'a'}"]


def test_several_tables_have_one_json_and_one_csv(tmp_path, actkit):
    finished_run(tmp_path / "a")
    finished_run(tmp_path / "b", fingerprint="other data")
    unfinished_run(tmp_path / "c", seed=5)
    made = json.loads(actkit("report", tmp_path, "--json").out)
    assert [table["rows"][0]["runs"] for table in made["tables"]] == [[str(tmp_path / "a")], [str(tmp_path / "b")]]
    assert made["states"] == {str(tmp_path / "c"): "stopped in the first epoch of 2"}
    rows = actkit("report", tmp_path, "--format", "csv").out.splitlines()
    assert rows[0].endswith(",table")
    assert {row[-1] for row in rows[1:]} == {"1", "2"}


def test_a_page_has_every_table_and_names_what_is_in_none(tmp_path, actkit):
    finished_run(tmp_path / "a", clean=0.9125)
    finished_run(tmp_path / "b", clean=0.8125, fingerprint="other data")
    unfinished_run(tmp_path / "c", seed=5)
    said = actkit("report", tmp_path, "--html", tmp_path / "page.html")
    assert said.code == 0, said.err
    page = (tmp_path / "page.html").read_text()
    assert "91.25" in page and "81.25" in page
    assert "stopped in the first epoch of 2" in page


# -- a folder with no run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holds", "content", "remedy"),
    [
        ([], "it is empty", "actkit run"),
        (["a.gin", "b.gin"], "it has a.gin, b.gin", "recipes are trained first: actkit run"),
        (["m.safetensors"], "it has m.safetensors", "actkit probe --ckpt"),
        (["config.json", "model.safetensors"], "it has config.json, model.safetensors", "it is an export"),
        (["summary.json"], "it has summary.json", "what an examination found"),
        ([f"{i}.txt" for i in range(7)], "and 2 more", "runs/<recipe>/<run>"),
    ],
)
def test_a_folder_without_a_run_says_what_is_there(tmp_path, holds, content, remedy):
    for name in holds:
        (tmp_path / name).write_text("")
    with pytest.raises(InputError) as stop:
        find([tmp_path])
    assert content in stop.value.message
    assert remedy in stop.value.help


def test_a_part_of_a_run_names_the_run(tmp_path):
    folder = finished_run(tmp_path / "run")
    with pytest.raises(InputError) as stop:
        find([folder / "checkpoints"])
    assert str(folder) in stop.value.help


# -- a line a run ----------------------------------------------------------------------------------------------------------


def test_the_list_says_state_seed_objective_data_epochs_and_the_headline_of_each(tmp_path, actkit):
    finished_run(tmp_path / "a", seed=4, robust=0.415, alpha=0.25)
    unfinished_run(tmp_path / "b", seed=5, ended=1, objective="madry")
    (finished_run(tmp_path / "c") / "summary.json").write_text("{")
    said = actkit("report", tmp_path, "--list")
    assert said.code == 0, said.err
    done, stopped, damaged = said.out.splitlines()[1:4]
    assert done.split() == [
        str(tmp_path / "a"), "done", "4", "act(alpha=0.25)", "digits", "2", "PGD-20", "41.50", "(n", "=", "10)"
    ]  # fmt: skip
    assert "stopped at epoch 1 of 2" in stopped and "madry" in stopped and "1 of 2" in stopped
    assert damaged.split()[1] == "damaged"
    assert "summary.json cannot be read" in said.out.splitlines()[4]
    rows = json.loads(actkit("report", tmp_path, "--list", "--json").out)
    assert [(row["state"], row["seed"]) for row in rows] == [
        ("done", 4),
        ("stopped at epoch 1 of 2", 5),
        ("damaged", None),
    ]
    assert rows[0]["headline"] == {
        "model": "robust", "title": "PGD-20", "value": 0.415, "percent": True, "images": 10, "threat": None, "verified": True,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["markdown", "latex", "csv"])
def test_the_list_comes_in_every_format(tmp_path, actkit, how):
    finished_run(tmp_path / "a", robust=0.415)
    said = actkit("report", tmp_path, "--list", "--format", how)
    assert said.code == 0, said.err
    assert "PGD-20 41.50 (n = 10)" in said.out


def test_the_headline_is_the_strongest_attack_of_the_first_threat(tmp_path):
    folder = finished_run(tmp_path / "a", robust=0.5)
    summary = json.loads((folder / "summary.json").read_text())
    first = summary["results"]["robust.robust_accuracy"]
    near, far = ({"norm": "linf", "eps": eps, "value": float(eps)} for eps in ("0.1", "0.3"))
    column = [{"number": "worst_run", "title": "AutoAttack", "percent": True}]
    summary["results"] |= {
        "robust.robust_accuracy": {**first, "threat": near},
        "robust.stronger": {**first, "columns": column, "numbers": {"worst_run": 0.4}, "threat": near},
        "robust.farther": {**first, "numbers": {"worst_run": 0.1}, "threat": far},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (run,) = find([folder]).finished
    assert str(headline_of(run.summary)) == "AutoAttack linf eps 0.1 40.00 (n = 10)"


def test_a_red_flag_is_seen_in_the_list(tmp_path):
    finished_run(tmp_path / "a", verified=False)
    (line,) = listed(find([tmp_path]))
    assert str(line.headline).endswith("UNVERIFIED")


# -- without torch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["--list"], ["--format", "latex"], ["--json"]], ids=" ".join)
def test_a_report_imports_no_torch(tmp_path, how):
    """Of runs with seeds, of two evaluations, with a plugin's components, with kept flags, and of one that is half done."""
    finished_run(tmp_path / "runs/a")
    finished_run(tmp_path / "runs/b", seed=1)
    of_plugin(tmp_path / "runs/c")
    unfinished_run(tmp_path / "runs/d", seed=2)
    tell = (
        "import sys; from actkit.cli.group import main\n"
        "try: main.main(sys.argv[1:], prog_name='actkit')\n"
        "finally: print(*sorted({'torch', 'timm', 'gin', 'matplotlib'} & sys.modules.keys()), file=sys.stderr)"
    )
    command = [sys.executable, "-c", tell, "report", str(tmp_path / "runs"), "example:act_digits", *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""

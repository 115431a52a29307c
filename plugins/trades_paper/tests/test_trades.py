"""What the paper prints, and what `actkit reproduce` makes of it: nothing is trained."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

import actkit_trades_paper
from actkit import Published, load

PLUGIN = Path(actkit_trades_paper.__file__).parent
FULL, SMALL = actkit_trades_paper.trades().items
# Of each row of the table: clean accuracy and PGD-20, made up.
FOUND = {"Madry": (0.97, 0.70), "TRADES (1/λ = 1)": (0.96, 0.71), "TRADES (1/λ = 6)": (0.94, 0.74)}


@pytest.fixture
def reproduce(monkeypatch, tmp_path, capsys):
    """`actkit reproduce` in an empty folder: what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["actkit", "reproduce", *args, "--plugins", str(PLUGIN), "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("actkit", run_name="__main__")
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    return call


def test_the_numbers_are_the_papers():
    printed = {row.method: [number and (number.value, number.std) for number in row.paper] for row in FULL.rows}
    assert printed == {
        "Madry": [(87.30, None), (47.04, None)],
        "TRADES (1/λ = 1)": [None, None, None],
        "TRADES (1/λ = 6)": [(84.92, None), (56.61, None), (56.43, None)],
    }
    assert all(number.note for number in FULL.rows[0].paper), "they are of another network"
    assert FULL.rows[2].paper[1] == Published(56.61)


@pytest.mark.parametrize("recipe", ["trades_wrn_34_10_cifar10.gin", "madry_wrn_34_10_cifar10.gin"])
def test_the_recipes_train_as_the_released_code_does(recipe):
    run = load(str(PLUGIN / "gin" / recipe)).spec.kwargs
    role = run["roles"]["robust"].kwargs
    assert (run["epochs"], run["batch_size"], role["backbone"].name) == (76, 128, "wrn_34_10")
    assert role["optimizer"].kwargs == {"lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4}
    assert role["schedule"].kwargs == {"milestones": [74], "gamma": 0.1}
    attack = run["objective"].kwargs["attack"].kwargs
    assert [attack[name] for name in ("eps", "step_size", "steps")] == [0.031, 0.007, 10]


def test_a_dry_run_says_what_stands_behind_the_table(reproduce, tmp_path):
    said = reproduce("trades:table5", "--scale", "small", "--seeds", "0", "--dry-run")
    assert "trades_digits beta=6.0 seed 0  to run" in said
    assert "3 cells, 3 to do: about" in said
    assert said.count("to do, once its models are trained") == 3
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_printed_from_finished_runs(reproduce, tmp_path):
    study = ("trades:table5", "--scale", "small", "--seeds", "0")
    plan = json.loads(reproduce(*study, "--dry-run", "--json"))
    for method, run, examined in zip(FOUND, plan["cells"], plan["examined"], strict=True):
        summarise(tmp_path / run["folder"], tmp_path / run["folder"], 0.0, 0.0)
        summarise(tmp_path / examined["folder"], tmp_path / run["folder"], *FOUND[method])
    lines = reproduce(*study, "--show").splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert "Madry digits, n = 1 97.00 70.00 65.00" in rows
    assert "paper 87.30 47.04 -" in rows
    assert "TRADES (1/λ = 6) digits, n = 1 94.00 74.00 69.00" in rows
    assert "paper 84.92 56.61 56.43" in rows
    assert any(
        "TRADES is more robust than Madry [PGD-20]: not clear here; 74.00 % against 70.00 %" in row for row in rows
    )
    assert not any("missing" in row for row in rows)


def summarise(folder: Path, run: Path, clean: float, robust: float) -> None:
    """The summary that a run or an examination of its model leaves."""
    numbers = {
        "accuracy": {"clean": clean}, "pgd20": {"worst_run": robust}, "pgd1000": {"worst_run": robust - 0.05},
    }  # fmt: skip
    model = {"file": str(run / "checkpoints/step-1/robust.safetensors"), "sha256": "x", "role": "robust"}
    folder.mkdir(parents=True)
    about = {
        "models": {"robust": model}, "data": "digits", "data_fingerprint": {"test": "abc"}, "command": "", "sizes": {}, "evaluation": [],
        "results": {f"robust.{probe}": {"numbers": found, "images": 10, "columns": [], "threat": None, "flags": []} for probe, found in numbers.items()},
    }  # fmt: skip
    if folder == run:
        about |= {"recipe": "r.gin", "seed": 0, "epochs": 1, "steps": 1, "stopped_early": False}
        del about["models"]
    (folder / "summary.json").write_text(json.dumps(about))

"""A shell completes commands, options and values, without importing what computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actkit.cli import completion
from actkit.cli.sources import PACKAGE, components_in, torch_names
from actkit.config import registry
from actkit.reports.paper.papers import paper_named
from helpers import ROOT

ENV = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "ACTKIT_DISABLE_PLUGINS": "1",
}


@pytest.fixture
def complete(capsys, monkeypatch, tmp_path):
    """What stands to be chosen at the end of a line, asked in this process as bash's script asks."""
    monkeypatch.chdir(tmp_path)

    def ask(line: str) -> list[str]:
        from actkit.cli.group import main

        monkeypatch.setenv("_ACTKIT_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_LINE", line)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main.main([], prog_name="actkit")
        monkeypatch.delenv("_ACTKIT_COMPLETE")
        return capsys.readouterr().out.split()

    return ask


ACTS = [*(("table", n) for n in range(1, 6)), *(("figure", n) for n in range(2, 5))]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("actkit rep", ["report", "reproduce"]),
        ("actkit completion f", ["fish"]),
        ("actkit run gin/act_dig", ["gin/act_digits.gin"]),
        ("actkit run act_dig", ["act_digits.gin"]),
        ("actkit run gin/cyc", []),
        ("actkit config gin/cyc", ["gin/cyclic.gin"]),
        ("actkit config check gin/cyc", ["gin/cyclic.gin"]),
        ("actkit list attac", ["attacks"]),
        ("actkit list attacks p", ["pgd"]),
        ("actkit list attack p", ["pgd"]),
        ("actkit new ba", ["backbone"]),
        ("actkit run x -s run.dat", ["run.data="]),
        ("actkit run x -s run.data=cifar", ["cifar10", "cifar100"]),
        ("actkit run x -s role.backbone=wrn_1", ["wrn_16_2"]),
        ("actkit run x -s natural/role.optimizer=AdamW", ["AdamW"]),
        ("actkit run x -s role.schedule=OneC", ["OneCycleLR"]),
        ("actkit run x -s objective.act.al", ["objective.act.alpha="]),
        ("actkit run x -s train/attack.pgd.step_", ["train/attack.pgd.step_size="]),
        ("actkit run x -s obj", ["objective."]),
        ("actkit run x --device c", ["cpu", "cuda", "cuda:0"]),
        ("actkit probe --ckpt exa", ["example:act_digits"]),
        ("actkit probe --ckpt example:", ["act_digits"]),
        ("actkit probe --ckpt example:act_digits --probe aud", ["audit"]),
        ("actkit probe --evaluation gin/evaluation_table2", ["gin/evaluation_table2.gin"]),
        ("actkit import x --arch resnet3", ["resnet34"]),
        ("actkit reproduce figure", ["figure2", "figure3", "figure4"]),
        ("actkit reproduce a", ["all", "act:all", *(f"act:{kind}{n}" for kind, n in ACTS)]),
        ("actkit reproduce act:table", [f"table{n}" for n in range(1, 6)]),
        ("actkit list pap", ["papers"]),
        ("actkit list papers a", ["act"]),
        ("actkit report runs --format la", ["latex"]),
    ],
)
def test_a_value_is_completed(complete, line, found):
    assert [one for one in complete(line) if one.startswith("plain")] == [f"plain,{one}" for one in found]


def test_runs_and_the_labels_of_their_evaluations_are_completed(complete, tmp_path):
    shutil.copytree(PACKAGE / "examples/act_digits", tmp_path / "runs/act_digits/seed0-12345678")
    run = "runs/act_digits/seed0-12345678"
    assert complete("actkit probe --ckpt runs/") == ["plain,runs/act_digits", f"plain,{run}"]
    assert complete(f"actkit probe --ckpt {run} --probe pgd") == ["plain,pgd20"]


def test_a_plugins_components_are_completed_from_its_source(complete, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.py").write_text(
        "raise RuntimeError('nobody runs this')\n@register('attack', name='zz_mine')\ndef f(goal, x, *, noise, eps): ...\n"
    )
    assert complete("actkit run x --plugins mine -s objective.madry.attack=zz") == ["plain,zz_mine"]


def test_a_plugins_paper_is_completed_from_its_source(complete, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.py").write_text(
        "raise RuntimeError('nobody runs this')\n@register('paper')\ndef zz():\n    return Paper('t', 's', [Item('table7', 'T', S)])\n"
    )
    assert complete("actkit reproduce --plugins mine zz:t") == ["plain,table7"]


def test_the_items_that_are_completed_are_those_of_the_paper():
    (paper,) = components_in(PACKAGE, "paper")
    assert paper.items == paper_named("act").names


def test_what_names_no_value_is_left_to_the_shells_files(complete):
    assert complete("actkit run my/") == ["file,my/"]
    assert complete("actkit run x --out ru") == ["dir,ru"]


@pytest.mark.parametrize("kind", [kind for kind in completion.KINDS if kind not in ("optimizer", "schedule")])
def test_the_components_that_are_completed_are_those_that_are_registered(kind):
    own = {e.name: set(e.parameters) for e in registry.entries(kind) if e.location.startswith(str(PACKAGE))}
    assert {one.name: set(one.parameters) for one in components_in(PACKAGE, kind)} == own


@pytest.mark.parametrize("kind", ["optimizer", "schedule"])
def test_torchs_own_are_completed_by_the_names_that_are_registered(kind):
    assert set(torch_names(kind)) == {e.name for e in registry.entries(kind) if e.origin == "torch"}


def test_run_and_role_are_completed_with_all_their_settings():
    found = {one.name: set(one.parameters) for one in components_in(PACKAGE, "")}
    assert found == {name: set(registry.get(name).parameters) for name in ("run", "role", "study")}


def test_completing_imports_nothing_that_computes(tmp_path):
    code = (
        "import sys\nfrom actkit.cli import main\ntry:\n    main.main([])\nexcept SystemExit: pass\n"
        "print({'torch', 'timm', 'gin', 'rich', 'numpy'} & set(sys.modules))"
    )
    asked = {
        **ENV,
        "_ACTKIT_COMPLETE": "bash_complete",
        "COMP_LINE": "actkit run gin/act_digits.gin -s role.optimizer=",
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=asked, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert "plain,SGD" in done.stdout.splitlines()


@pytest.fixture
def program(tmp_path) -> Path:
    """A folder with `actkit` as it is installed."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/actkit").write_text(f"#!{sys.executable}\nfrom actkit.cli import main\nmain()\n")
    (tmp_path / "bin/actkit").chmod(0o755)
    return tmp_path / "bin"


# The script that `actkit completion` prints, and bash's own variables as it fills them for a line.
BASH = r"""
eval "$(actkit completion bash)"
ask() {
    COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMPREPLY=()
    _actkit_completion actkit
    echo "${COMPREPLY[*]}"
}
ask "actkit run gin/act_dig"
ask "actkit run x -s run.data=cifar"
ask "actkit probe --ckpt example:a"
complete -p actkit
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_by_the_script_that_is_printed(program, tmp_path):
    env = {**ENV, "PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "gin/act_digits.gin",
        "cifar10 cifar100",
        "act_digits",
        "complete -o nosort -F _actkit_completion actkit",
    ]
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes_by_the_script_that_is_printed(program, tmp_path):
    env = {**ENV, "PATH": f"{program}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    asked = 'actkit completion fish | source; complete --do-complete "actkit run x -s run.data=cifar"'
    done = subprocess.run(["fish", "-c", asked], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["run.data=cifar10", "run.data=cifar100"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_the_script(actkit, shell, tmp_path):
    said = actkit("completion", shell)
    assert said.code == 0 and "_ACTKIT_COMPLETE" in said.out
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    (tmp_path / "script").write_text(said.out)
    assert subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True).returncode == 0

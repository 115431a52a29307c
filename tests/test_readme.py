"""What the README shows is true."""

from __future__ import annotations

import re
from functools import partial

import torch

import actkit.losses
from actkit import Attack, away_from
from actkit.config.spec import Spec
from actkit.noise import Noise
from actkit.training.loop import update
from helpers import ROOT
from helpers.models import PGD, batch, make_roles, weights

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def block(containing: str) -> str:
    (found,) = [b for b in BLOCKS if containing in b]
    return found


def test_the_dozen_lines_of_act_make_the_update_of_act():
    made: dict = {}
    names = {
        "register": lambda kind: lambda f: made.setdefault("act", f),
        "Attack": Attack,
        "away_from": away_from,
        "partial": partial,
        "cross_entropy": actkit.losses.cross_entropy,
        "kl": actkit.losses.kl,
    }
    exec(block("def mimicry"), names)
    exec(block("def act("), names)
    x, y, _ = batch()
    ours, shown = make_roles("robust", "natural"), make_roles("robust", "natural")
    list(update(Spec("objective", "act", {"attack": PGD}).build(), x, y, ours, noise=Noise(torch.arange(6), 1)))
    shown_act = Spec("objective", "act", {"attack": PGD}).build()
    shown_act.component = lambda *args, noise, batch_size: made["act"](*args, attack=PGD.build(), noise=noise)
    list(update(shown_act, x, y, shown, noise=Noise(torch.arange(6), 1)))
    assert all(weights(ours[name]).equal(weights(shown[name])) for name in ours)


def test_the_new_defence_is_found_and_dry_runs(actkit, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/warmup.py").write_text(block("def warmup"))
    (tmp_path / "warmup_digits.gin").write_text(block("import mine.warmup"))
    monkeypatch.chdir(tmp_path)
    said = actkit("run", "warmup_digits.gin", "--plugins", "mine", "--dry-run", "-s", "eval/attack.pgd.steps=1")
    assert said.code == 0, said.err
    assert re.search(r"robust +2 x forward +in train mode, weights live", said.out)


def test_no_placeholder_is_left():
    assert "@@" not in README


def commands(block: str) -> list[str]:
    return [line.split("#")[0].strip() for line in block.splitlines()]


def test_the_first_look_is_at_the_model_that_comes_along_and_make_does_it_all_in_two_commands():
    blocks = [commands(block) for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]
    assert blocks[0][-1] == ".venv/bin/actkit probe --ckpt example:act_digits"
    (made,) = [block for block in blocks if block[0].startswith("make")]
    assert made[:2] == ["make quickstart", "make test"]


def test_the_five_lines_of_python_end_in_the_verdict_that_is_shown(capsys):
    exec(block("actkit.load_model").replace('"audit"', "").replace(", ]", "]"), {})
    (shown,) = re.findall(r"a verdict: \*(.*?)\*", README, re.S)
    counted = shown.partition("; nothing")[0].replace("\n", " ")
    assert counted in capsys.readouterr().out


def test_every_command_of_the_readme_is_one(actkit):
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in commands(block)]
    named = {line.split()[1] for line in lines if line.startswith("actkit ")}
    said = actkit("--help").out
    assert named and all(re.search(rf"^  {name} ", said, re.M) for name in named)


def test_every_recipe_and_file_that_the_readme_names_is_there():
    root = ROOT
    for name in set(re.findall(r"\b(?:gin|docs|tests|actkit)/[\w/]+\.(?:gin|py|md|gif)\b", README)):
        assert (root / name).is_file(), name


def made_by(target: str) -> list[str]:
    """The commands of a Makefile's target, without the paths of the environments that they run in."""
    text = re.sub(r"\n\t", "\n\t", (ROOT / "Makefile").read_text())
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)*)", text, re.M)
    lines = [re.sub(r"(?:PYTHONPATH=\S+ )?(?:\$\(BIN\)|\.venv-\w+/bin)/", "", line).strip() for line in recipe.splitlines()]  # fmt: skip
    return [line for line in lines if re.match(r"actkit |ruff |mypy|python (?!-m (?:pip|venv))", line)]


def test_make_knows_short_names_for_what_the_pages_say_and_nothing_else():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.M))
    (names,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert sorted(rows) == sorted(names.split())
    for target in rows:
        for command in made_by(target):
            assert f"`{command}`" in rows[target], (target, command)

"""Plugins: the real ones, built as wheels and installed beside actkit; those that `actkit new` begins; the guide; and those that are broken."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

import actkit as public
from actkit.cli import scaffold
from actkit.config import plugins, registry
from actkit.errors import InputError
from helpers import ROOT

PLUGINS = sorted(p for p in (ROOT / "plugins").iterdir() if (p / "pyproject.toml").is_file())
PACKAGE = Path(public.__file__).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
QUICK = [part for s in ("run.steps=1", "run.monitor=[]", "run.evaluation=[@probe.accuracy()]") for part in ("-s", s)]


def call(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, env={**ENV, **(env or {})}, capture_output=True, text=True
    )


# -- the real ones -------------------------------------------------------------------------------------------------------


def assert_public_names_alone(files):
    """Whatever others begin with or copy from must outlive a move inside actkit."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "actkit":
                assert node.module == "actkit", f"{file} reaches into {node.module}"
                assert {alias.name for alias in node.names} <= set(public.__all__), file
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("actkit.") for alias in node.names), file


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_imports_public_names_alone(plugin):
    assert_public_names_alone(plugin.rglob("*.py"))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
def test_a_plugins_own_tests_pass(plugin):
    done = call(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=plugin)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """A fresh environment with actkit and every plugin from wheels; torch and the rest are borrowed from this one."""
    place = tmp_path_factory.mktemp("installed")
    wheels = place / "wheels"
    sources = place / "sources"
    for source in (ROOT, *PLUGINS):  # copies: building leaves folders behind
        copied = sources / source.name
        kept = ["pyproject.toml", "README.md", "LICENSE", "actkit", "gin", f"actkit_{source.name}"]
        for name in kept:
            if (source / name).exists():
                call("cp", "-r", source / name, copied.mkdir(parents=True, exist_ok=True) or copied / name, cwd=place)
        built = call(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels, copied, cwd=place
        )  # fmt: skip
        assert built.returncode == 0, built.stderr
    venv.create(place / "venv", with_pip=False)
    python = place / "venv/bin/python"
    purelib = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).stdout.strip()
    )
    done = call(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", purelib, *wheels.glob("*.whl"), cwd=place
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Behind what is installed here, and read as a plain path: links of an editable install are not followed.
    (purelib / "zz_borrowed.pth").write_text(f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n")
    where = call(python, "-c", "import actkit; print(actkit.__file__)", cwd=place)
    assert str(purelib) in where.stdout, where.stdout + where.stderr
    return place


def run_in(installed: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    folder = installed / "elsewhere"
    folder.mkdir(exist_ok=True)
    return call(installed / "venv/bin/python", "-m", "actkit", *args, cwd=folder)


def test_installed_plugins_are_listed_with_their_origin(installed):
    found = {p["name"]: p for p in json.loads(run_in(installed, "list", "plugins", "--json").stdout)}
    assert set(found) == {p.name for p in PLUGINS}
    assert found["awp"]["origin"] == "actkit-awp 0.1.0"
    assert {name: p["components"] for name, p in found.items()} == {
        "awp": ["objective.awp"], "hat": ["objective.hat"], "lbgat": ["objective.lbgat"], "mart": ["objective.mart"],
        "wrn_silu": ["backbone.wrn_silu"],
    }  # fmt: skip
    assert not any(p["error"] for p in found.values())
    recipes = {r["recipe"] for r in json.loads(run_in(installed, "list", "recipes", "--json").stdout)}
    assert {"gin/mart_digits.gin", "gin/act_digits.gin"} <= recipes


RECIPES = sorted(f.name for p in PLUGINS for f in p.glob("*/gin/*_digits.gin"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_plugins_recipe_trains_from_any_folder(installed, recipe):
    if recipe == "hat_digits.gin":
        assert run_in(installed, "run", "gin/natural_digits.gin", *QUICK).returncode == 0
    done = run_in(installed, "run", recipe, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "recipe     gin/" in done.stderr
    if recipe != "awp_act_digits.gin":  # once is enough
        return
    again = run_in(installed, "probe", "--ckpt", f"runs/{recipe.removesuffix('.gin')}", "--probe", "accuracy")
    assert again.returncode == 0, again.stderr


CIFAR = sorted(f for p in PLUGINS for f in p.glob("*/gin/*_cifar10.gin"))


@pytest.mark.parametrize("recipe", CIFAR, ids=lambda f: f.stem)
def test_a_plugins_recipe_for_cifar10_can_be_read(recipe):
    done = call(sys.executable, "-m", "actkit", "config", "check", recipe, "--plugins", recipe.parent.parent, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


RESUME = """
import contextlib, os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
for name in {modules!r}:
    __import__(name)
from actkit.config.recipe import load_recipe
from helpers.runs import Mute, go, same, weights
made = load_recipe({recipe!r}, {settings!r})
for name, stop in (("straight", None), ("stopped", 4)):
    first = go(made, Path(name), Mute(stop))
    assert first.exit_code == (75 if stop else 0), first
assert go(made, Path("stopped")).exit_code == 0
assert same(weights(Path("straight")), weights(Path("stopped")))
print("the same")
"""
SETTINGS = [
    "run.epochs=2",
    "run.batch_size=512",
    "backbone.resnet.width=4",
    "train/attack.pgd.steps=2",
    "run.monitor=[]",
    "run.evaluation=[@probe.accuracy()]",
]


@pytest.mark.parametrize("recipe", ["mart_digits.gin", "lbgat_digits.gin", "hat_digits.gin", "awp_act_digits.gin"])
def test_a_plugins_objective_resumes_bit_for_bit(recipe, tmp_path):
    plugin = next(p for p in PLUGINS if list(p.glob(f"*/gin/{recipe}")))
    settings = list(SETTINGS)
    if plugin.name == "hat":  # any weights of the right shape will do for a helper
        quick = [part for s in [*settings, "run.epochs=1"] for part in ("-s", s)]
        done = call(
            sys.executable,
            "-m",
            "actkit",
            "run",
            "gin/natural_digits.gin",
            *quick,
            "--out",
            tmp_path / "helper",
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        settings.append(f"HELPER={tmp_path / 'helper'}")
    file = next(plugin.glob(f"*/gin/{recipe}"))
    code = RESUME.format(
        paths=[str(plugin), str(ROOT / "tests")], modules=[f"actkit_{plugin.name}"], recipe=str(file), settings=settings
    )
    done = call(sys.executable, "-c", code, cwd=tmp_path)
    assert done.stdout.strip().endswith("the same"), done.stderr


# -- those that are begun --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_what_actkit_new_writes_works_at_once(kind, actkit, tmp_path):
    said = actkit("new", kind, f"my_{kind}", "--into", tmp_path)
    assert said.code == 0, said.err
    folder = tmp_path / f"my_{kind}"
    assert "NAME" not in "".join(f.read_text() + f.name for f in folder.rglob("*") if f.is_file())
    done = call(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert_public_names_alone(folder.rglob("*.py"))
    if importlib.util.find_spec("ruff"):
        style = ["--isolated", "--select", "E,F,W", "--line-length", "160"]
        checked = call(sys.executable, "-m", "ruff", "check", *style, folder, cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_the_names_that_new_takes_for_taken_are_those_that_are_registered(kind):
    own = {
        e.name: e.location
        for e in registry.entries(kind)
        if e.origin == "actkit" and e.location.startswith(str(PACKAGE))
    }
    assert dict(scaffold.builtin_components(kind)) == own


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["objectiv", "x"], "did you mean 'objective'?"),
        (["schedule", "x"], "a plugin cannot be begun for 'schedule'"),
        (["objective", "My-Thing"], "did you mean 'my_thing'?"),
        (["objective", "class"], "must be a Python identifier"),
        (["objective", "act"], "there is objective.act already, from actkit"),
        (["objective", "there"], "the folder is there already"),
    ],
)
def test_a_plugin_that_cannot_be_begun_is_told(actkit, tmp_path, args, message):
    (tmp_path / "there").mkdir()
    said = actkit("new", *args, "--into", tmp_path)
    assert said.code == 2
    assert message in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


# -- the guide -------------------------------------------------------------------------------------------------------------


def test_every_file_of_the_guide_runs(tmp_path):
    text = (ROOT / "docs/plugins.md").read_text()
    files = re.findall(r"^`([\w/.]+)`:\n\n```(?:python|gin)\n(.*?)```", text, re.S | re.M)
    assert len(files) == 10
    for name, content in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    code = next(c for n, c in files if n == "mine/consistent.py")
    assert len(code[code.index("@register") :].splitlines()) <= 15
    for name, _ in files:
        if name.endswith(".gin"):
            quick = ["-s", "run.steps=1", "-s", "run.monitor=[]"]
            if "confidence" not in name:
                quick += ["-s", "run.evaluation=[@probe.accuracy()]"]
            done = call(sys.executable, "-m", "actkit", "run", name, "--plugins", "mine", *quick, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert not ("confidence" in name and "confidence" not in done.stdout), done.stdout


# -- those that are broken ---------------------------------------------------------------------------------------------------


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Make an installed plugin out of a module's text."""

    def make(name: str, code: str, *, requires: str = "actkit>=0.1") -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {requires}\n"
        )
        (info / "entry_points.txt").write_text(f"[actkit.plugins]\n{name} = {name}\n")
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text("from __future__ import annotations\n" + textwrap.dedent(code))

    monkeypatch.syspath_prepend(str(tmp_path))
    registry.load_builtins()
    monkeypatch.setattr(registry, "failures", {})
    monkeypatch.setattr(plugins, "attempted", {})
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    return make


GOOD = """
from actkit import register
@register("attack")
def from_good(goal, x, *, noise, eps: float):
    return x
"""


@pytest.mark.parametrize(
    ("code", "requires", "why"),
    [
        ("raise RuntimeError('made for another world')", "actkit", "RuntimeError: made for another world"),
        ("raise SystemExit('bye')", "actkit", "SystemExit: bye"),
        ("import does_not_exist", "actkit", "No module named 'does_not_exist'"),
        (GOOD.replace("from_good", "pgd"), "actkit", "'attack.pgd' is registered twice: by actkit"),
        (
            GOOD.replace("goal, x, *", "x, goal, *"),
            "actkit",
            "its positional parameters are ('x', 'goal'), not ('goal', 'x')",
        ),
        (GOOD.replace("eps: float", "eps: float, **options"), "actkit", "**kwargs would accept any misspelt name"),
        ("raise SystemExit('imported')", "actkit>=99", "it is built for actkit >=99, this is 0.1.0"),
    ],
    ids=["raises", "exits", "lacks a module", "name taken", "signature", "kwargs", "newer actkit"],
)
def test_a_broken_plugin_is_told_and_the_rest_goes_on(distribution, actkit, code, requires, why):
    distribution("zz_broken", code, requires=requires)
    distribution("zz_good", GOOD)
    said = actkit("list", "plugins")
    assert said.code == 0
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert "failed: " in lines["zz_broken"] and why in lines["zz_broken"]
    assert lines["zz_good"].split()[-1] == "attack.from_good"
    said = actkit("list", "attack")
    assert f"warning: plugin zz_broken (zz_broken 1.0) could not be loaded: " in said.err and why in said.err  # noqa: F541
    assert "from_good" in said.out and "from zz_good" not in said.err
    with pytest.raises(InputError, match="plugin zz_broken could not be loaded"):
        registry.get("objective.of_zz_broken")


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(distribution, actkit):
    distribution("zz_half", GOOD.replace("from_good", "from_half") + "\nraise RuntimeError('late')")
    assert "from_half" not in actkit("list", "attack").out


def test_a_role_that_the_recipe_does_not_supply_is_told(actkit, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two/two.py").write_text(
        "from __future__ import annotations\nfrom actkit import register, cross_entropy\n"
        "@register('objective')\ndef zz_two(x, y, robust, teacher):\n    yield {robust: cross_entropy(robust(x), y)}\n"
    )
    (tmp_path / "r.gin").write_text(
        "include 'digits.gin'\nrun.objective = @objective.zz_two()\nteahcer/role.optimizer = None\n"
    )
    said = actkit("run", tmp_path / "r.gin", "--plugins", tmp_path / "two", "--dry-run")
    assert "teahcer" in said.err and "teacher" in said.err
    assert "Traceback" not in said.err

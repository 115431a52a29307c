"""Plugins: the real ones, built as wheels and installed beside actkit; those that `actkit new` begins; the guide; and those that are broken."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

import actkit as public
from actkit.cli import scaffold
from actkit.cli.sources import components_in
from actkit.config import registry
from helpers import ROOT

PLUGINS = sorted(p for p in (ROOT / "plugins").iterdir() if (p / "pyproject.toml").is_file())
PACKAGE = Path(public.__file__).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
# A step on a few images.
QUICK = [
    part
    for setting in (
        "dataset.digits.test_fraction=0.8", "run.steps=1", "run.monitor=[]", "run.evaluation=[@probe.accuracy()]", "probe.accuracy.limit=100",
    )
    for part in ("-s", setting)
]  # fmt: skip


def call(*command: str | Path, cwd: Path, beside: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; `beside`: a folder whose distributions are installed, too."""
    paths = [*([str(beside)] if beside else []), *filter(None, [ENV.get("PYTHONPATH")])]
    environment = {**ENV, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)


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
def test_a_plugins_own_tests_pass(warm, plugin):
    done = call(warm, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=plugin)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """A folder with actkit's wheel unpacked, and one with those of all plugins."""
    place = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, *PLUGINS):  # copies: building leaves folders behind
        copied = place / "sources" / source.name
        copied.mkdir(parents=True)
        for name in ["pyproject.toml", "README.md", "LICENSE", "actkit", "gin", f"actkit_{source.name}"]:
            if (source / name).is_dir():
                shutil.copytree(source / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (source / name).is_file():
                shutil.copy(source / name, copied / name)
    pip, quiet = (sys.executable, "-m", "pip"), ("--quiet", "--no-deps", "--no-index")
    folders = {"actkit": [place / "sources" / ROOT.name], "plugins": [place / "sources" / p.name for p in PLUGINS]}
    for name, sources in folders.items():
        built = call(*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", place / f"{name}.built", *sources, cwd=place)  # fmt: skip
        assert built.returncode == 0, built.stderr
        files = sorted((place / f"{name}.built").glob("*.whl"))
        done = call(*pip, "install", *quiet, "--target", place / name, *files, cwd=place)
        assert done.returncode == 0, done.stderr
    return {name: place / name for name in folders}


@pytest.fixture(scope="session")
def installed(wheels, tmp_path_factory) -> Path:
    """The Python of a fresh environment with actkit and every plugin from wheels; torch and the rest are borrowed from this one."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv/bin/python"
    own = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).stdout.strip()
    # Plain paths, the borrowed ones last: links of an editable install are not followed.
    paths = [str(wheels["actkit"]), str(wheels["plugins"]), sysconfig.get_path("purelib")]
    (Path(own) / "borrowed.pth").write_text(f"import sys; sys.path += {paths!r}\n")
    return python


def cold(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the fresh environment, where nothing comes from the checkout."""
    environment = {k: v for k, v in ENV.items() if k != "PYTHONPATH"}
    return subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)


def test_installed_plugins_and_their_recipes_are_listed_with_their_origin(installed, wheels, tmp_path):
    found = {
        p["name"]: p
        for p in json.loads(cold(installed, "-m", "actkit", "list", "plugins", "--json", cwd=tmp_path).stdout)
    }
    assert set(found) == {p.name for p in PLUGINS}
    assert found["awp"]["origin"] == "actkit-awp 0.1.0"
    assert {name: p["components"] for name, p in found.items()} == {
        "advprop": ["backbone.two_norms", "objective.advprop"], "awp": ["objective.awp"], "ddn": ["attack.ddn"], "fmn": ["attack.fmn"],
        "hat": ["objective.hat"], "ikl": ["objective.ikl"], "las": ["backbone.strategy", "objective.las"], "lbgat": ["objective.lbgat"],
        "mart": ["objective.mart"], "sat": ["objective.sat"], "score": ["objective.score"], "trades_paper": ["paper.trades"],
        "wrn_silu": ["backbone.wrn_silu"],
    }  # fmt: skip
    assert not any(p["error"] for p in found.values())
    recipes = {
        r["recipe"]
        for r in json.loads(cold(installed, "-m", "actkit", "list", "recipes", "--json", cwd=tmp_path).stdout)
    }
    assert {"gin/mart_digits.gin", "gin/act_digits.gin"} <= recipes
    where = cold(installed, "-c", "import actkit; print(actkit.__file__)", cwd=tmp_path).stdout
    assert where.startswith(str(wheels["actkit"])), "it is the wheel that answers"


def test_an_installed_plugins_recipe_trains_in_a_fresh_environment_and_is_examined_without_the_plugin(
    installed, wheels, warm, tmp_path
):
    """By the console script."""
    done = cold(installed, wheels["actkit"] / "bin/actkit", "run", "awp_act_digits.gin", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = call(warm, "-m", "actkit", "probe", "--ckpt", "runs/awp_act_digits", "--probe", "accuracy", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


RECIPES = sorted(f.name for p in PLUGINS for f in p.glob("*/gin/*_digits.gin") if f.name != "awp_act_digits.gin")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_plugins_recipe_trains_from_any_folder(warm, wheels, tmp_path, recipe):
    def train(name):
        return call(warm, "-m", "actkit", "run", name, *QUICK, cwd=tmp_path, beside=wheels["plugins"])

    if recipe == "hat_digits.gin":
        assert train("gin/natural_digits.gin").returncode == 0
    done = train(recipe)
    assert done.returncode == 0, done.stderr
    assert "recipe     gin/" in done.stderr


CIFAR = sorted(f for p in PLUGINS for f in p.glob("*/gin/*_cifar10.gin"))


@pytest.mark.parametrize("recipe", CIFAR, ids=lambda f: f.stem)
def test_a_plugins_recipe_for_cifar10_can_be_read(warm, recipe):
    done = call(warm, "-m", "actkit", "config", "check", recipe, "--plugins", recipe.parent.parent, cwd=ROOT)
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
    "dataset.digits.test_fraction=0.8",
    "probe.accuracy.limit=100",
    "run.epochs=2",
    "run.batch_size=128",
    "backbone.resnet.width=4",
    "train/attack.pgd.steps=2",
    "run.monitor=[]",
    "run.evaluation=[@probe.accuracy()]",
]


@pytest.mark.parametrize(
    "recipe",
    [
        *("mart_digits.gin", "lbgat_digits.gin", "hat_digits.gin", "awp_act_digits.gin"),
        *("ikl_digits.gin", "las_digits.gin", "sat_digits.gin", "advprop_digits.gin"),
    ],
)
def test_a_plugins_objective_resumes_bit_for_bit(warm, recipe, tmp_path):
    plugin = next(p for p in PLUGINS if list(p.glob(f"*/gin/{recipe}")))
    settings = list(SETTINGS)
    if plugin.name == "hat":  # any weights of the right shape will do for a helper
        quick = [part for s in [*settings, "run.epochs=1"] for part in ("-s", s)]
        command = ["run", "gin/natural_digits.gin", *quick, "--out", tmp_path / "helper"]
        done = call(warm, "-m", "actkit", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        settings.append(f"HELPER={tmp_path / 'helper'}")
    file = next(plugin.glob(f"*/gin/{recipe}"))
    code = RESUME.format(
        paths=[str(plugin), str(ROOT / "tests")], modules=[f"actkit_{plugin.name}"], recipe=str(file), settings=settings
    )
    done = call(warm, "-c", code, cwd=tmp_path)
    assert done.stdout.strip().endswith("the same"), done.stderr


# -- the study that compares them ----------------------------------------------------------------------------------------

COUNT = """
import json, sys, torch
from pathlib import Path
for name in {modules!r}:
    __import__(name)
from actkit.config.recipe import load_recipe
from actkit.training.dry_run import count
found = {{}}
for name in {names!r}:
    settings = ["helper/role.weights=None"] if name == "hat" else []
    counted = count(load_recipe(f"gin/studies/shelf_digits/{{name}}.gin", settings), folder=Path("run"), device=torch.device("cpu"))
    found[name] = (counted.units, counted.run.epochs)
print(json.dumps(found))
"""


def test_all_defences_of_the_study_train_at_equal_compute(warm, wheels, tmp_path):
    study = (ROOT / "gin/studies/shelf_digits.gin").read_text()
    names = re.findall(r"'shelf_digits/(\w+)\.gin'", study.partition("study.recipes")[2])
    assert len(names) == len(set(names)) == 14
    code = COUNT.format(modules=[f"actkit_{p.name}" for p in PLUGINS], names=[*names, "helper"])
    done = call(warm, "-c", code, cwd=tmp_path, beside=wheels["plugins"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    cost = {name: units * epochs for name, (units, epochs) in found.items()}
    cost["hat"] += cost.pop("helper")
    # A step's draws decide what it costs, and the strategy network learns on one batch of four: 14 steps where all images are attacked together.
    cost["las"] = found["las"][1] * (32 + 27 / 4)
    assert {name for name, units in cost.items() if abs(units - 460) > 0.04 * 460} == set()


# -- those that are begun --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_what_actkit_new_writes_works_at_once(kind, actkit, warm, tmp_path):
    said = actkit("new", kind, f"my_{kind}", "--into", tmp_path)
    assert said.code == 0, said.err
    folder = tmp_path / f"my_{kind}"
    assert "NAME" not in "".join(f.read_text() + f.name for f in folder.rglob("*") if f.is_file())
    done = call(warm, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "failed" not in done.stdout
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
    assert {one.name: one.place for one in components_in(PACKAGE, kind)} == own


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["objectiv", "x"], "did you mean 'objective'?"),
        (["schedule", "x"], "a plugin cannot be begun for 'schedule'"),
        (["objective", "My-Thing"], "did you mean 'my_thing'?"),
        (["objective", "class"], "'class' cannot be a plugin's name: it is a word of Python's own"),
        (
            ["objective", "3mine"],
            "'3mine' cannot be a plugin's name: it begins with a digit\n  help: did you mean 'mine'?",
        ),
        (["attack", "Über-PGD"], "did you mean 'uber_pgd'?"),
        (["attack", "torch"], "it would hide the module 'torch'"),
        (["attack", ""], "it is empty"),
        (["attack", "_mine_"], "did you mean 'mine'?"),
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


def test_every_file_of_the_guide_runs(warm, tmp_path):
    text = (ROOT / "docs/plugins.md").read_text()
    files = re.findall(r"^`([\w/.]+)`:\n\n```(?:python|gin)\n(.*?)```", text, re.S | re.M)
    assert len(files) == 17
    for name, content in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    code = next(c for n, c in files if n == "mine/consistent.py")
    assert len(code[code.index("@register") :].splitlines()) <= 15
    for name, _ in files:
        if name.endswith(".gin"):
            quick = (
                ["-s", "run.steps=1", "-s", "run.monitor=[]"]
                if name in ("confidence_digits.gin", "line_digits.gin")
                else QUICK
            )
            done = call(warm, "-m", "actkit", "run", name, "--plugins", "mine", *quick, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert not ("confidence" in name and "confidence" not in done.stdout), done.stdout
    command = ("reproduce", "zhang:table5", "--scale", "small", "--seeds", "0", "--plugins", "mine", "--dry-run")
    done = call(warm, "-m", "actkit", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 cells, 2 to do: about" in done.stdout


# -- those that are broken ---------------------------------------------------------------------------------------------------


@pytest.fixture
def distribution(tmp_path):
    """Make an installed plugin out of a module's text; it lies in `tmp_path`."""

    def make(name: str, code: str, *, requires: str = "actkit>=0.1") -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {requires}\n"
        )
        (info / "entry_points.txt").write_text(f"[actkit.plugins]\n{name} = {name}\n")
        (tmp_path / f"{name}.py").write_text("from __future__ import annotations\n" + textwrap.dedent(code))

    return make


@pytest.fixture
def listed(warm, tmp_path):
    """`actkit list` where the plugins in `tmp_path` are installed, in a process whose registry is its own."""
    return lambda *args: call(warm, "-m", "actkit", "list", *args, cwd=tmp_path, beside=tmp_path)


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
def test_a_broken_plugin_is_told_and_the_rest_goes_on(distribution, listed, code, requires, why):
    distribution("zz_broken", code, requires=requires)
    distribution("zz_good", GOOD)
    said = listed("plugins")
    assert said.returncode == 0
    lines = {line.split()[0]: line for line in said.stdout.splitlines()}
    assert "failed: " in lines["zz_broken"] and why in lines["zz_broken"]
    assert lines["zz_good"].split()[-1] == "attack.from_good"
    said = listed("attack")
    assert "warning: plugin zz_broken (zz_broken 1.0) could not be loaded: " in said.stderr and why in said.stderr
    assert "from_good" in said.stdout and "from zz_good" not in said.stderr
    said = listed("objective", "of_zz_broken")
    assert said.returncode == 2
    assert "plugin zz_broken could not be loaded" in said.stderr.partition("error:")[2]


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(distribution, listed):
    distribution("zz_half", GOOD.replace("from_good", "from_half") + "\nraise RuntimeError('late')")
    said = listed("attack")
    assert "RuntimeError: late" in said.stderr
    assert "from_half" not in said.stdout


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

"""Recipes: what is wrong with one is told with its place and remedy, and what is right means what gin would make of it."""

from __future__ import annotations

import importlib.util  # noqa: F401  gin 0.5.0 forgets to
import re
from pathlib import Path

import pytest

from actkit.config.bindings import Table
from actkit.config.compare import diff, flat
from actkit.config.locate import packaged_recipes
from actkit.config.override import override_spec
from actkit.config.reader import read_document
from actkit.config.recipe import load_evaluation, load_recipe, open_recipe
from actkit.config.resolver import Resolver, Slot
from actkit.config.spec import Spec
from actkit.errors import InputError
from helpers import ROOT

SHIPPED = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "gin").rglob("*.gin"))
RECIPES = [r for r in SHIPPED if re.search(r"(natural|madry|trades|act|free|fast)_", r)]

ACT = "include 'act_digits.gin'\n"

BAD = {
    "a missing file": (None, "config file not found: gone.gin", None),
    "a missing include": ("include 'act_digit.gin'\n", "config file not found: act_digit.gin", "did you mean 'gin/act_digits.gin'"),
    "a misspelt component": (ACT + "run.objective = @objective.acct()\n", "no component 'objective.acct'", "did you mean 'objective.act'"),
    "a misspelt component on the left": (ACT + "objective.acct.alpha = 1.0\n", "no component 'objective.acct'", "did you mean 'objective.act'"),
    "a misspelt parameter": (ACT + "objective.act.alhpa = 0.9\n", "'objective.act' has no parameter 'alhpa'", "did you mean 'alpha'"),
    "a misspelt scope": (ACT + "natral/backbone.resnet.width = 8\n", "nothing is in the scope 'natral'", "did you mean 'natural'"),
    "a misspelt macro": (ACT + "train/attack.pgd.eps = %ESP\n", "there is no macro %ESP", "did you mean 'EPS'"),
    "a wrong type": (ACT + "run.epochs = 'ten'\n", "run.epochs should be int, got 'ten' (str)", None),
    "a wrong choice": (ACT + "train/attack.pgd.norm = 'linff'\n", "got 'linff'", None),
    "a wrong kind": (ACT + "run.data = @backbone.resnet18()\n", "run.data should be a dataset, got backbone.resnet18()", None),
    "a component where a list is wanted": (ACT + "run.evaluation = @probe.accuracy()\n", "run.evaluation should be a list of probe", None),
    "a fraction without quotes": (ACT + "train/attack.pgd.eps = 8/255\n", "unexpected text after the value", "in quotes: '8/255'"),
    "text without quotes": (ACT + "run.precision = bf16\n", "cannot read the value 'bf16'", "write text in quotes: 'bf16'"),
    "true in small letters": (ACT + "eval/attack.pgd.clip_start = true\n", "cannot read the value 'true'", "write True"),
    "an open bracket": (ACT + "run.monitor = [@probe.accuracy()\n", "a bracket or a quote is not closed", None),
    "an open quote": (ACT + "run.precision = 'bf16\n", "a quote is not closed", None),
    "no statement": (ACT + "run.epochs 3\n", "syntax error", "a line is  name.parameter = value"),
    "an include cycle": ("include 'bad.gin'\n", "include cycle: bad.gin -> bad.gin", None),
    "a macro of itself": (ACT + "EPS = %EPS\n", "%EPS is defined by itself", None),
    "a component inside itself": (ACT + "backbone.normalized.net = @backbone.normalized()\nrole.backbone = @backbone.normalized()\n", "contains itself", None),
    "a role missing": (
        "include 'evaluation.gin'\nrun.data = @dataset.digits()\nrun.epochs = 1\nrun.batch_size = 8\nrun.objective = @objective.natural()\n",
        "objective.natural needs the role 'natural'", "add  role.backbone = ",
    ),
    "one role of two missing": (
        ACT.replace("act_digits", "evaluation") + "run.data = @dataset.digits()\nrun.epochs = 1\nrun.batch_size = 8\nrun.objective = @objective.act()\n"
        "objective.act.attack = @train/attack.pgd()\ntrain/attack.pgd.eps = 0.1\ntrain/attack.pgd.step_size = 0.1\ntrain/attack.pgd.steps = 1\n"
        "robust/role.backbone = @backbone.resnet()\n",
        "objective.act needs the role 'natural'", "natural/role.backbone = ",
    ),
    "a role too many": (
        "include 'madry_digits.gin'\nnatural/role.backbone = @backbone.resnet18()\n", "objective.madry has no role 'natural', only robust", "remove the line",
    ),
    "nothing but an epoch": ("run.epochs = 1\n", "'run' needs a value for 'objective'", "add  run.objective = "),
    "an attack without its scope": (ACT + "attack.pgd.steps = 3\n", "stand in the scope train or eval, not unscoped", "write train/attack.pgd.steps"),
    "an attack used without a scope": (ACT + "objective.act.attack = @attack.pgd()\n", "used outside the scopes train and eval", "write @train/attack.pgd()"),
    "a training attack in a probe": (ACT + "probe.robust_accuracy.attack = @train/attack.pgd()\n", "probes take their attack from the scope eval, not train", "write @eval/attack.pgd()"),
    "an evaluation attack in training": (ACT + "objective.act.attack = @eval/attack.pgd()\n", "objectives take their attack from the scope train", None),
    "a reference that is not called": (ACT + "run.objective = @objective.act\n", "@objective.act is not called", "write @objective.act()"),
    "scopes inside scopes": (ACT + "a/robust/natural/role.weights = 'x'\n", "scopes nest two deep here", None),
    "a library of Python's own": ("import subprocess\n" + ACT, "would import 'subprocess'", "--trust"),
    "a module of somebody's": ("from evil import module\n" + ACT, "would import 'evil.module'", "--trust"),
    "gin's dynamic registration": ("from __gin__ import dynamic_registration\n" + ACT, "dynamic registration is not used", "@register"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message", "remedy"), BAD.values(), ids=BAD)
def test_a_bad_recipe_is_told_with_place_and_remedy_and_without_a_traceback(actkit, write, text, message, remedy):
    path = write("bad.gin", text) if text else Path("gone.gin")
    said = actkit("run", path, "--dry-run")
    assert said.code == 2
    assert message in said.err
    assert remedy is None or remedy in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    if text:
        assert "bad.gin" in said.err
        assert "-->" in said.err


def test_every_problem_of_a_recipe_is_told_at_once_with_its_line(actkit, write):
    path = write("bad.gin", ACT + "objective.act.alhpa = 0.9\nrun.epochs = 'ten'\nnatral/role.weights = 'w'\n")
    said = actkit("config", "check", path)
    assert said.code == 2
    assert said.err.count("error:") == 3
    assert all(f"bad.gin:{line}" in said.err for line in (2, 3, 4))


def test_an_import_is_refused_before_anything_runs(actkit, write, tmp_path, monkeypatch):
    write("evil.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = write("bad.gin", "include 'inner.gin'\n" + ACT)
    write("inner.gin", "import evil\n")
    assert actkit("run", path, "--dry-run").code == 2
    assert not (tmp_path / "ran").exists()
    actkit("config", "show", path, "--trust")
    assert (tmp_path / "ran").exists()


def test_trust_is_not_offered_where_it_cannot_be_given(write):
    path = write("bad.gin", "import evil\n" + ACT)
    with pytest.raises(InputError) as told:
        load_evaluation(str(path))
    assert told.value.help == "look at it; then give its folder with --plugins"


def test_the_shell_command_hidden_in_standard_library_names_never_runs(actkit, write, tmp_path):
    text = (
        "from __gin__ import dynamic_registration\nimport subprocess\nmain.target.x = @subprocess.getoutput()\n"
        f"subprocess.getoutput.cmd = 'touch {tmp_path / 'ran'}'\n"
    )
    for extra in ([], ["--trust"]):
        assert actkit("run", write("bad.gin", text), "--dry-run", *extra).code == 2
        assert not (tmp_path / "ran").exists()


def test_a_binding_that_nothing_uses_is_reported_unless_an_include_offers_it(actkit, write):
    path = write("odd.gin", ACT + "objective.trades.beta = 3.0\nTYPO = 3\n")
    said = actkit("config", "show", path)
    assert said.code == 0
    assert said.err.count("nothing uses it") == 2
    assert "odd.gin:2" in said.err
    for recipe in RECIPES:
        assert not [w for w in load_recipe(str(ROOT / recipe)).warnings if "nothing uses it" in w]


def test_an_override_of_a_plain_value_silences_no_warning(write):
    path = str(write("odd.gin", ACT + "objective.trades.beta = 3.0\n"))
    assert len(load_recipe(path, ["run.precision=bf16"]).warnings) == 1
    assert len(load_recipe(path, ["run.data=moons"]).warnings) == 0


def test_swapping_a_component_does_not_complain_of_the_settings_of_the_other():
    assert load_recipe(str(ROOT / "gin/act_digits.gin"), ["run.data=moons"]).warnings == []
    (warning,) = load_recipe(str(ROOT / "gin/act_digits.gin"), ["run.data=moons", "dataset.cifar10.crop=2"]).warnings
    assert "dataset.cifar10.crop is set but nothing uses it" in warning


# -- meaning -----------------------------------------------------------------------------------------------------------


def load(*overrides: str) -> Spec:
    return load_recipe(str(ROOT / "gin/act_digits.gin"), overrides).spec


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("run.epochs=3", "run.epochs", 3),
        ("run.precision=bf16", "run.precision", "bf16"),
        ("run.monitor=[]", "run.monitor", []),
        ("run.data=moons", "run.data", "dataset.moons"),
        ("run.data=@dataset.moons()", "run.data", "dataset.moons"),
        ("eval/attack.pgd.eps=8/255", "run.evaluation[pgd20].attack.eps", "8/255"),
        ("eval/attack.pgd.clip_start=true", "run.evaluation[pgd20].attack.clip_start", True),
        ("natural/backbone.resnet.width=8", "run.roles.natural.backbone.width", 8),
        ("natural/role.backbone=resnet18", "run.roles.natural.backbone", "backbone.resnet18"),
        ("robust/optimizer.SGD.lr=0.01", "run.roles.robust.optimizer.lr", 0.01),
        ("act.alpha=0.7", "run.objective.alpha", 0.7),
        ("EPS=0.2", "run.objective.attack.eps", 0.2),
    ],
)
def test_an_override_reaches_its_place(setting, path, value):
    assert flat(load(setting))[path] == value


def test_an_attack_by_its_bare_name_stands_in_the_scope_of_its_owner():
    assert load("probe.robust_accuracy.attack=pgd").kwargs["evaluation"] == load().kwargs["evaluation"]
    assert load("objective.act.attack=pgd").kwargs["objective"] == load().kwargs["objective"]


def test_an_inner_scope_has_what_the_outer_one_has_and_more():
    spec = load_recipe(str(ROOT / "gin/act_digits.gin"), [
        "run.evaluation=[@pgd20/probe.robust_accuracy(), @pgd100/probe.robust_accuracy()]",
        "pgd100/probe.robust_accuracy.attack=@eval/pgd100/attack.pgd()", "eval/pgd100/attack.pgd.steps=100",
    ]).spec  # fmt: skip
    first, second = spec.kwargs["evaluation"]
    assert (first.label, second.label) == ("pgd20", "pgd100")
    assert second.kwargs["attack"] == first.kwargs["attack"].replace(steps=100)


@pytest.mark.parametrize(
    ("setting", "starts"), [("probe.robust_accuracy.starts=1", [1, 1]), ("b/probe.robust_accuracy.starts=1", [5, 1])]
)
def test_an_override_of_a_stored_evaluation_may_name_a_probe_by_its_label(setting, starts):
    stored = [Spec("probe", "robust_accuracy", {"starts": 5}, label) for label in "ab"]
    assert [s.kwargs["starts"] for s in override_spec(stored, [setting])] == starts


def test_an_attack_that_takes_anothers_place_keeps_what_both_have():
    attack = Spec("attack", "pgd", {"eps": "8/255", "step_size": 0.01, "steps": 20})
    (changed,) = override_spec(
        [Spec("probe", "robust_accuracy", {"attack": attack})], ["probe.robust_accuracy.attack=apgd"]
    )
    assert changed.kwargs["attack"] == Spec("attack", "apgd", {"eps": "8/255", "steps": 20})


@pytest.mark.parametrize(
    ("setting", "message"),
    [("EPS=0.1", "no macros"), ("probe.adit.limit=1", "no component 'probe.adit'"), ("c/probe.accuracy.limit=1", "no probe.accuracy here")],
)  # fmt: skip
def test_an_override_of_a_stored_evaluation_that_reaches_nothing_is_told(setting, message):
    with pytest.raises(InputError, match=message):
        override_spec([Spec("probe", "accuracy", {}, "a")], [setting])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/attack.pgd.eps = 8", "eps must not be above 1, got 8"),
        ("eval/attack.pgd.steps = 0", "an attack needs at least 1 step, got 0"),
        ("eval/attack.pgd.eps = -0.1", "eps must not be negative"),
    ],
)
def test_a_budget_that_makes_no_sense_is_told_with_its_line_before_anything_runs(write, line, message):
    file = write("mine.gin", f"include '{ROOT}/gin/act_digits.gin'\n\n{line}\n")
    with pytest.raises(InputError) as told:
        load_recipe(str(file))
    assert message in str(told.value) and f"mine.gin:3\n      {line}" in str(told.value)


def test_a_scoped_setting_reaches_its_own_role_alone():
    spec = flat(load("natural/optimizer.SGD.lr=0.01"))
    assert (spec["run.roles.natural.optimizer.lr"], spec["run.roles.robust.optimizer.lr"]) == (0.01, 0.1)


@pytest.mark.parametrize("setting", ["run.epochs", "=3", "run.epochs=@", "run..x=3"])
def test_an_override_that_cannot_be_read_is_told(setting):
    with pytest.raises(InputError, match="--set"):
        load(setting)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_config_show_prints_is_the_same_recipe(recipe, tmp_path):
    first = load_recipe(str(ROOT / recipe), ["run.seed=3"])
    (tmp_path / "again.gin").write_text(first.text)
    again = load_recipe(str(tmp_path / "again.gin"))
    assert again.spec == first.spec
    assert again.text == first.text
    assert again.warnings == first.warnings


def test_the_walk_gives_what_gin_itself_gives(write, monkeypatch):
    """The rules of scopes, references and macros are gin's: the same text through gin's own engine."""
    import inspect

    import gin
    from actkit.config import registry

    text = """
X = 3
run.objective = @one/objective.madry()
run.epochs = %X
run.monitor = [@probe.accuracy(), @two/probe.accuracy(), @two/deep/probe.accuracy()]
objective.madry.attack = @train/attack.pgd()
objective.madry.attack_mode = 'eval'
one/objective.madry.attack_mode = 'train'
attack.pgd.eps = 1.0
train/attack.pgd.eps = 0.5
one/attack.pgd.steps = 7
attack.pgd.steps = %X
attack.pgd.step_size = 0.1
probe.accuracy.limit = 1
two/probe.accuracy.limit = %X
two/probe.accuracy.batch_size = 2
two/deep/probe.accuracy.limit = 9
deep/probe.accuracy.batch_size = 5
"""
    gin.clear_config()
    gin.enter_interactive_mode()
    try:
        for entry in registry.entries():
            if entry.selector in ("run", "objective.madry", "attack.pgd", "probe.accuracy"):

                def builder(_entry=entry, **kwargs):
                    label = gin.current_scope_str().rpartition("/")[2] if _entry.kind == "probe" else ""
                    return Spec(_entry.kind, _entry.name, dict(sorted(kwargs.items())), label)

                names = [inspect.Parameter(p, inspect.Parameter.KEYWORD_ONLY, default=None) for p in entry.parameters]
                builder.__signature__ = inspect.Signature(names)
                gin.register(entry.name, module=entry.kind or "actkit")(builder)
        gin.parse_config(text)
        theirs = gin.get_configurable("actkit.run")()
    finally:
        gin.clear_config()
        gin.exit_interactive_mode()
    # The one rule that is ours.
    monkeypatch.setattr("actkit.config.bindings.ATTACK_SCOPES", ("", "train", "eval", "one"))
    ours = Resolver(Table(read_document(str(write("text.gin", text))).bindings)).spec("run", Slot("", None))
    assert ours == theirs


def test_one_reading_of_a_file_serves_its_run_its_study_and_its_evaluation(write):
    path = write("r.gin", ACT + "study.seeds = [0, 1]\nrun.seed = 3\n")
    read = open_recipe(str(path), ["run.epochs=2"])
    path.unlink()
    run = read.recipe().spec
    assert (run.kwargs["seed"], run.kwargs["epochs"]) == (3, 2)
    assert read.study() == Spec("", "study", {"seeds": [0, 1]})
    assert read.evaluation() == run.kwargs["evaluation"]
    assert read.setting("mlp")["backbone"] == Spec("backbone", "mlp")


def test_a_recipe_that_binds_nothing_of_study_declares_none():
    assert open_recipe("gin/act_digits.gin").study() is None


def test_what_a_recipe_lacks_for_an_examination_is_told(write):
    file = str(write("r.gin", "run.epochs = 1\n"))
    with pytest.raises(InputError, match=r"the recipe has no run.evaluation"):
        open_recipe(file).evaluation()
    with pytest.raises(InputError, match=r"no run.data(.|\n)*no run.evaluation"):
        open_recipe(file).setting("mlp")


# -- the shipped recipes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", SHIPPED)
def test_every_shipped_file_uses_complete_selectors(recipe):
    from actkit.config import registry

    for line in (ROOT / recipe).read_text().splitlines():
        for name in re.findall(r"@(?:\w+/)*([\w.]+)\(\)", line) + re.findall(r"^(?:\w+/)*([\w.]+)\.\w+ *=", line):
            assert registry.get(name).selector == name


@pytest.mark.parametrize(("data", "count"), [("digits", 6), ("cifar10", 16), ("cifar100", 8), ("imagenet", 6)])
def test_the_evaluation_is_the_same_in_all_recipes_of_one_table(data, count):
    specs = [load_recipe(str(ROOT / r)).spec for r in RECIPES if re.search(rf"_{data}[_.]", r)]
    assert len(specs) == count
    assert len({repr((s.kwargs["evaluation"], s.kwargs["data"].selector)) for s in specs}) == 1


@pytest.mark.parametrize("network", ["", "_wrn_28_10"])
@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("defence", ["madry", "trades", "act"])
def test_every_row_of_table_2_has_its_recipe(defence, data, network):
    run = load_recipe(f"gin/{defence}_{data}{network}.gin").spec.kwargs
    assert run["objective"].name == defence
    assert run["data"].name == data
    assert {role.kwargs["backbone"].name for role in run["roles"].values()} == {network.strip("_") or "resnet18"}
    other = load_recipe(f"gin/{defence}_cifar10.gin").spec.kwargs
    for shared in ("objective", "epochs", "batch_size"):
        assert run[shared] == other[shared]
    assert all(
        role.kwargs["optimizer"] == other["roles"]["robust"].kwargs["optimizer"] for role in run["roles"].values()
    )


def test_every_row_of_table_1_has_its_recipe():
    alphas = {
        load_recipe(f"gin/act_cifar10_alpha_{a}.gin").spec.kwargs["objective"].get("alpha")
        for a in ("0.1", "0.3", "0.5", "0.7", "1.0")
    }
    assert alphas == {0.1, 0.3, 0.5, 0.7, 1.0}
    assert load_recipe("gin/act_cifar10.gin").spec.kwargs["objective"].get("alpha") == 0.9


@pytest.mark.parametrize(("recipe", "step"), [("imagenet", 1.0), ("imagenet_step_1_255", "1/255")])
@pytest.mark.parametrize("defence", ["madry", "act"])
def test_table_4_has_both_readings_of_the_step_size(defence, recipe, step):
    made = load_recipe(f"gin/{defence}_{recipe}.gin")
    run = made.spec.kwargs
    attack = run["objective"].kwargs["attack"]
    assert (attack.get("eps"), attack.get("step_size"), attack.get("steps")) == ("2/255", step, 10)
    assert (run["epochs"], run["batch_size"]) == (100, 4 * 128)
    assert run["objective"].get("alpha") in (None, 0.5)
    assert all(
        role.kwargs["backbone"] == Spec("backbone", "resnet50", {"stem": "imagenet"}) for role in run["roles"].values()
    )
    assert ["lands on a corner of the box" in warning for warning in made.warnings] == [
        True
    ]  # the literal evaluation, in both


def test_each_role_may_have_a_network_of_its_own():
    made = load_recipe(
        "gin/act_cifar10.gin",
        [
            "natural/role.backbone=@backbone.wrn()",
            "natural/backbone.wrn.depth=16",
            "robust/role.backbone=@backbone.wrn()",
            "backbone.wrn.width=2",
        ],
    )
    networks = {name: role.kwargs["backbone"] for name, role in made.spec.kwargs["roles"].items()}
    assert networks["natural"] == Spec("backbone", "wrn", {"depth": 16, "width": 2})
    assert networks["robust"] == Spec("backbone", "wrn", {"width": 2})


def test_the_two_readings_of_act_differ_where_the_paper_and_its_code_do(actkit):
    changes = diff(*(load_recipe(str(ROOT / f"gin/act_cifar10{kind}.gin")).spec for kind in ("", "_released")))
    assert {path.removeprefix("run.") for path, _, _ in changes} == {
        "objective.temperature", "objective.attack_cross_entropy", "objective.attack.start", "objective.attack.clip_start",
        "roles.robust.schedule.milestones", "roles.natural.schedule.milestones",
    }  # fmt: skip
    said = actkit("config", "diff", ROOT / "gin/act_cifar10.gin", ROOT / "gin/act_cifar10_released.gin")
    assert said.out.count("\n") == len(changes) + 1


def test_the_folder_gin_has_no_init_file():
    """With one it would shadow the library gin wherever the repository's root is on the path."""
    assert not (ROOT / "gin/__init__.py").exists()


def test_a_packaged_recipe_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("gin/act_digits.gin").spec == load()
    assert "gin/act_cifar10.gin" in packaged_recipes()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("optimizer.SGD.lr = 1e999", "inf"),
        ("optimizer.SGD.lr = -1e999", "-inf"),
        ("dataset.torchvision.options = {'a': [1, 1e400]}", "inf"),
        ("RATE = 1e999\noptimizer.SGD.lr = %RATE", "inf"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_with_its_line(line, shown, write):
    path = write("r.gin", f"include 'natural_digits.gin'\n{line}\n")
    with pytest.raises(InputError, match=f"a number must be finite, this one is {shown}") as told:
        load_recipe(str(path))
    assert "r.gin:2" in str(told.value)


def test_a_setting_that_is_not_finite_is_refused_too(write):
    path = write("r.gin", "include 'natural_digits.gin'\n")
    with pytest.raises(InputError, match="a number must be finite"):
        load_recipe(str(path), ["optimizer.SGD.lr=1e999"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ESP=0.1", "nothing uses a macro 'ESP'\n  --> --set ESP=0.1\n  help: did you mean 'EPS'?"),
        ("eps=0.1", "help: did you mean 'EPS'?"),
        ("epochs=3", "help: did you mean 'run.epochs'?"),
    ],
)
def test_a_misspelt_macro_of_the_command_line_names_the_nearest(setting, message):
    with pytest.raises(InputError) as told:
        load_recipe("gin/act_digits.gin", [setting])
    assert message in str(told.value)


def test_a_macro_that_a_recipe_leaves_to_the_command_line_can_be_given_there(write):
    recipe = str(write("r.gin", "include 'act_digits.gin'\nrun.epochs = %LENGTH\n"))
    assert load_recipe(recipe, ["LENGTH=7"]).spec.kwargs["epochs"] == 7

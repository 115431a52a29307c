"""A component is checked when it registers, and both sides are quoted."""

from __future__ import annotations

import importlib.metadata

import pytest

from actkit.config import plugins, registry
from actkit.config.plugins import load_installed_plugins, load_plugin_folder
from actkit.config.registry import get, register
from actkit.errors import InputError


@pytest.fixture(autouse=True)
def leave_no_entries():
    registry.load_builtins()
    before = dict(registry.registered)
    yield
    registry.registered.clear()
    registry.registered.update(before)


def attack(goal, x, *, noise, eps):
    return x


def wrong_order(x, goal, *, noise, eps): ...
def no_eps(goal, x, *, noise): ...
def swallows(goal, x, *, noise, eps, **options): ...
def no_role(x, y, *, attack): ...
def no_model(data, *, limit=None): ...
def has_positional(root): ...
def no_channels(num_classes, *, width=3): ...


class TakesAnything:
    def __init__(self, **options): ...
    def __call__(self, x, y, robust): ...


@pytest.mark.parametrize(
    ("kind", "component", "why"),
    [
        ("attack", wrong_order, r"positional parameters are \('x', 'goal'\), not \('goal', 'x'\)"),
        ("attack", no_eps, "no keyword parameter 'eps'"),
        ("attack", swallows, "misspelt name"),
        ("objective", no_role, "positional parameters"),
        ("objective", TakesAnything, "misspelt name"),
        ("probe", no_model, "positional parameters"),
        ("dataset", has_positional, "positional parameters"),
        ("backbone", no_channels, "no keyword parameter 'in_chans'"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_signature_that_fits_no_contract_is_refused_with_both_sides(kind, component, why):
    with pytest.raises(InputError, match=why) as caught:
        register(kind)(component)
    assert registry.KINDS[kind].contract in str(caught.value)
    assert "test_registry.py:" in str(caught.value)


def test_register_returns_the_object_itself_and_get_finds_it():
    assert register("attack", "test_mine")(attack) is attack
    entry = get("attack.test_mine")
    assert entry.target is attack
    assert list(entry.parameters) == ["eps"], "noise is supplied, not bound"
    assert get("test_mine") is entry, "the last part of a name does where it is unique"


def test_a_second_owner_of_a_name_is_refused_and_both_are_named():
    register("attack", "test_taken")(attack)
    register("attack", "test_taken")(attack)  # the same file and line again
    with pytest.raises(InputError, match=r"registered twice: by actkit \(.*:\d+\) and by"):
        register("attack", "test_taken")(lambda goal, x, *, noise, eps: x)


def test_names_must_be_identifiers_and_kinds_exist():
    with pytest.raises(InputError, match="must be a Python identifier, got 'wrn-28'"):
        register("attack", "wrn-28")(attack)
    with pytest.raises(InputError, match=r"no kind of component 'atack'(.|\n)*did you mean 'attack'"):
        register("atack")


def test_an_unknown_name_gets_the_nearest_and_an_ambiguous_one_the_choices(monkeypatch):
    with pytest.raises(InputError, match="did you mean 'attack.pgd'"):
        get("attack.pdg")
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    registry.add("probe", "natural", lambda model, data: None)
    with pytest.raises(InputError, match="'objective.natural' or 'probe.natural'"):
        get("natural")


def test_a_plugin_folder_is_imported_under_its_name_and_a_failing_one_is_told(tmp_path):
    folder = tmp_path / "extras_a"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from __future__ import annotations\nfrom actkit import register\n"
        "@register('attack', 'test_from_folder')\ndef mine(goal, x, *, noise, eps: float):\n    return x\n"
    )
    load_plugin_folder(folder)
    assert get("attack.test_from_folder").origin == str(folder / "mine.py")
    broken = tmp_path / "extras_b"
    broken.mkdir()
    (broken / "bad.py").write_text("import does_not_exist\n")
    with pytest.raises(InputError, match=r"ModuleNotFoundError: No module named 'does_not_exist'"):
        load_plugin_folder(broken)
    (tmp_path / "code").mkdir()
    with pytest.raises(InputError, match="'code' has the name of an installed module"):
        load_plugin_folder(tmp_path / "code")
    with pytest.raises(InputError, match="no such folder"):
        load_plugin_folder(tmp_path / "nowhere")


def test_a_broken_entry_point_warns_and_the_rest_goes_on(monkeypatch):
    class Point:
        def __init__(self, name, error=None):
            self.name, self.error, self.dist, self.module = name, error, None, name
            self.loaded = False

        def load(self):
            if self.error:
                raise self.error
            self.loaded = True

    good, bad = Point("b_good"), Point("a_bad", RuntimeError("made for another version"))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [good, bad])
    monkeypatch.setattr(registry, "failures", {})
    monkeypatch.setattr(plugins, "attempted", {})
    assert load_installed_plugins() == [
        "plugin a_bad (a_bad) could not be loaded: RuntimeError: made for another version"
    ]
    assert good.loaded
    with pytest.raises(InputError, match="plugin a_bad could not be loaded"):
        get("objective.from_the_bad_one")


def test_a_paper_may_be_called_as_its_defence_is():
    assert registry.has("paper.act")
    assert registry.get("act").selector == "objective.act"

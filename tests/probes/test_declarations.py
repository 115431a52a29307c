"""What a probe declares when it registers, how many models it needs and whether it attacks; and an attack, what tables call it."""

from __future__ import annotations

import functools

import pytest

from actkit.attacks import apgd, fgsm, pgd, square
from actkit.config.registry import get, register
from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.probes.protocols import title


def two(source, target, data): ...
def every(models, data): ...
def folder(*, root="."): ...


def test_a_probe_needs_as_many_models_as_its_signature_names_or_as_it_says():
    assert {name: get(f"probe.{name}").models for name in ("accuracy", "audit", "transfer")} == {
        "accuracy": 1, "audit": 1, "transfer": 2,
    }  # fmt: skip
    register("probe", "needs_two")(two)
    assert get("probe.needs_two").models == 2


@pytest.mark.parametrize(
    ("kind", "target", "models", "message"),
    [
        ("probe", two, 3, "says that it needs 3 models, its signature names 2"),
        ("probe", every, 0, "needs at least one model, it says 0"),
        ("dataset", folder, 2, "only a probe says how many models it needs"),
    ],
)
def test_what_does_not_fit_the_signature_is_refused(kind, target, models, message):
    with pytest.raises(InputError, match=message):
        register(kind, "declares_wrongly", models=models)(target)


def test_a_probe_attacks_when_it_takes_an_attack_unless_it_says_otherwise():
    found = {name: get(f"probe.{name}").attacks for name in ("accuracy", "robust_accuracy", "autoattack", "audit")}
    assert found == {"accuracy": False, "robust_accuracy": True, "autoattack": True, "audit": False}


def test_how_many_models_a_probe_is_called_with_is_read_from_its_signature():
    register("probe", "called_with_two")(two)
    assert {name: get(f"probe.{name}").takes for name in ("accuracy", "called_with_two", "transfer")} == {
        "accuracy": 1,
        "called_with_two": 2,
        "transfer": None,
    }


def mine(goal, x, *, noise, eps, steps=3): ...


@pytest.mark.parametrize(
    ("attack", "loss", "shown"),
    [
        (functools.partial(pgd, eps=0.1, step_size=0.01, steps=20), "cross_entropy", "PGD-20"),
        (Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.01, "steps": 20}).build(), "margin", "PGD-20 (margin)"),
        (functools.partial(fgsm, eps=0.1), "cross_entropy", "FGSM"),
        (functools.partial(fgsm, eps=0.1), "dlr", "FGSM (DLR)"),
        (functools.partial(apgd, eps=0.1), "cross_entropy", "APGD-CE"),
        (functools.partial(apgd, eps=0.1), "targeted_dlr", "APGD-T"),
        (functools.partial(square, eps=0.1), "margin", "Square"),
        (functools.partial(mine, eps=0.1), "cross_entropy", "mine-3"),
        (functools.partial(mine, eps=0.1), "margin", "mine-3 (margin)"),
    ],
)
def test_an_attack_says_what_tables_call_it_and_one_that_does_not_goes_by_its_name_and_steps(attack, loss, shown):
    assert title(attack, loss) == shown


def test_an_attack_of_a_plugin_may_say_what_tables_call_it():
    register("attack", "declares_a_title", title=lambda attack, loss: f"Mine on {loss}")(mine)
    assert title(Spec("attack", "declares_a_title", {"eps": 0.1}).build(), "margin") == "Mine on margin"

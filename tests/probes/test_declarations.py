"""What a probe declares when it registers: how many models it needs, and whether it attacks."""

from __future__ import annotations

import pytest

from actkit.config.registry import get, register
from actkit.errors import InputError


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

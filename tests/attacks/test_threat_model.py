"""Every attack there is, plugins' included: whatever its start and its settings, x_adv lies in the threat model, and eps 0 gives x back."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actkit.attacks import Threat, away_from, norm_named, pgd, untargeted
from actkit.attacks.norms import Linf
from actkit.config import registry
from actkit.config.norm import Norm, norm_names
from actkit.errors import InputError
from actkit.losses import cross_entropy
from actkit.noise import Noise
from helpers import ROOT

# What an attack must be told besides eps, and values that keep a search short. An attack of a plugin that must be told something else is named by the test.
VALUES: dict[str, Any] = {
    "step_size": st.sampled_from([0.0, 0.01, 0.2, 5.0]),
    "steps": st.integers(1, 4),
    "queries": st.integers(1, 8),
    "start_std": st.sampled_from([0.0, 1e-7, 0.001, 0.5]),
}
EPS = st.sampled_from([0.0, 1e-4, 8 / 255, 0.3, 1.0])


def attacks() -> dict[str, registry.Entry]:
    """By name: actkit's own, and those of the plugins that lie beside it."""
    folders = sorted(p for p in (ROOT / "plugins").glob("*/actkit_*") if p.is_dir() and _has_attack(p))
    for folder in folders:
        sys.path.insert(0, str(folder.parent))
        try:
            importlib.import_module(folder.name)
        finally:
            sys.path.remove(str(folder.parent))
    ours = ("actkit", *(folder.name for folder in folders))
    return {entry.name: entry for entry in registry.entries("attack") if registry.package_of(entry.target) in ours}


def _has_attack(package: Path) -> bool:
    return any('register("attack"' in file.read_text(encoding="utf-8") for file in package.glob("*.py"))


ATTACKS = attacks()


def settings_of(entry: registry.Entry) -> Iterator[tuple[str, st.SearchStrategy[Any]]]:
    """What to draw of an attack's settings: every choice, every switch, and the numbers above."""
    for name, parameter in entry.parameters.items():
        if name in VALUES:
            yield name, VALUES[name]
        elif parameter.annotation == Norm:
            yield name, st.sampled_from(norms_of(entry))
        elif typing.get_origin(parameter.annotation) is typing.Literal:
            yield name, st.sampled_from(typing.get_args(parameter.annotation))
        elif parameter.annotation is bool:
            yield name, st.booleans()
        else:
            assert name == "eps" or not parameter.required, f"attack.{entry.name}: VALUES should say one for {name!r}"


def norms_of(entry: registry.Entry) -> list[str]:
    """Those in which the attack works, by its own check: actkit's, and a patch that only this file knows."""
    return [norm for norm in norm_names() if not any(name == "norm" for name, _ in entry.check(**_budget(entry, norm)))]


def _budget(entry: registry.Entry, norm: str) -> dict[str, Any]:
    values = {"eps": 0.1, "steps": 1, "step_size": 0.1, "queries": 1, "norm": norm}
    asked = inspect.signature(entry.check).parameters
    return {name: values.get(name, entry.parameters[name].default) for name in asked if name in entry.parameters}


@registry.register("norm")
class columns(Linf):
    """The largest change of a pixel among the first two columns; no other may change."""

    @staticmethod
    def inside(x: torch.Tensor) -> torch.Tensor:
        return torch.arange(x.shape[-1]) < 2

    def length(self, v):
        return torch.where((v * ~self.inside(v)).flatten(1).any(1), torch.inf, v.flatten(1).abs().amax(1))

    def uniform(self, noise, x):
        return Linf.uniform(noise, x) * self.inside(x)

    def sphere(self, noise, x):
        return self.uniform(noise, x).sign()

    def direction(self, gradient, x, eps):
        return Linf.direction(gradient, x, eps) * self.inside(x)

    def project(self, x_adv, x, eps):
        return torch.where(self.inside(x), Linf.project(x_adv, x, eps), x)


def model(x: torch.Tensor) -> torch.Tensor:
    """Three classes, not linear: some images fall at once, some late, some never."""
    flat = x.flatten(1) * 4 - 2
    weights = torch.linspace(-1, 1, 3 * flat.shape[1]).sin().view(3, -1)
    return (flat.tanh() @ weights.T) + torch.tensor([0.5, 0.0, -0.5])


def images(seed: int) -> tuple[torch.Tensor, torch.Tensor, Noise]:
    """Inside [0,1] and on its border; labels that the model gives, and others."""
    noise = Noise(torch.arange(12), seed)
    x = noise.uniform(2, 3, 3)
    x[::3] = x[::3].round()
    return x, torch.where(noise.integers(3) > 0, model(x).argmax(1), noise.integers(3)), noise


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_result_lies_in_the_threat_model_and_with_eps_0_it_is_x(name, data):
    entry = ATTACKS[name]
    how = {key: data.draw(strategy, key) for key, strategy in settings_of(entry)}
    eps, watched, seed = (
        data.draw(EPS, "eps"),
        data.draw(st.booleans(), "watched"),
        data.draw(st.integers(0, 9), "seed"),
    )
    x, y, noise = images(seed)
    before = x.clone()
    goal = untargeted(model, y) if watched else away_from(model, cross_entropy, y)
    try:
        x_adv = entry.target(goal, x, noise=noise, eps=eps, **how)
    except InputError as error:
        # A search for the smallest perturbation cannot work where nobody tells.
        if watched or "needs a goal that tells who has won" not in str(error):
            raise
        return
    assert x.equal(before), "the images themselves are left alone"
    assert Threat(how.get("norm", "linf"), eps).allows(x_adv, x).all()
    if eps == 0:
        assert x_adv.equal(x)


def test_there_are_attacks_to_try():
    assert {"pgd", "fgsm", "apgd", "square"} <= set(ATTACKS)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "columns"])
@pytest.mark.parametrize("start", ["uniform", "gaussian"])
def test_who_is_fooled_outside_the_threat_model_has_not_won(norm, start):
    """Everybody is fooled outside [0,1] and nobody inside: whoever stayed at the first point would stay outside."""
    x = torch.zeros(20, 1, 2, 2)

    def goal(x, rows):
        return x.flatten(1).sum(1), (x < 0).flatten(1).any(1)

    x_adv = pgd(
        goal, x, noise=Noise(torch.arange(20), 0), eps=0.1, step_size=0.01, steps=3, norm=norm, start=start, clip_start=False
    )  # fmt: skip
    assert Threat(norm, 0.1).allows(x_adv, x).all()
    assert (x_adv > 0).any(), "it went on from there"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "columns"])
@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
def test_where_nobody_asks_the_first_gradient_is_taken_where_the_released_code_takes_it(norm, start):
    """At x plus noise, outside [0,1] too: the numbers of the published protocol rest on that."""
    x, y, _ = images(3)
    seen = []

    def goal(x, rows):
        seen.append(x.detach().clone())
        return cross_entropy(model(x), y[rows]), None

    attack = functools.partial(pgd, goal, x, eps=0.2, step_size=0.05, norm=norm, start=start, clip_start=False)
    attack(noise=Noise(torch.arange(12), 3), steps=1)
    fresh = Noise(torch.arange(12), 3)
    first = {
        "uniform": lambda: x + 0.2 * norm_named(norm).uniform(fresh, x),
        "gaussian": lambda: x + 0.001 * fresh.normal(*x.shape[1:]),
        "none": lambda: x,
    }[start]()
    assert seen[0].equal(first)

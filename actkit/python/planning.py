"""What a training from Python is made of: its objective, optimizers and length, from what the caller said or from a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from actkit.config import registry
from actkit.config.recipe import Recipe, load_recipe
from actkit.config.spec import BoundObjective, Spec
from actkit.errors import InputError, nearest
from actkit.evaluation.threat import under
from actkit.networks.roles import RoleConfig
from actkit.training.run import Run


@dataclass(frozen=True)
class Given:
    """What the caller said of the training; None where nothing."""

    epochs: int | None
    batch_size: int | None
    seed: int | None
    precision: Literal["fp32", "bf16"] | None
    optimizer: str | Spec | None
    lr: float | None
    schedule: str | Spec | None


@dataclass(frozen=True)
class Plan:
    """A training before its models and data are there.

    Args:
        roles: what each role is trained with, of a recipe; `other`: of those that it does not name.
        run: of a recipe.
    """

    objective: BoundObjective
    epochs: int
    batch_size: int
    seed: int
    precision: Literal["fp32", "bf16"]
    other: RoleConfig
    roles: Mapping[str, RoleConfig] = field(default_factory=dict)
    run: Run | None = None
    steps: int | None = None
    accumulate: int = 1

    def role(self, name: str) -> RoleConfig:
        return self.roles.get(name, self.other)


def plan_of(objective: Spec, given: Given) -> Plan:
    """Raises `InputError` where the length is missing or is none, and for an optimizer or a schedule that there is none of."""
    if given.epochs is None:
        raise InputError("for how many epochs?", help="epochs=10")
    for name, value in (("epochs", given.epochs), ("batch_size", given.batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    optimizer = _optimizer(given.optimizer, given.lr).build()
    schedule = None if given.schedule == "none" else spec_of("schedule", given.schedule or "CosineAnnealingLR").build()
    return Plan(
        objective.build(),
        given.epochs,
        given.batch_size or 128,
        given.seed or 0,
        given.precision or "fp32",
        RoleConfig(backbone=None, optimizer=optimizer, schedule=schedule),
    )


def plan_of_recipe(recipe: Any, given: Given, refused: Mapping[str, Any]) -> Plan:
    """The recipe's, but for what was said. Raises `InputError` for an objective's or an attack's settings beside it."""
    if refused:
        raise InputError(
            f"the recipe says what it trains with; {', '.join(refused)} beside it would be two answers",
            help="change the recipe: actkit.load(file, ['train/attack.pgd.eps=8/255'])",
        )
    read = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe))
    run: Run = read.spec.build()
    roles = run.roles
    if given.optimizer is not None or given.lr is not None:
        optimizer = _optimizer(given.optimizer, given.lr).build()
        roles = {n: c if c.optimizer is None else dataclasses.replace(c, optimizer=optimizer) for n, c in roles.items()}
    if given.schedule is not None:
        schedule = None if given.schedule == "none" else spec_of("schedule", given.schedule).build()
        roles = {n: dataclasses.replace(c, schedule=schedule, schedule_every="epoch") for n, c in roles.items()}
    run = dataclasses.replace(
        run,
        roles=roles,
        epochs=run.epochs if given.epochs is None else given.epochs,
        batch_size=run.batch_size if given.batch_size is None else given.batch_size,
        seed=run.seed if given.seed is None else given.seed,
        precision=run.precision if given.precision is None else given.precision,
    )
    return Plan(
        run.objective,
        run.epochs,
        run.batch_size,
        run.seed,
        run.precision,
        other=roles[run.objective.roles[0]],
        roles=roles,
        run=run,
        steps=run.steps,
        accumulate=run.accumulate,
    )


def spec_of(kind: str, named: str | Spec) -> Spec:
    """A component by its name, or as it is. Raises `InputError`, with the nearest name, where there is none."""
    if isinstance(named, Spec):
        return named
    name = named.removeprefix(f"{kind}.")
    known = {entry.name for entry in registry.entries(kind)}
    if name not in known:
        raise InputError(f"there is no {kind} {named!r}", help=nearest(name, known))
    return Spec(kind, name)


def _optimizer(named: str | Spec | None, lr: float | None) -> Spec:
    spec = spec_of("optimizer", named or "SGD")
    if named in (None, "SGD"):
        spec = spec.replace(lr=0.1, momentum=0.9, weight_decay=5e-4)
    return spec if lr is None else spec.replace(lr=lr)


def objective_spec(named: str | Spec, attacked: Mapping[str, Any], settings: Mapping[str, Any]) -> Spec:
    """The objective with its own settings, and with an attack where it takes one. Raises `InputError` where eps is missing, or of no use."""
    spec = spec_of("objective", named)
    for name in settings:
        spec.entry.assert_parameter(name)
    spec = spec.replace(**settings)
    parameters = spec.entry.parameters
    said = {name: value for name, value in attacked.items() if value is not None}
    if "attack" in parameters and "attack" not in spec.kwargs:
        return spec.replace(attack=_attack(spec.name, attacked))
    own = {name: value for name, value in said.items() if name in parameters and name != "attack"}
    # The official code of free adversarial training steps by eps.
    if spec.name == "free" and "eps" in own and "step_size" not in own:
        own["step_size"] = own["eps"]
    if unused := sorted(said.keys() - own.keys()):
        why = "it attacks as its Spec says" if "attack" in parameters else "it has no such setting"
        raise InputError(f"objective.{spec.name}: {', '.join(unused)} would change nothing: {why}")
    missing = [p.name for p in parameters.values() if p.required and p.name not in {**spec.kwargs, **own}]
    if missing:
        raise InputError(
            f"objective.{spec.name} needs {' and '.join(missing)}", help=", ".join(f"{n}=..." for n in missing)
        )
    return spec.replace(**own)


def _attack(objective: str, attacked: Mapping[str, Any]) -> Spec:
    """The attack in training: as it was given, or PGD of 10 steps of eps/4."""
    named, eps = attacked["attack"], attacked["eps"]
    if eps is None and not isinstance(named, Spec):
        raise InputError(
            f"objective.{objective} attacks while it trains, and nobody says with which budget", help="give eps=8/255"
        )
    spec = spec_of("attack", named or "pgd")
    parameters = spec.entry.parameters
    if not isinstance(named, Spec):
        # A quarter of eps, which it is scaled to below.
        usual = {"eps": 1.0, "step_size": 0.25, "steps": 10}
        spec = spec.replace(
            **{n: v for n, v in usual.items() if n in parameters and (n == "eps" or parameters[n].required)}
        )
    spec = under(spec, eps=eps, norm=attacked["norm"])
    own = {name: attacked[name] for name in ("step_size", "steps") if attacked[name] is not None}
    for name in own:
        spec.entry.assert_parameter(name)
    return spec.replace(**own)

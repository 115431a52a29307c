"""What a study costs, in seconds: passes counted on a stand-in, and one timed batch for each network, which all trainings of it share."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.datasets import Data, random_batch
from actkit.errors import ActkitError
from actkit.evaluation.cost import Pass, Unbreakable, examination_of, now, units_by_role
from actkit.networks.building import initialise
from actkit.networks.model_files import untrained
from actkit.networks.roles import Role, RoleConfig
from actkit.training.dry_run import batches_of, passes_of_a_step
from actkit.training.run import Run


@dataclass(frozen=True)
class RunCost:
    """Of one training, in seconds: a step, of which there are `batches`, and the examination at its end."""

    step: float
    batches: int
    evaluation: float


@dataclass(frozen=True)
class _Read:
    """A recipe's run and its data, whose shape is known before a pixel is read."""

    run: Run
    data: Data

    @staticmethod
    def of(recipe: Recipe) -> _Read:
        run: Run = recipe.spec.build()
        return _Read(run, run.data())

    @property
    def headline(self) -> str:
        return self.run.objective.roles[0]


@dataclass
class Costs:
    """Estimates on one device. What trainings have in common is counted and timed once."""

    device: torch.device
    _units: dict[str, float] = field(default_factory=dict)
    _steps: dict[str, Counter[Pass]] = field(default_factory=dict)

    def of_run(self, recipe: Recipe) -> RunCost:
        """Of a whole training and of the examination at its end, the monitor not counted."""
        read = _Read.of(recipe)
        units = {name: self._unit(read, name) for name in read.run.roles}
        passes = units_by_role(self._passes(read, recipe))
        a_step = read.run.batch_size * sum(units[name] * n for name, n in passes.items())
        own = examination_of(read.run.evaluation, read.data, list(read.run.roles))
        evaluation = sum(units[name] * n for name, n in own.by_role.items())
        return RunCost(a_step, batches_of(read.run, read.data), evaluation)

    def of_examination(self, recipes: Sequence[Recipe], probes: Sequence[Spec], *, headline: bool) -> float:
        """Of probes on what these recipes train, in seconds: on the headline model of each, or on all."""
        models: dict[str, float] = {}
        data = None
        for i, recipe in enumerate(recipes):
            read = _Read.of(recipe)
            data = data or read.data
            names = [read.headline] if headline else list(read.run.roles)
            # Of one training by the roles alone, so that what was counted of others serves it too.
            models |= {name if not i else f"{name}{i}": self._unit(read, name) for name in names}
        if data is None:
            return 0.0
        counted = examination_of([spec.build() for spec in probes], data, list(models))
        return sum(models[name] * n for name, n in counted.by_role.items())

    def _unit(self, read: _Read, role: str) -> float:
        """Seconds of a forward pass of one image through a role's network."""
        backbone, precision = read.run.roles[role].backbone, read.run.precision
        # Another number of classes is another last layer, and no other cost to speak of.
        key = f"{untrained(backbone.spec)!r} {read.data.shape} {precision}"
        if key not in self._units:
            self._units[key] = _timed_unit(read, role, self.device)
        return self._units[key]

    def _passes(self, read: _Read, recipe: Recipe) -> Counter[Pass]:
        """Of one training step."""
        run = read.run
        trained = [(name, config.optimizer is not None) for name, config in run.roles.items()]
        key = f"{run.objective.spec!r} {trained} {read.data.shape} {read.data.num_classes}"
        if key not in self._steps:
            self._steps[key] = _counted_step(read)
        return self._steps[key]


def _timed_unit(read: _Read, name: str, device: torch.device) -> float:
    """One batch through a network with random weights as training and attacks use it; a small one where that is slow."""
    run, data = read.run, read.data
    c, h, w = data.shape
    backbone = untrained(run.roles[name].backbone.spec).build()
    model = initialise(backbone, num_classes=data.num_classes, in_chans=c, image_size=(h, w), seed=0).to(device)
    role = Role(name, model, precision=run.precision, trained=True)
    # The first warms up.
    size = min(2, run.batch_size)
    five_units(role, data, size)
    seconds = five_units(role, data, size)
    if seconds < 0.5:
        size = run.batch_size if seconds < 0.05 else min(run.batch_size, 8)
        five_units(role, data, size)
    # Several, where one is over too soon for a busy machine to have been in its way.
    times: list[float] = []
    while sum(times) < 0.5:
        times.append(five_units(role, data, size))
    return sum(times) / len(times) / (5 * size)


def five_units(role: Role, data: Data, size: int) -> float:
    """Seconds of a step of an attack and of a step of training, on the same batch."""
    x, _ = random_batch(data, size)
    x = x.to(role.device).requires_grad_()
    began = now(role.device)
    with role.frozen("eval") as view:
        (gradient,) = torch.autograd.grad(view(x).sum(), x)
        x_adv = (x.detach() + 0.01 * gradient.sign()).clamp(0, 1)
    role(x_adv).sum().backward()
    return now(role.device) - began


def _counted_step(read: _Read) -> Counter[Pass]:
    """The passes of one training step, counted on stand-ins for its networks: they are the objective's and its attack's, whatever the network.

    Where an objective needs more of a network than a stand-in has, the networks themselves are asked.
    """
    run, data = read.run, read.data
    cpu = torch.device("cpu")
    try:
        configs = {name: _of_a_stand_in(config, data) for name, config in run.roles.items()}
        return _count(dataclasses.replace(run, roles=configs), data, cpu)
    except (ActkitError, RuntimeError, ValueError, AttributeError, TypeError, LookupError, AssertionError):
        return _count(run, data, cpu)


def _count(run: Run, data: Data, device: torch.device) -> Counter[Pass]:
    roles = run.make_roles(data, device, first_weights=False)
    return passes_of_a_step(run, data, roles, device)


def _of_a_stand_in(config: RoleConfig, data: Data) -> RoleConfig:
    """The same role with a network of next to nothing; which of its parameters would stay as they are plays no part in the counting."""

    def backbone(num_classes: int, *, in_chans: int) -> torch.nn.Module:
        return Unbreakable(data)

    made: Any = functools.partial(backbone)
    made.spec = config.backbone.spec
    return dataclasses.replace(config, backbone=made, weights=None, classes=None, freeze=None, lr_scale=None)

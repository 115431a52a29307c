"""A dry run: one step on made-up images, every forward and backward pass counted. No pixel is read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.datasets import Data, Split, random_batch
from actkit.evaluation.examination import examine
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.training.loop import update
from actkit.training.run import Run


@dataclass(frozen=True)
class Pass:
    """One way that a model is used. A unit is a forward pass; an input gradient costs 1 more, a full backward pass 2 more."""

    role: str
    mode: str  # of BatchNorm and dropout
    weights: str  # 'live' or 'frozen'
    direction: str  # 'forward' or 'backward'

    @property
    def units(self) -> int:
        return 2 if self.direction == "backward" and self.weights == "live" else 1


@dataclass
class Plan:
    folder: Path
    parameters: dict[str, int]
    batches: int  # in all
    passes: Counter[Pass]  # of one training step
    seconds: float  # of one training step, estimated
    evaluation_passes: Counter[Pass]  # of one example
    evaluation_seconds: float
    run: Run
    data: Data
    device: torch.device
    roles: dict[str, Role]
    a_unit: float  # seconds for one image, estimated
    warnings: list[str] = field(default_factory=list)

    def examination_seconds(self, probes: Sequence[Spec], *, headline: bool) -> float:
        """What other probes would cost, on the headline model or on all."""
        roles = dict([next(iter(self.roles.items()))]) if headline else self.roles
        return self.a_unit * _examination([spec.build() for spec in probes], self.data, roles)[1]

    @property
    def units(self) -> int:
        """The cost of a training step in forward passes of one batch."""
        return _units(self.passes)


def _units(passes: Counter[Pass]) -> int:
    return sum(p.units * n for p, n in passes.items())


def plan(recipe: Recipe, *, folder: Path, device: torch.device) -> Plan:
    """Count one step on made-up images and time a second. The times are estimates: from a few images, scaled up by units."""
    run: Run = recipe.spec.build()
    data: Data = run.data()
    roles = run.make_roles(data, device)
    size = min(run.batch_size, 2)
    with _counting(roles) as passes:
        seconds = _step(run, data, roles, size, device)
    if seconds < 1:  # small enough to time more of them, or whole batches
        size = run.batch_size if seconds < 0.1 else min(run.batch_size, 8)
        _step(run, data, roles, size, device)
    seconds = _step(run, data, roles, size, device) / size  # not the first, which warms up
    examined, evaluation_units = _examination(run.evaluation, data, roles)
    a_unit = seconds / _units(passes)
    batches = run.epochs * -(-data.sizes["train"] // run.batch_size)
    return Plan(
        folder, {name: sum(p.numel() for p in role.model.parameters()) for name, role in roles.items()},
        min(batches, run.steps or batches), passes, seconds * run.batch_size, examined,
        a_unit * evaluation_units, run, data, device, roles, a_unit,
    )  # fmt: skip


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads, as one of several processes would."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(number, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _step(run: Run, data: Data, roles: dict[str, Role], size: int, device: torch.device) -> float:
    x, y = (t.to(device) for t in random_batch(data, size))
    began = time.perf_counter()
    list(update(run.objective, x, y, roles, noise=Noise(torch.arange(size, device=device), 0)))
    return time.perf_counter() - began


class _Unbreakable(nn.Module):
    """Stands in for a model while an examination is counted: right whatever the input, so nothing is dropped; and quick."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        self.read = nn.Linear(1, data.num_classes)
        self.label = int(random_batch(data, 1)[1])

    def forward(self, x: Tensor) -> Tensor:
        small = self.read(x.flatten(1).mean(1, keepdim=True)).tanh()
        return small + 10 * nn.functional.one_hot(torch.full((len(x),), self.label), small.shape[1])


def _examination(probes: Sequence[Any], data: Data, roles: dict[str, Role]) -> tuple[Counter[Pass], int]:
    """The passes that one example takes through every probe, at most; and the units of the whole evaluation."""
    one, every, units = _one(data), Counter[Pass](), 0
    for probe in probes:
        stand_ins = {name: Role(name, _Unbreakable(data)) for name in roles}
        with _counting(stand_ins) as passes:
            examine([probe], stand_ins, one)
        every.update(passes)
        limit, size = probe.spec.get("limit"), data.sizes.get(probe.spec.get("split", "test"), 0)
        units += _units(passes) * min(limit or size, size)
    return every, units


def _one(data: Data) -> Data:
    x, y = random_batch(data, 1)
    y.zero_()  # of the first class, which a probe of some classes looks at too
    return Data(data.name, data.shape, data.classes, dict.fromkeys(data.sizes, 1), lambda name: Split(x, y))


@contextmanager
def _counting(roles: dict[str, Role]) -> Iterator[Counter[Pass]]:
    """Count the passes of every model, by hooks on it and on the frozen views made of it meanwhile."""
    passes: Counter[Pass] = Counter()
    input_only = [False]  # whether the backward pass under way asks for no weight's gradient
    handles = []
    for name, role in roles.items():

        def seen(module: nn.Module, inputs: Any, logits: Tensor, name: str = name) -> None:
            live = any(p.requires_grad for p in module.parameters())
            mode = "train" if module.training else "eval"
            passes[Pass(name, mode, "live" if live else "frozen", "forward")] += 1

            def backward(gradient: Tensor) -> None:
                passes[Pass(name, mode, "live" if live and not input_only[0] else "frozen", "backward")] += 1

            if logits.requires_grad:
                logits.register_hook(backward)

        role.forget_views()  # a view that is made from now on carries the hook with it
        handles.append(role.model.register_forward_hook(seen))

    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        given = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        input_only[0] = not any(isinstance(t, nn.Parameter) for t in given)
        try:
            return original(outputs, inputs, *args, **kwargs)
        finally:
            input_only[0] = False

    original = torch.autograd.grad
    try:
        with mock.patch.object(torch.autograd, "grad", grad):
            yield passes
    finally:
        for handle in handles:
            handle.remove()
        for role in roles.values():
            role.forget_views()


def lines(made: Plan) -> list[str]:
    """The plan, for a person."""
    run, data = made.run, made.data
    out = [
        f"objective    {run.objective.spec!r}",
        f"data         {data.name}: {data.counted} of {'x'.join(map(str, data.shape))}, {data.num_classes} classes",
    ]
    for name, count in made.parameters.items():
        parts = run.roles[name]
        trained = f"{parts.optimizer.spec!r}" if parts.optimizer else "not trained"
        out.append(f"{name:<12} {parts.backbone.spec!r}: {count:,} parameters; {trained}")
        if parts.schedule:
            out.append(f"{'':<12} {parts.schedule.spec!r} every {parts.schedule_every}")
    out += [
        f"training     {run.epochs} epochs, {made.batches:,} batches of {run.batch_size}, {run.precision}, seed {run.seed}",
        f"a step       {made.units} units (1 = a forward pass of one batch)",
    ]
    out += _passes(made.passes)
    for probe in run.evaluation:
        label = f"{probe.spec.label}: " if probe.spec.label else ""
        out.append(f"evaluation   {label}{probe.spec!r}")
    out.append(f"an example   {_units(made.evaluation_passes)} units at most, all probes and models together")
    out += _passes(made.evaluation_passes)
    total = made.seconds * made.batches + made.evaluation_seconds
    out += [
        f"time         about {about(total)} on {made.device}: {about(made.seconds)} a step, {about(made.evaluation_seconds)} for the evaluation, the monitor not counted",
        f"folder       {made.folder}",
    ]
    return out


def _passes(passes: Counter[Pass]) -> list[str]:
    width = max((len(p.role) for p in passes), default=0)
    return [
        f"{'':<12} {p.role:<{width}}  {n:>4} x {p.direction:<8} in {p.mode:<5} mode, weights {p.weights}"
        for p, n in passes.items()
    ]


def about(seconds: float) -> str:
    """A time in words."""
    for limit, size, unit in ((0.1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "hours")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"

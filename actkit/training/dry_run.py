"""A dry run: one step on made-up images, every forward and backward pass counted; and an estimate of the time. No pixel is read."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.datasets import Data, Split, random_batch
from actkit.evaluation.examination import examine
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.training.loop import update
from actkit.training.run import Run, assert_last_batch


@dataclass(frozen=True)
class Pass:
    """One way that a model is used. A unit is a forward pass; an input gradient costs 1 more, a full backward pass 2 more.

    Args:
        mode: of BatchNorm and dropout, 'train' or 'eval'.
        weights: 'live' or 'frozen'.
        direction: 'forward' or 'backward'.
    """

    role: str
    mode: str
    weights: str
    direction: str

    @property
    def units(self) -> int:
        return 2 if self.direction == "backward" and self.weights == "live" else 1


@dataclass(frozen=True)
class ExaminationCost:
    """What an evaluation costs: the passes that one example takes through every probe, at most, and the units of all examples."""

    passes: Counter[Pass]
    units: int


@dataclass(frozen=True)
class DryRun:
    """What a run would do, counted.

    Args:
        passes: of one training step, on one batch.
    """

    folder: Path
    device: torch.device
    run: Run
    data: Data
    roles: Mapping[str, Role]
    passes: Counter[Pass]
    evaluation: ExaminationCost

    @property
    def units(self) -> int:
        """The cost of a training step in forward passes of one batch."""
        return units_of(self.passes)

    @property
    def batches(self) -> int:
        """Of the whole training."""
        batches = self.run.epochs * -(-self.data.sizes["train"] // self.run.batch_size)
        return min(batches, self.run.steps or batches)

    def examination(self, probes: Sequence[Spec], *, headline: bool) -> ExaminationCost:
        """What other probes would cost, on the headline model or on all."""
        names = list(self.roles)[:1] if headline else list(self.roles)
        return examination_of([spec.build() for spec in probes], self.data, names)


@dataclass(frozen=True)
class Times:
    """Estimates, in seconds, from a few images, scaled up by units.

    Args:
        unit: a forward pass of one image.
    """

    step: float
    unit: float
    evaluation: float

    def of(self, examination: ExaminationCost) -> float:
        return self.unit * examination.units


def units_of(passes: Mapping[Pass, int]) -> int:
    return sum(p.units * n for p, n in passes.items())


# -- counting ------------------------------------------------------------------------------------------------------------


def count(recipe: Recipe, *, folder: Path, device: torch.device) -> DryRun:
    """Count one training step on made-up images, and what the evaluation does with one. `folder` is where the run would be."""
    run: Run = recipe.spec.build()
    data: Data = run.data()
    roles = run.make_roles(data, device)
    assert_last_batch(run, data, roles)
    with counting(roles) as passes:
        _step(run, data, roles, min(run.batch_size, 2), device)
    names = [name for name, role in roles.items() if role.classifies]
    return DryRun(folder, device, run, data, roles, passes, examination_of(run.evaluation, data, names))


def examination_of(probes: Sequence[Any], data: Data, roles: Sequence[str]) -> ExaminationCost:
    """Count what built probes do with models of these names, by a stand-in for the models."""
    every, units = Counter[Pass](), 0
    for probe in probes:
        passes = _passes_of_an_example(probe.spec, data.name, data.shape, data.classes, tuple(data.sizes), tuple(roles))
        every.update(passes)
        limit, size = probe.spec.get("limit"), data.sizes.get(probe.spec.get("split", "test"), 0)
        units += units_of(passes) * min(limit or size, size)
    return ExaminationCost(every, units)


@functools.cache
def _passes_of_an_example(
    probe: Spec,
    name: str,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    splits: tuple[str, ...],
    roles: tuple[str, ...],
) -> Mapping[Pass, int]:
    """Counted once for all trainings of a study that are examined alike: an attack of 1,000 steps takes a second, however small the model."""

    def read(split: str) -> Split:
        x, y = random_batch(data, 1)
        # Of the first class, which a probe of some classes looks at too.
        y.zero_()
        return Split(x, y)

    data = Data(name, shape, classes, dict.fromkeys(splits, 1), read)
    stand_ins = {role: Role(role, _Unbreakable(data)) for role in roles}
    with counting(stand_ins) as passes:
        examine([probe.build()], stand_ins, data)
    return passes


class _Unbreakable(nn.Module):
    """Stands in for a model while an examination is counted: right whatever the input, so nothing is dropped; and quick."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        self.read = nn.Linear(1, data.num_classes)
        self.label = int(random_batch(data, 1)[1])

    def forward(self, x: Tensor) -> Tensor:
        small = self.read(x.flatten(1).mean(1, keepdim=True)).tanh()
        return small + 10 * nn.functional.one_hot(torch.full((len(x),), self.label), small.shape[1])


@contextmanager
def counting(roles: Mapping[str, Role]) -> Iterator[Counter[Pass]]:
    """Count the passes of every model, by hooks on it and on the frozen views made of it meanwhile."""
    passes: Counter[Pass] = Counter()
    gradients = _Gradients()
    with ExitStack() as stack:
        for name, role in roles.items():
            # A view that is made from now on carries the hook with it.
            role.forget_views()
            stack.callback(role.forget_views)
            hook = role.model.register_forward_hook(_counter(name, passes, gradients))
            stack.callback(hook.remove)
        stack.enter_context(gradients)
        yield passes


class _Gradients(TorchFunctionMode):
    """Sees each call of `torch.autograd.grad`, wherever it is called from, and whether it asks for the gradient of a weight."""

    # The backward pass under way.
    input_only = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not torch.autograd.grad:
            return function(*args, **(kwargs or {}))
        inputs = args[1]
        given = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        self.input_only = not any(isinstance(t, nn.Parameter) for t in given)
        try:
            return function(*args, **(kwargs or {}))
        finally:
            self.input_only = False


def _counter(name: str, passes: Counter[Pass], gradients: _Gradients) -> Callable[[nn.Module, Any, Tensor], None]:
    """A forward hook that counts the pass, and the backward pass through what it gives."""

    def forward(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        live = any(p.requires_grad for p in module.parameters())
        mode = "train" if module.training else "eval"
        passes[Pass(name, mode, "live" if live else "frozen", "forward")] += 1

        def backward(gradient: Tensor) -> None:
            weights = "live" if live and not gradients.input_only else "frozen"
            passes[Pass(name, mode, weights, "backward")] += 1

        if logits.requires_grad:
            logits.register_hook(backward)

    return forward


# -- timing --------------------------------------------------------------------------------------------------------------


def timed(counted: DryRun) -> Times:
    """Time training steps for about a second, after the one that was counted, which has warmed up."""
    run, data, roles, device = counted.run, counted.data, counted.roles, counted.device
    size = min(run.batch_size, 2)
    seconds = _step(run, data, roles, size, device)
    # Small enough to time more of them, or whole batches.
    if seconds < 1:
        size = run.batch_size if seconds < 0.1 else min(run.batch_size, 8)
        _step(run, data, roles, size, device)
        seconds = _step(run, data, roles, size, device)
    an_image = seconds / size
    unit = an_image / counted.units
    return Times(an_image * run.batch_size, unit, unit * counted.evaluation.units)


def _step(run: Run, data: Data, roles: Mapping[str, Role], size: int, device: torch.device) -> float:
    """A training step on made-up images, and the seconds that it took."""
    x, y = (t.to(device) for t in random_batch(data, size))
    noise = Noise(torch.arange(size, device=device), 0)
    began = _now(device)
    list(update(run.objective, x, y, dict(roles), noise=noise))
    return _now(device) - began


def _now(device: torch.device) -> float:
    """The clock, in seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads, as one of several processes would."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(number, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- what a person reads -------------------------------------------------------------------------------------------------


def describe(counted: DryRun, times: Times) -> list[str]:
    """The dry run in lines."""
    run, data = counted.run, counted.data
    out = [
        f"objective    {run.objective.spec!r}",
        f"data         {data.name}: {data.counted} of {'x'.join(map(str, data.shape))}, {data.num_classes} classes",
        *(f"{'':<12} {note}" for note in data.notes),
    ]
    for name, role in counted.roles.items():
        parts, parameters = run.roles[name], sum(p.numel() for p in role.model.parameters())
        trained = f"{parts.optimizer.spec!r}" if parts.optimizer else "not trained"
        out.append(f"{name:<12} {parts.backbone.spec!r}: {parameters:,} parameters; {trained}")
        out += [f"{'':<12} {note}" for note in role.notes]
        if parts.schedule:
            out.append(f"{'':<12} {parts.schedule.spec!r} every {parts.schedule_every}")
    out += [
        f"training     {run.epochs} epochs, {counted.batches:,} batches of {run.batch_size}, {run.precision}, seed {run.seed}",
        f"a step       {counted.units} units (1 = a forward pass of one batch)",
    ]
    out += _passes(counted.passes)
    for probe in run.evaluation:
        label = f"{probe.spec.label}: " if probe.spec.label else ""
        out.append(f"evaluation   {label}{probe.spec!r}")
    example = units_of(counted.evaluation.passes)
    out.append(f"an example   {example} units at most, all probes and models together")
    out += _passes(counted.evaluation.passes)
    total = times.step * counted.batches + times.evaluation
    out += [
        f"time         about {duration(total)} on {counted.device}: {duration(times.step)} a step, {duration(times.evaluation)} for the evaluation, the monitor not counted",
        f"folder       {counted.folder}",
    ]
    return out


def _passes(passes: Counter[Pass]) -> list[str]:
    width = max((len(p.role) for p in passes), default=0)
    return [
        f"{'':<12} {p.role:<{width}}  {n:>4} x {p.direction:<8} in {p.mode:<5} mode, weights {p.weights}"
        for p, n in passes.items()
    ]


def duration(seconds: float) -> str:
    """A time in words."""
    for limit, size, unit in ((0.1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "hours")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"

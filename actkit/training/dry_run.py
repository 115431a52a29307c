"""A dry run: one step on made-up images, every forward and backward pass counted; and an estimate of the time. No pixel is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from actkit.config.recipe import Recipe
from actkit.datasets import Data, random_batch
from actkit.display import duration
from actkit.evaluation.cost import ExaminationCost, Pass, counting, examination_of, now, units_of
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.training.loop import update
from actkit.training.run import Run, assert_last_batch, assert_takes_labels, batch_note


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
        return batches_of(self.run, self.data)


@dataclass(frozen=True)
class Timed:
    """What an estimate of time rests on: training steps that were timed, in seconds, and how busy the machine was with other things.

    Args:
        images: of each of these steps.
        load: how many processes wanted a core in the last minute, this one among them; None where the system does not say.
    """

    steps: tuple[float, ...]
    images: int
    load: float | None
    cores: int

    @property
    def fastest(self) -> float:
        """What interrupts a step makes it longer and nothing makes it shorter, so this is the work itself."""
        return min(self.steps)

    def __str__(self) -> str:
        many = f"the fastest of {len(self.steps)} steps" if len(self.steps) > 1 else "a single step"
        said = f"{many} of {self.images} image{'s' * (self.images > 1)}: {duration(self.fastest)}"
        if len(self.steps) > 1:
            said += f", the slowest {duration(max(self.steps))}"
        if self.load is not None and self.load > self.cores + 1:
            said += (
                f"; this machine is busy (a load of {self.load:.1f} on {self.cores} cores): alone it would be faster"
            )
        return said


@dataclass(frozen=True)
class Times:
    """Estimates, in seconds, from a few images, scaled up by units.

    Args:
        unit: a forward pass of one image.
        rests_on: the steps that were timed.
    """

    step: float
    evaluation: float
    rests_on: Timed


# -- counting ------------------------------------------------------------------------------------------------------------


def count(recipe: Recipe, *, folder: Path, device: torch.device) -> DryRun:
    """Count one training step on made-up images, and what the evaluation does with one. `folder` is where the run would be."""
    run: Run = recipe.spec.build()
    data: Data = run.data()
    assert_takes_labels(run, data)
    roles = run.make_roles(data, device)
    assert_last_batch(run, data, roles)
    passes = passes_of_a_step(run, data, roles, device)
    names = [name for name, role in roles.items() if role.classifies]
    return DryRun(folder, device, run, data, roles, passes, examination_of(run.evaluation, data, names))


def passes_of_a_step(run: Run, data: Data, roles: Mapping[str, Role], device: torch.device) -> Counter[Pass]:
    """Those of one training step, on one batch."""
    size = _few(run)
    with counting(roles) as counted:
        step(run, data, roles, size, device)
    # Each part of a batch goes through the same passes; together they are as many as the batch whole.
    return Counter({one: number // min(run.accumulate, size) for one, number in counted.items()})


def batches_of(run: Run, data: Data) -> int:
    """How many there are in the whole training."""
    every = run.epochs * -(-data.sizes["train"] // run.batch_size)
    return every if run.steps is None else min(every, run.steps)


# -- timing --------------------------------------------------------------------------------------------------------------


# How often a step is timed: until so many seconds have passed, at least twice unless once took longer, and no more than so often.
_TIMED_SECONDS, _TIMED_STEPS = 1.0, 10


def timed(counted: DryRun) -> Times:
    """Time training steps for a second or two, after the one that was counted, which has warmed up."""
    run, device = counted.run, counted.device
    # As many images as a batch of the training holds.
    full = min(run.batch_size, counted.data.sizes["train"])
    size = min(full, _few(run))
    seen = _timed_steps(counted, size)
    # Small enough to time whole batches, or more of one.
    if min(seen) < 1:
        size = full if min(seen) < 0.1 else min(full, max(8, size))
        step(run, counted.data, counted.roles, size, device)
        seen = _timed_steps(counted, size)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rests_on = Timed(tuple(seen), size, load, os.cpu_count() or 1)
    an_image = rests_on.fastest / size
    unit = an_image / counted.units
    return Times(an_image * full, unit * counted.evaluation.units, rests_on)


def _timed_steps(counted: DryRun, size: int) -> list[float]:
    """The seconds of each of a few training steps on so many made-up images."""
    seen: list[float] = []
    while len(seen) < _TIMED_STEPS and (sum(seen) < _TIMED_SECONDS or (len(seen) < 2 and sum(seen) < 5)):
        seen.append(step(counted.run, counted.data, counted.roles, size, counted.device))
    return seen


def _few(run: Run) -> int:
    """How many images a step is tried on: two in each part."""
    return min(run.batch_size, 2 * run.accumulate)


def step(run: Run, data: Data, roles: Mapping[str, Role], size: int, device: torch.device) -> float:
    """A training step on made-up images, and the seconds that it took."""
    x, y = (t.to(device) for t in random_batch(data, size))
    noise = Noise(torch.arange(size, device=device), 0)
    began = now(device)
    list(update(run.objective, x, y, dict(roles), noise=noise, accumulate=run.accumulate))
    return now(device) - began


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
        *([f"{'':<12} {note}"] if (note := batch_note(run, data)) else []),
        f"a step       {counted.units} units (1 = a forward pass of one batch){_in_parts(run)}",
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
        f"{'':<12} from {times.rests_on}",
        f"folder       {counted.folder}",
    ]
    return out


def _in_parts(run: Run) -> str:
    """How a batch is cut, in words; each part needs the memory of a batch of its size."""
    at_once = -(-run.batch_size // run.accumulate)
    return (
        f", in {run.accumulate} parts one after the other, {at_once} images at once in memory"
        if run.accumulate > 1
        else ""
    )


def _passes(passes: Counter[Pass]) -> list[str]:
    width = max((len(p.role) for p in passes), default=0)
    return [
        f"{'':<12} {p.role:<{width}}  {n:>4} x {p.direction:<8} in {p.mode:<5} mode, weights {p.weights}"
        for p, n in passes.items()
    ]

"""A forecast: how long a run still takes, its looks and its examination included."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from actkit.datasets import Data, random_batch
from actkit.networks.roles import Role, examined
from actkit.training.dry_run import examination_of
from actkit.training.state import Training

# After so much of the training its speed is known well enough to be said.
_SECONDS, _BATCHES = 3.0, 20


@dataclass(frozen=True)
class Left:
    """What is left of a run, in seconds; an examination takes so long at most, since what is broken is attacked no more."""

    training: float
    looks: float
    examination: float

    @property
    def seconds(self) -> float:
        return self.training + self.looks + self.examination


class Forecast:
    """Told of every batch and of every look; asked how much is left.

    A batch takes what the batches of this process took so far, the first aside, which warms up. A look and the examination take what their passes take,
    counted on a stand-in (`training.dry_run`): timed on a few made-up images, and by the looks themselves as soon as there are some.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self._began, self._first = 0.0, 0
        self._looking, self._looks = 0.0, 0
        # Units of a look and of the examination, and the seconds of a unit; counted when they are first asked for.
        self._units: tuple[int, int] | None = None
        self._unit = 0.0

    def batch(self) -> None:
        if not self._began:
            self._began, self._first = time.monotonic(), self.training.position.step

    def looked(self, seconds: float) -> None:
        self._looking, self._looks = self._looking + seconds, self._looks + 1

    @property
    def ready(self) -> bool:
        """Whether enough of the training is done to say how long it takes."""
        done = self._done()
        return done >= _BATCHES or (done > 0 and time.monotonic() - self._began >= _SECONDS)

    def _done(self) -> int:
        """Batches that were timed."""
        return self.training.position.step - self._first if self._began else 0

    def left(self) -> Left | None:
        """What is left; None before a second batch has ended."""
        if not self._done():
            return None
        run, position = self.training.run, self.training.position
        batches = -(-self.training.data.sizes["train"] // run.batch_size)
        total = min(run.epochs * batches, run.steps or run.epochs * batches)
        look, examination = self._counted()
        a_batch = (time.monotonic() - self._began - self._looking) / self._done()
        unit = self._looking / (self._looks * look) if self._looks and look else self._unit
        epochs = range(position.epoch + 1, total // batches + 1)
        looks = sum(epoch % run.monitor_every == 0 or epoch == run.epochs for epoch in epochs) if run.monitor else 0
        return Left(a_batch * (total - position.step), looks * look * unit, examination * unit)

    def _counted(self) -> tuple[int, int]:
        if self._units is None:
            run, data, began = self.training.run, self.training.data, time.monotonic()
            names = list(examined(self.training.roles))
            # Its stand-ins draw their weights: not from the generator that a plugin's objective may draw from.
            with torch.random.fork_rng(devices=[]):
                look, examination = (
                    examination_of(probes, data, names).units for probes in (run.monitor, run.evaluation)
                )
                self._unit = _seconds_of_a_unit(self.training.roles, data)
            # Where a training chooses its best checkpoint, the last one is examined beside it.
            self._units = look, examination * (2 if run.best else 1)
            # Counting is no part of the training.
            self._began += time.monotonic() - began
        return self._units


def _seconds_of_a_unit(roles: Mapping[str, Role], data: Data) -> float:
    """A forward pass of one image in seconds, the mean over the models: by input gradients of made-up images, of more while they take no time."""
    found = []
    for role in roles.values():
        size, seconds = 2, 0.0
        with role.frozen("eval", precision="fp32") as view:
            while True:
                x = random_batch(data, size)[0].to(role.device).requires_grad_()
                began = time.perf_counter()
                (gradient,) = torch.autograd.grad(view(x).sum(), x)
                # Reading a value waits for the device.
                float(gradient.sum())
                seconds = time.perf_counter() - began
                if seconds > 0.1 or size > 100:
                    break
                size *= 4
        # A forward pass and an input gradient.
        found.append(seconds / (2 * size))
    return sum(found) / max(len(found), 1)

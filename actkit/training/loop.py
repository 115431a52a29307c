"""The loop: it knows roles and losses, not algorithms.

For each batch it runs the objective's generator; for each `yield {role: losses}` it back-propagates all of them at the same
parameters, steps just those roles, and resumes the generator.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from actkit.config.spec import BoundObjective
from actkit.datasets import Labelled
from actkit.errors import ActkitError, InputError
from actkit.networks.roles import Role
from actkit.noise import Noise, seed_for


@dataclass
class Position:
    """Where a training stands: everything that decides what comes next, besides the models and their optimizers."""

    # Finished epochs, finished batches of the epoch under way, and finished batches in all.
    epoch: int = 0
    batch: int = 0
    step: int = 0
    # Of the losses of the epoch under way, by role: their sum, kept on the device, and how many they are.
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class Record:
    """What `fit` yields after every batch; reading `losses` waits for the device, nothing else does."""

    position: Position
    batches: int
    images: int
    seconds: float
    epoch_ended: bool
    sums: dict[str, Tensor]
    counts: dict[str, int]
    lr: dict[str, float]

    @property
    def losses(self) -> dict[str, float]:
        """The mean loss of each role over the epoch so far."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


def update(
    objective: BoundObjective,
    x: Tensor,
    y: Tensor,
    roles: dict[str, Role],
    *,
    noise: Noise | None = None,
    progress: float = 0.0,
) -> Iterator[dict[str, Tensor]]:
    """One batch: run the objective's generator, an update for each yield. Gives each update's losses by role, detached, shape (B,)."""
    generator = objective(x, y, *(roles[name] for name in objective.roles), noise=noise, progress=progress)
    if not isinstance(generator, Generator):
        raise InputError(
            f"{objective.spec.selector} must be a generator, it returned {type(generator).__name__}",
            help="yield {role: losses} instead of returning it",
        )
    updates = 0
    try:
        for losses in generator:
            _assert_losses(losses, objective, len(x))
            torch.autograd.backward([loss.mean() for loss in losses.values()])
            for role in losses:
                role.step()
            for role in roles.values():
                role.zero_grad()
            updates += 1
            yield {role.name: loss.detach() for role, loss in losses.items()}
        if not updates:
            raise InputError(f"{objective.spec.selector} yielded nothing, so it would train nothing")
    # So that what an objective changes (AWP's weights) is restored, also after an error.
    finally:
        generator.close()


def _assert_losses(losses: Any, objective: BoundObjective, size: int) -> None:
    if not isinstance(losses, dict) or not losses or not all(isinstance(role, Role) for role in losses):
        raise InputError(f"{objective.spec.selector} must yield {{role: losses}}, got {type(losses).__name__}")
    for role, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.shape != (size,):
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(
                f"{objective.spec.selector} must yield one loss for each of the {size} examples to {role.name!r}, "
                f"got {got}",
                help="leave the mean to the loop",
            )


def fit(
    objective: BoundObjective,
    roles: dict[str, Role],
    train: Labelled,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    steps: int | None = None,
    position: Position | None = None,
) -> Iterator[Record]:
    """Train; yields a `Record` after every batch, between batches: a caller may save there, look, or stop.

    Continues from `position`, in place. Ends after `epochs`, or after `steps` batches in all. Everything random is a function of
    (seed, epoch, example), so a training that was stopped and goes on gives the same weights as one that was not.
    """
    at = position if position is not None else Position()
    device = next(iter(roles.values())).device
    batches = -(-len(train) // batch_size)
    total = min(epochs * batches, steps if steps is not None else epochs * batches)
    while at.step < total:
        groups = train.order(seed, at.epoch).split(batch_size)[at.batch :][: total - at.step]
        ready = train.batches(groups, device=device, key=(seed, at.epoch))
        began = time.perf_counter()
        for places, (x, y) in zip(groups, ready, strict=True):
            noise = Noise(train.names(places).to(device), seed, at.epoch)
            with _private_generator(device, seed, at.step):
                for losses in update(objective, x, y, roles, noise=noise.fork(1), progress=at.step / total):
                    for name, loss in losses.items():
                        at.sums[name] = at.sums.get(name, 0) + loss.sum()
                        at.counts[name] = at.counts.get(name, 0) + len(loss)
            at.batch += 1
            at.step += 1
            ended = at.batch == batches
            lr = {name: role.lr for name, role in roles.items() if role.lr is not None}
            sums, counts = at.sums, at.counts
            for role in roles.values():
                role.end("batch", epochs=at.epoch)
                if ended:
                    role.end("epoch", epochs=at.epoch + 1)
            if ended:
                at.epoch, at.batch, at.sums, at.counts = at.epoch + 1, 0, {}, {}
            yield Record(at, batches, len(places), time.perf_counter() - began, ended, sums, counts, lr)
            began = time.perf_counter()


@contextlib.contextmanager
def _private_generator(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Dropout and a plugin's own draws come from torch's global generator: give each batch a seed of its own, then put it back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_for(seed, step))
        yield


def assert_finite(record: Record, roles: dict[str, Role]) -> None:
    """Raise `ActkitError` when a loss of the epoch or a weight is no longer finite: such a state must not be saved."""
    bad = [name for name, loss in record.losses.items() if not torch.isfinite(torch.tensor(loss))]
    bad = bad or [name for name, role in roles.items() if not all(p.isfinite().all() for p in role.model.parameters())]
    if bad:
        raise ActkitError(
            f"training diverged: the loss or weights of {' and '.join(bad)} are not finite after {record.position.step} steps",
            help="lower the learning rate, or raise the precision; the last checkpoint is as it was",
        )

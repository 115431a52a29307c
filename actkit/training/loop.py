"""The loop: it knows roles and losses, not algorithms.

For each batch it runs the objective's generator; for each `yield {role: losses}` it back-propagates all of them at the same
parameters, steps just those roles, and resumes the generator. A batch that is too large for the memory is cut into parts, whose gradients add up to
one update.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from actkit.config import registry
from actkit.config.spec import BoundObjective
from actkit.datasets import Labelled
from actkit.datasets.checks import assert_soft_labels
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


# What an objective yields for a role: a loss for each example, or several vectors of losses, whose means are added.
Losses = Tensor | list[Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True)
class _Batch:
    """Examples as an objective is handed them, or a part of them; `size` is the whole batch's."""

    x: Tensor
    y: Tensor
    ids: Tensor
    noise: Noise | None
    progress: float
    size: int

    def parts(self, number: int) -> Iterator[_Batch]:
        """So many parts, as equal as can be; no more than there are examples."""
        for rows in torch.arange(len(self.x), device=self.x.device).tensor_split(min(number, len(self.x))):
            noise = None if self.noise is None else self.noise[rows]
            yield _Batch(self.x[rows], self.y[rows], self.ids[rows], noise, self.progress, self.size)

    def updates(
        self, objective: BoundObjective, roles: Mapping[str, Role]
    ) -> Generator[dict[Role, Losses], None, None]:
        """The objective's generator. Raises `InputError` where it is none."""
        models = (roles[name] for name in objective.roles)
        made = objective(
            self.x,
            self.y,
            *models,
            noise=self.noise,
            progress=self.progress,
            ids=self.ids,
            batch_size=self.size,
        )
        if not isinstance(made, Generator):
            raise InputError(
                f"{objective.spec.selector} must be a generator, it returned {type(made).__name__}",
                help="yield {role: losses} instead of returning it",
            )
        return made


def update(
    objective: BoundObjective,
    x: Tensor,
    y: Tensor,
    roles: dict[str, Role],
    *,
    noise: Noise | None = None,
    progress: float = 0.0,
    ids: Tensor | None = None,
    accumulate: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """One batch: run the objective's generator, an update for each yield. Gives each update's losses by role, detached, shape (B,).

    Of a role that is given several vectors of losses, each example's loss is the sum of their means.

    Args:
        objective: as a Spec builds it.
        x, y: images (B, C, H, W) in [0,1] and labels (B,) int64 (or shares of classes), on the roles' device.
        roles: by name, all that the objective works with.
        noise: of these examples, handed to an objective that asks for it.
        progress: of the training, 0 to 1, likewise.
        ids: the examples' numbers, int64 of shape (B,); by default 0 to B - 1.
        accumulate: cut the batch into so many parts, run the objective on one after the other, add their gradients, each weighted by its share of
            the batch, and update once. BatchNorm sees the parts: its statistics in training are those of a part, and it counts each.

    Raises `InputError` where the objective yields no losses, and where it updates more than once a batch that is accumulated.
    """
    ids = torch.arange(len(x), device=x.device) if ids is None else ids
    batch = _Batch(x, y, ids, noise, progress, len(x))
    if accumulate > 1:
        yield _accumulated(objective, batch, roles, accumulate)
        return
    updates = 0
    # Closed also after an error, so that what an objective changes (AWP's weights) is restored.
    with contextlib.closing(batch.updates(objective, roles)) as generator:
        for losses in generator:
            found = _back_propagate(losses, objective, batch)
            _step(losses, roles)
            updates += 1
            yield found
        if not updates:
            raise _nothing_of(objective)


def _accumulated(
    objective: BoundObjective, batch: _Batch, roles: dict[str, Role], accumulate: int
) -> dict[str, Tensor]:
    """One update from the gradients of a batch's parts. Each part's generator ends before the next begins: weights that it moved are back."""
    found: list[dict[str, Tensor]] = []
    trained: dict[Role, None] = {}
    for part in batch.parts(accumulate):
        with contextlib.closing(part.updates(objective, roles)) as generator:
            losses = next(generator, None)
            if losses is None:
                raise _nothing_of(objective)
            found.append(_back_propagate(losses, objective, part))
            trained |= dict.fromkeys(losses)
            if next(generator, None) is not None:
                raise InputError(
                    f"{objective.spec.selector} updates more than once a batch, so its gradients cannot be accumulated (run.accumulate = {accumulate})",
                    help="set run.accumulate = 1 and a smaller run.batch_size",
                )
    _step(trained, roles)
    return {role.name: torch.cat([one[role.name] for one in found if role.name in one]) for role in trained}


def _nothing_of(objective: BoundObjective) -> InputError:
    return InputError(f"{objective.spec.selector} yielded nothing, so it would train nothing")


def _back_propagate(losses: dict[Role, Losses], objective: BoundObjective, batch: _Batch) -> dict[str, Tensor]:
    """Add the gradients of all roles, at the same parameters. Gives what is kept of the losses: one an example."""
    size = len(batch.x)
    _assert_losses(losses, objective, size)
    means = [_mean(loss) for loss in losses.values()]
    # Multiplied by 1, the gradient is the same, and one number more is computed.
    torch.autograd.backward(means if size == batch.size else [mean * (size / batch.size) for mean in means])
    return {
        role.name: loss.detach() if isinstance(loss, Tensor) else mean.detach().expand(size)
        for (role, loss), mean in zip(losses.items(), means, strict=True)
    }


def _mean(loss: Losses) -> Tensor:
    return loss.mean() if isinstance(loss, Tensor) else torch.stack([vector.mean() for vector in loss]).sum()


def _step(trained: Mapping[Role, object], roles: Mapping[str, Role]) -> None:
    for role in trained:
        role.step()
    for role in roles.values():
        role.zero_grad()


def _assert_losses(losses: Any, objective: BoundObjective, size: int) -> None:
    if not isinstance(losses, dict) or not losses or not all(isinstance(role, Role) for role in losses):
        raise InputError(f"{objective.spec.selector} must yield {{role: losses}}, got {type(losses).__name__}")
    for role, loss in losses.items():
        if isinstance(loss, (list, tuple)):
            wrong = [part for part in loss if not isinstance(part, Tensor) or part.dim() != 1 or not len(part)]
            if wrong or not loss:
                got = _described(wrong[0]) if wrong else "nothing"
                raise InputError(
                    f"{objective.spec.selector} must yield vectors of losses in its {type(loss).__name__} to {role.name!r}, got {got}",
                    help="each is of shape (n,) with n of at least 1; leave the means to the loop, which adds them",
                )
        elif not isinstance(loss, Tensor) or loss.shape != (size,):
            raise InputError(
                f"{objective.spec.selector} must yield one loss for each of the {size} examples to {role.name!r}, "
                f"got {_described(loss)}",
                help="leave the mean to the loop; losses of several batches are a list of vectors",
            )


def _described(loss: Any) -> str:
    return f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__


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
    accumulate: int = 1,
) -> Iterator[Record]:
    """Train; yields a `Record` after every batch, between batches: a caller may save there, look, or stop.

    Continues from `position`, in place. Ends after `epochs`, or after `steps` batches in all. Everything random is a function of
    (seed, epoch, example), so a training that was stopped and goes on gives the same weights as one that was not.

    Args:
        objective, roles: as in `update`.
        train: the training split.
        epochs, batch_size: the length of the training; the last batch of an epoch may be smaller.
        accumulate: in how many parts a batch goes through the objective; see `update`.
        position: where it stands: `epoch`, `batch` and `step` that are finished.

    Raises `InputError` for labels that are shares of classes where the objective takes none, or where the first batch's are no shares.
    """
    at = position if position is not None else Position()
    device = next(iter(roles.values())).device
    batches = -(-len(train) // batch_size)
    total = min(epochs * batches, steps if steps is not None else epochs * batches)
    checked = False
    while at.step < total:
        groups = train.order(seed, at.epoch).split(batch_size)[at.batch :][: total - at.step]
        ready = train.batches(groups, device=device, key=(seed, at.epoch))
        began = time.perf_counter()
        for places, (x, y) in zip(groups, ready, strict=True):
            if not checked:
                _assert_labels(objective, y)
                checked = True
            ids = train.names(places).to(device)
            noise, progress = Noise(ids, seed, at.epoch).fork(1), at.step / total
            with _private_generator(device, seed, at.step):
                for losses in update(
                    objective, x, y, roles, noise=noise, progress=progress, ids=ids, accumulate=accumulate
                ):
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


def _assert_labels(objective: BoundObjective, y: Tensor) -> None:
    """Of a training's first batch: labels of shape (B,), or shares of classes where the objective takes them."""
    if y.dim() > 1:
        assert_takes_soft_labels(objective, "the training images")
        assert_soft_labels(y)


def assert_takes_soft_labels(objective: BoundObjective, whose: str) -> None:
    """Raise `InputError` for an objective that takes one class an image alone."""
    if not objective.spec.takes_soft_labels:
        able = ", ".join(entry.name for entry in registry.entries("objective") if entry.soft_labels)
        raise InputError(
            f"{objective.spec.selector} takes one class an image, and the labels of {whose} are shares of classes",
            help=f"these take them: {able}; another says so by @register('objective', soft_labels=True)",
        )


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

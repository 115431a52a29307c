"""`run`, the root of every recipe: what is trained and how it is examined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

from actkit.config.registry import Dataset, Objective, Probe, register
from actkit.datasets import Data
from actkit.errors import InputError, nearest
from actkit.networks import model_files
from actkit.networks.first_weights import start_from
from actkit.networks.roles import Role, RoleConfig
from actkit.networks.trial import assert_takes
from actkit.noise import seed_for
from actkit.probes import labels
from actkit.training.loop import assert_takes_soft_labels


@register("", "run")
@dataclass(frozen=True, kw_only=True)
class Run:
    """A training and its examination; the root of every recipe.

    Args:
        objective, data: what is trained, on what.
        epochs, batch_size: the length of the training; `steps` ends it earlier, after so many batches in all.
        accumulate: cut each batch into so many parts, which go through the objective one after the other, for memory; their gradients make one update.
            BatchNorm sees the parts: its statistics in training are those of a part.
        evaluation: the probes at the end; `monitor`: those after every `monitor_every` epochs, to look at; only `best` and `stop_on_drop` act on them.
        precision: of the training's forward passes. Probes always run in fp32.
        keep: how many checkpoints to keep; one is written every `save_every` epochs, and at the end.
        best: the label of a probe in `monitor` that looks at the split 'val'. Where the headline model's number was highest, that checkpoint is kept,
            examined at the end, and meant by `--ckpt RUN`; None, as in the papers, for the last epoch.
        stop_on_drop: end the training when the headline model's monitored accuracy under attack falls by more than this (a fraction) from one look
            to the next: catastrophic overfitting. Examined, and meant by `--ckpt RUN`, are then the models of the look before (unless `best` chooses),
            and beside them the last. Without it, a fall of more than 0.15 while the training loss falls is a warning.
        seed: of the initial weights, the order, augmentation and every random start.
        roles: what each role is made of; in a recipe, `role.backbone = ...` and `natural/role.backbone = ...`.
    """

    objective: Objective
    data: Dataset
    epochs: int
    batch_size: int
    steps: int | None = None
    accumulate: int = 1
    evaluation: list[Probe]
    monitor: list[Probe] = field(default_factory=list)
    monitor_every: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    keep: int = 2
    save_every: int = 1
    best: str | None = None
    stop_on_drop: float | None = None
    seed: int = 0
    roles: dict[str, RoleConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "monitor_every", "keep", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"run.{name} must be at least 1, got {getattr(self, name)}")
        if self.accumulate > self.batch_size:
            raise InputError(
                f"run.accumulate = {self.accumulate} cuts a batch into more parts than its {self.batch_size} images"
            )
        if self.steps is not None and self.steps < 1:
            raise InputError(f"run.steps must be at least 1, got {self.steps}")
        for name in ("evaluation", "monitor"):
            try:
                labels(getattr(self, name))
            except InputError as error:
                raise InputError(f"run.{name}: {error.message}", help=error.help) from None
        for name, config in self.roles.items():
            if config.average is not None and config.average_from >= self.epochs:
                raise InputError(
                    f"{name}/role.average_from = {config.average_from}: the training has {self.epochs} epochs, so nothing would be averaged",
                    help="lower it, or leave role.average out",
                )
        if self.best is not None:
            self._assert_choosable(self.best)
        if self.stop_on_drop is not None and not any(probe.spec.entry.attacks for probe in self.monitor):
            raise InputError(
                "run.stop_on_drop watches accuracy under attack, and no probe in run.monitor attacks",
                help="add one, such as probe.robust_accuracy, or set run.stop_on_drop = None",
            )

    def _assert_choosable(self, label: str) -> None:
        probes = {probe.spec.title: probe.spec for probe in self.monitor}
        if label not in probes:
            raise InputError(f"run.best = {label!r} is no probe in run.monitor", help=nearest(label, probes))
        if (split := probes[label].get("split") or "test") != "val":
            raise InputError(
                f"run.best = {label!r} would choose a model by the split {split!r}; only 'val' may choose",
                help=f"hold images out with run.data = @dataset.holdout(), and set monitor/probe.{probes[label].name}.split = 'val'",
            )

    def make_roles(self, data: Data, device: torch.device | str, *, first_weights: bool = True) -> dict[str, Role]:
        """The models of this run; their first weights come from `role.weights` where given, unless a checkpoint will bring others."""
        batches = -(-data.sizes["train"] // self.batch_size)
        length = {"epoch": self.epochs, "batch": self.epochs * batches}
        made = {}
        for name, config in self.roles.items():
            seed = seed_for(self.seed, *name.encode())
            made[name] = config.make(
                name,
                num_classes=data.num_classes,
                in_chans=data.shape[0],
                seed=seed,
                device=device,
                length=length,
                precision=self.precision,
                image_size=(data.shape[1], data.shape[2]),
            )
            role, trained = made[name], config.optimizer is not None
            assert_takes(role, config.backbone.spec, data.shape, data.num_classes, in_training=trained)
            if config.weights is not None and first_weights:
                weights = model_files.find(Path(config.weights))
                chosen = [p for p in weights if p.stem == name] or weights
                if len(chosen) > 1:
                    raise InputError(
                        f"{name}/role.weights could be any of {', '.join(p.name for p in chosen)}", where=config.weights
                    )
                role.notes += start_from(role, chosen[0], config.backbone, data.classes, config.classes)
        headline = self.objective.roles[0]
        if not made[headline].classifies:
            raise InputError(
                f"the headline model of {self.objective.spec.selector} is {headline!r}, and {self.roles[headline].backbone.spec!r} is no classifier",
                help="an objective names the model that is examined first: (x, y, robust, generator, ...)",
            )
        return made


class Batched(Protocol):
    """What a training's batches are."""

    @property
    def batch_size(self) -> int: ...

    @property
    def steps(self) -> int | None: ...

    @property
    def accumulate(self) -> int: ...


def assert_last_batch(run: Batched, data: Data, roles: Mapping[str, Role]) -> None:
    """Raise `InputError` where a batch, or a part of one, is one image that a network cannot train on: BatchNorm has nothing to compare it with."""
    size = data.sizes["train"]
    if not _meets_one_image(size, run.batch_size, run):
        return
    parts = f" in {run.accumulate} parts each" if run.accumulate > 1 else ""
    for name, role in roles.items():
        if not role.trained:
            continue
        try:
            with role.frozen("train") as view, torch.no_grad():
                view(torch.zeros(1, *data.shape, device=role.device))
        except ValueError as error:
            near = [n for n in _near(run.batch_size) if not _meets_one_image(size, n, run)]
            one = "come to a part of one image" if parts else "end in a batch of one"
            sizes = " or ".join(map(str, near[:2]))
            raise InputError(
                f"the {size:,} training images in batches of {run.batch_size}{parts} {one}, and {name} cannot train on a single image: {str(error).splitlines()[0]}",
                help=" or ".join(
                    [f"run.batch_size = {sizes}"] * bool(sizes) + ["a smaller run.accumulate"] * bool(parts)
                )
                or None,
            ) from error


def _meets_one_image(size: int, batch_size: int, run: Batched) -> bool:
    """Whether a batch of a training on so many images, or a part of one, is a single image."""
    batches = -(-size // batch_size)
    last = [size - (batches - 1) * batch_size] if run.steps is None or run.steps >= batches else []
    whole = [batch_size] if batches > 1 else []
    return any(images < 2 * run.accumulate for images in whole + last)


def assert_takes_labels(run: Run, data: Data) -> None:
    """Raise `InputError` where the training labels are shares of classes and the objective takes one class an image alone."""
    if data.soft_labels:
        assert_takes_soft_labels(run.objective, data.name)


def batch_note(run: Run, data: Data) -> str | None:
    """What is to be said of batches that the training images cannot fill; None where they can."""
    size = data.sizes["train"]
    if run.batch_size <= size:
        return None
    return f"run.batch_size is {run.batch_size:,} and there are {size:,} training images: every batch holds all of them, once an epoch"


def _near(batch_size: int) -> list[int]:
    """Other sizes of batches, the nearest first."""
    return [n for step in range(1, 9) for n in (batch_size - step, batch_size + step) if n > 1]

"""What an audit looks at, and what a check returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import Threat, norm_named
from actkit.config.registry import Model
from actkit.findings import Flag
from actkit.probes.protocols import (
    AttackRun,
    Examples,
    View,
    attack_runs,
    evaluate_any_iterate,
    evaluate_last_iterate,
    goal_for,
    perturb,
)
from actkit.probes.result import Progress


@dataclass(frozen=True)
class Settings:
    """Of the checks; `audit` says what each is.

    Args:
        tolerance: at least one and a half examples.
        share: the tolerance as it was given, whatever the number of examples.
    """

    starts: int
    queries: int
    targets: int
    steps: int
    tolerance: float
    share: float
    gap: float
    seed: int


@dataclass(frozen=True)
class Audited:
    """What every check looks at: a model's frozen view under an attack and its loss."""

    view: View
    examples: Examples
    attack: Any
    loss: str
    threat: Threat
    settings: Settings
    progress: Progress

    @property
    def largest_eps(self) -> float:
        """The eps whose ball holds the whole of [0,1] from anywhere in it, or as much of it as a ball of the norm can."""
        return float(norm_named(self.threat.norm).length(self._farthest()))

    @property
    def holds_every_image(self) -> bool:
        """Whether a ball of the norm can hold the whole of [0,1]; that of a patch never does."""
        return bool((self._farthest() == 1).all())

    def _farthest(self) -> Tensor:
        """How far a black image can be changed towards a white one, shape (1, C, H, W)."""
        shape = self.examples.data.shape
        black = torch.zeros(1, *shape, dtype=torch.float64)
        return norm_named(self.threat.norm).project(black + 1, black, float(math.prod(shape)))

    def first_run(self, attack: Any, name: str) -> AttackRun:
        """An attack from its first random start."""
        return AttackRun(attack, goal_for(self.loss), (self.settings.seed, 0), name)

    def last_iterate(self, attack: Any, name: str) -> Tensor:
        """Which examples hold at the last iterate of the first start, shape (n,)."""
        return evaluate_last_iterate(self.view, self.examples, [self.first_run(attack, name)], self.progress)[0]

    def any_iterate(
        self, attack: Any, name: str, clean: Tensor, *, loss: str | None = None, starts: int = 1, targets: int = 1
    ) -> list[Tensor]:
        """Which examples hold after each run, any iterate counting, shape (n,) each; of those that are `clean`, right unattacked."""
        runs = attack_runs(
            attack,
            loss=self.loss if loss is None else loss,
            starts=starts,
            targets=targets,
            seed=self.settings.seed,
            classes=self.examples.data.num_classes,
            name=f"{name}/",
        )
        return [held for _, held in evaluate_any_iterate(self.view, self.examples, runs, clean, self.progress)]


@dataclass(frozen=True)
class Finding:
    """What a check returns: flags, and the numbers that it measured."""

    flags: tuple[Flag, ...]
    numbers: dict[str, float] = field(default_factory=dict)


class Surrogate:
    """One model's adversarial examples, to be shown to the others: made once a batch, when they are first wanted."""

    def __init__(self, model: Model, examples: Examples, run: AttackRun) -> None:
        self.model, self.examples, self.run = model, examples, run
        # By the first id of a batch, on the CPU.
        self._x_adv: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        key = int(ids[0])
        if key not in self._x_adv:
            with self.model.frozen("eval") as f:
                self._x_adv[key] = perturb(f, x, y, ids, self.run).cpu()
        return self._x_adv[key].to(x.device)

"""What a probe finds, and what it keeps and says while it works."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from actkit.attacks import Threat
from actkit.display import tell
from actkit.probes.pictures import Picture

Level = Literal["green", "yellow", "red"]


@dataclass(frozen=True)
class Column:
    """How a number is shown in a table: under which title, as percent or as it is."""

    number: str
    title: str
    percent: bool = True


@dataclass(frozen=True)
class Flag:
    """What a check found. Red: the robustness that was measured cannot be believed. Yellow: look at it."""

    check: str
    level: Level
    said: str


@dataclass(frozen=True)
class Result:
    """What a probe found.

    Args:
        numbers: by name; accuracies and rates as fractions in [0,1].
        examples: what happened to each example, the examples being the last dimension; in the order of the split.
        columns: which of the numbers a table shows; None for all of them, as they are.
        threat: what the attacker was allowed; None where nothing was attacked, or several budgets were, which then stand in the numbers' names.
        flags: what checks found.
        pictures: what there is to see of it; the model's own series, or row, is called `actkit.probes.pictures.OWN`.
        attacked: whether the numbers come from an attack, so that a red flag on the model makes them unverified.
    """

    numbers: dict[str, float]
    examples: dict[str, Tensor] = field(default_factory=dict)
    columns: tuple[Column, ...] | None = None
    threat: Threat | None = None
    flags: tuple[Flag, ...] = ()
    attacked: bool = False
    pictures: tuple[Picture, ...] = ()

    @property
    def red(self) -> bool:
        return any(flag.level == "red" for flag in self.flags)

    def about(self) -> dict[str, Any]:
        """As JSON, the examples left out."""
        columns = self.columns
        if columns is None:
            columns = tuple(Column(name, name, percent=False) for name in self.numbers)
        return {
            "numbers": {name: value if math.isfinite(value) else None for name, value in self.numbers.items()},  # NaN is no JSON
            "images": next((t.shape[-1] for t in self.examples.values() if t.dim()), None),
            "columns": [vars(column) for column in columns],
            "threat": self.threat and _threat(self.threat),
            "flags": [vars(flag) for flag in self.flags],
        }  # fmt: skip


def _threat(threat: Threat) -> dict[str, Any]:
    swept = math.isnan(threat.eps)
    return {
        "norm": threat.norm,
        "eps": None if swept else str(threat.eps),
        "value": None if swept else float(threat.eps),
    }


class Progress:
    """Lets a long examination show how far it is, and go on where it was interrupted.

    Args:
        kept: the parts that an interrupted examination left, by name; filled as parts are done.
        done: called after each part that was computed.
    """

    def __init__(
        self,
        kept: dict[str, Tensor] | None = None,
        *,
        done: Callable[[], Any] = lambda: None,
        name: str = "",
    ) -> None:
        self.kept: dict[str, Tensor] = {} if kept is None else kept
        self._done, self._name = done, name
        self._parts, self._expected, self._announced = 0, 0, False

    def of(self, name: str) -> Progress:
        """The progress of one of several probes, or models."""
        inner = f"{self._name}/{name}" if self._name else name
        return Progress(self.kept, done=self._done, name=inner)

    def expect(self, parts: int, *, in_all: bool = False) -> None:
        """Announce so many more parts, at most; `in_all`: with those that come, whoever announces them."""
        if not self._announced:
            self._expected += parts
        self._announced = self._announced or in_all

    def has(self, name: str) -> bool:
        """Whether this part was kept."""
        return f"{self._name}/{name}" in self.kept

    def part(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """A part of the work: what was kept of it, or else what `compute` gives now, on the CPU. The name must be unique in the probe."""
        self._parts += 1
        tell(self._name, self._parts, max(self._expected, self._parts))
        key = f"{self._name}/{name}"
        if key not in self.kept:
            self.kept[key] = compute().cpu()
            self._done()
        return self.kept[key]


def share(hits: Tensor) -> float:
    """The fraction of an outcome's examples that are true; exact in double precision."""
    return float(hits.to(torch.float64).mean())

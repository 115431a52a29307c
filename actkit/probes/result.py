"""What a probe finds, and what it keeps and says while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from actkit.display import tell
from actkit.errors import InputError
from actkit.findings import Column, Flag, Threat, headline_among
from actkit.probes.pictures import Picture

# A result that does not say which number is the one to watch.
UNSAID = ""


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
        headline: which of the numbers is the one to watch while a model trains and to choose by; higher is better. None where no single number is.
            What does not say it has one of the usual names, the most telling first, or none.

    Raises `InputError` for a headline, or a column, that is none of the numbers.
    """

    numbers: dict[str, float]
    examples: dict[str, Tensor] = field(default_factory=dict)
    columns: tuple[Column, ...] | None = None
    threat: Threat | None = None
    flags: tuple[Flag, ...] = ()
    attacked: bool = False
    pictures: tuple[Picture, ...] = ()
    headline: str | None = UNSAID

    def __post_init__(self) -> None:
        if self.headline == UNSAID:
            object.__setattr__(self, "headline", headline_among(self.numbers))
        elif self.headline is not None and self.headline not in self.numbers:
            raise InputError(f"the headline {self.headline!r} is none of its numbers: {', '.join(self.numbers)}")
        for column in self.columns or ():
            if column.number not in self.numbers:
                raise InputError(f"the column {column.number!r} is none of its numbers: {', '.join(self.numbers)}")

    @property
    def red(self) -> bool:
        return any(flag.level == "red" for flag in self.flags)

    @property
    def images(self) -> int | None:
        """How many were looked at; None where none was, or it does not say what happened to each."""
        return next((t.shape[-1] for t in self.examples.values() if t.dim()), None)


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

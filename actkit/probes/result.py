"""What a probe finds, and what it keeps and says while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from actkit.attacks import Threat
from actkit.display import tell
from actkit.errors import InputError
from actkit.probes.pictures import Picture

Level = Literal["green", "yellow", "red"]


class ResultName(NamedTuple):
    """Whose result it is, and of which probe: 'robust.ema.pgd20' is that of the model robust.ema under the probe labelled pgd20."""

    model: str
    label: str

    @staticmethod
    def parse(text: str) -> ResultName:
        model, _, label = text.rpartition(".")
        if not model or not label:
            raise InputError(
                f"{text!r} names no result: a model and the label of a probe with a '.' between them are wanted"
            )
        return ResultName(model, label)

    @property
    def models(self) -> list[str]:
        """A probe of several models names them in order: 'source>target'."""
        return self.model.split(">")

    def __str__(self) -> str:
        return f"{self.model}.{self.label}"


# A result that does not say which number is the one to watch.
UNSAID = ""
# What the number to watch is called by probes that do not say it (those written before results had a headline), the most telling first.
_USUAL_HEADLINES = ("worst_run", "worst_case", "clean")


def headline_among(numbers: Mapping[str, Any]) -> str | None:
    """The number to watch, of a probe that does not name it; None where none has one of the usual names."""
    return next((name for name in _USUAL_HEADLINES if name in numbers), None)


@dataclass(frozen=True)
class Column:
    """How a number of a `Result` is shown in a table.

    Args:
        number: its name in `Result.numbers`.
        title: the column's title.
        percent: whether a fraction is shown in percent; else as it is.
    """

    number: str
    title: str
    percent: bool = True


@dataclass(frozen=True)
class Flag:
    """What a check found.

    Args:
        check: what was checked, in a word or two: 'zero gradients'.
        level: 'green': it holds. 'yellow': look at it. 'red': the robustness that was measured cannot be believed, and the model's numbers under
            attack are marked UNVERIFIED wherever they are shown.
        said: what was found, in a sentence with its numbers.
    """

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
        headline: which of the numbers is the one to watch while a model trains and to choose by; higher is better. None where no single number is.
            What does not say it has one of the usual names, the most telling first, or none.

    Raises `InputError` for a headline that is none of the numbers.
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

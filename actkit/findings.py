"""What examinations say, as values: whose a result is, how its numbers are shown, what a check found, what the attacker was allowed. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from actkit.config.norm import norm_named
from actkit.config.spec import amount
from actkit.config.typed import typed
from actkit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

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
class Counts:
    """What a flag rests on.

    Args:
        images: how many were looked at.
        against: on how many of them what is checked is seen to fail.
        in_favour: where two outcomes of each image are compared, on how many the other one fails.
        p: how likely chance alone is to show as much; None where chance has no part in it.
    """

    images: int
    against: int
    in_favour: int = 0
    p: float | None = None

    @property
    def net(self) -> int:
        return self.against - self.in_favour

    def beyond(self, level: float) -> bool:
        """Whether chance alone shows as much less often than that."""
        return self.p is None or self.p < level


@dataclass(frozen=True)
class Flag:
    """What a check found.

    Args:
        check: what was checked, in a word or two: 'zero gradients'.
        level: 'green': it holds. 'yellow': look at it. 'red': the robustness that was measured cannot be believed, and the model's numbers under
            attack are marked UNVERIFIED wherever they are shown.
        said: what was found, in a sentence with its numbers.
        counts: of images, what it rests on; None where it rests on none, and of flags that older versions wrote.
    """

    check: str
    level: Level
    said: str
    counts: Counts | None = None

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"check": self.check, "level": self.level, "said": self.said}
        return made if self.counts is None else {**made, "counts": vars(self.counts)}


@dataclass(frozen=True)
class Threat:
    """What the attacker may do: every image within `eps` of x in `norm`, and in [0,1]. An eps that is no number: several, each said elsewhere."""

    # As it is registered: 'linf'. One that a plugin brings may be absent where its results are read.
    norm: str
    # Prints as it was written: '8/255'.
    eps: float

    def __str__(self) -> str:
        return self.norm if math.isnan(self.eps) else f"{self.norm} eps {self.eps}"

    @property
    def written(self) -> str | None:
        """Its eps as it was written, '8/255'; None where there are several."""
        return None if math.isnan(self.eps) else str(self.eps)

    def to_json(self) -> dict[str, Any]:
        value = None if math.isnan(self.eps) else float(self.eps)
        return vars(_ThreatInFile(self.norm, self.written, value))

    @staticmethod
    def from_json(data: Any, where: str = "") -> Threat:
        """Raises `ValueError`, which says where and what, for what is none."""
        found = typed(_ThreatInFile, data, where)
        if found.eps is None:
            return Threat(found.norm, math.nan)
        eps = amount(found.eps) if _AMOUNT.fullmatch(found.eps) else None
        if eps is None:
            raise ValueError(f"{where}.eps: {found.eps[:40]!r} is no number".removeprefix("."))
        return Threat(found.norm, eps)

    def allows(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each example obeys, but for rounding; shape (B,). Raises `InputError` where its norm is not there."""
        # A sum over many pixels rounds more often than their largest.
        rounding = 1e-8 * x[0].numel() if self.norm == "l1" and len(x) else 0.0
        most = self.eps * (1 + 1e-5) + 1e-6 + rounding
        inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        return inside & (norm_named(self.norm).length(x_adv - x) <= most)


@dataclass(frozen=True)
class _ThreatInFile:
    """A threat as JSON: eps as it was written and as a number."""

    norm: str
    eps: str | None
    value: float | None = None


# A number, or a quotient of two; of an exponent that would fill the memory nothing is read.
_AMOUNT = re.compile(r"[\d.]{1,40}(e[-+]?\d{1,3})?(/[\d.]{1,40})?")


# Of the standard normal distribution, two-sided 95 %.
_Z = 1.959963984540054


def wilson(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate that was seen as `hits` of `count` (Wilson 1927): fractions in [0,1], also sensible at 0 and at all."""
    if count < 1:
        return 0.0, 1.0
    share, z2 = hits / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return (0.0 if hits <= 0 else max(0.0, middle - half)), (1.0 if hits >= count else min(1.0, middle + half))

"""Looks: what the monitor saw of the models after an epoch, and the line of a run's metrics that holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actkit.config.typed import typed
from actkit.findings import ResultName, headline_among

if TYPE_CHECKING:
    from actkit.probes import Result


@dataclass(frozen=True)
class Watched:
    """Which of a probe's numbers is the one to watch, and how it is shown.

    Args:
        headline: its name; None where the probe has none, as a sweep.
        attacked: whether it is measured under attack.
        title, percent: of the column that shows it in a table; without a title, a line of an older run that did not keep it.
        images: how many were looked at; None where none was, or an older run did not keep it.
    """

    headline: str | None
    attacked: bool
    title: str = ""
    percent: bool = True
    images: int | None = None

    @staticmethod
    def of(result: Result) -> Watched:
        columns = {column.number: column for column in result.columns or ()}
        images = result.images
        if result.headline in columns:
            column = columns[result.headline]
            return Watched(result.headline, result.attacked, column.title, column.percent, images)
        return Watched(result.headline, result.attacked, result.headline or "", percent=False, images=images)

    @staticmethod
    def in_older_runs(numbers: Mapping[str, Any]) -> Watched:
        """Of a line that does not say which number is the headline."""
        headline = headline_among(numbers)
        return Watched(headline, attacked=headline != "clean")


@dataclass(frozen=True)
class Look:
    """One probe's numbers of one model after an epoch, and which is the one to watch."""

    name: ResultName
    numbers: Mapping[str, float]
    watched: Watched

    @property
    def value(self) -> float | None:
        """The headline number; None where the probe has none."""
        return None if self.watched.headline is None else self.numbers[self.watched.headline]

    @property
    def attacked(self) -> bool:
        return self.watched.attacked

    @property
    def percent(self) -> bool:
        return self.watched.percent

    @property
    def shown(self) -> str:
        """The headline number under its title, in percent where it is a rate: 'PGD-20 50.1', 'entropy (nats) 1.9'."""
        assert self.value is not None
        title = self.watched.title or ("robust" if self.attacked else "clean")
        return f"{title} {100 * self.value:.1f}" if self.percent else f"{title} {self.value:.4g}"


@dataclass(frozen=True)
class EpochLine:
    """A line of a run's metrics: an epoch that has ended.

    Args:
        epoch, step: how many have ended.
        lr, loss: by role; the loss is the mean over the epoch.
        monitor: every number that the monitor's probes found, which may be NaN; empty after an epoch without a look.
        looks: which of these is the one to watch.
    """

    epoch: int
    step: int
    images_per_second: float = 0.0
    lr: dict[str, float] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    monitor: dict[ResultName, dict[str, Any]] = field(default_factory=dict)
    looks: dict[ResultName, Watched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, numbers in self.monitor.items():
            headline = self._watched(name).headline
            if not all(type(value) in (int, float) for value in numbers.values()):
                raise ValueError(f"monitor.{name} holds what is no number")
            if headline is not None and headline not in numbers:
                raise ValueError(f"looks.{name}: {headline!r} is none of its numbers")

    @staticmethod
    def from_json(data: Any) -> EpochLine:
        """Raises `ValueError` for what is no such line."""
        return typed(EpochLine, data)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "images_per_second": self.images_per_second,
            "lr": self.lr,
            "loss": self.loss,
        }
        if self.monitor:
            out["monitor"] = {str(name): dict(numbers) for name, numbers in self.monitor.items()}
            out["looks"] = {str(name): vars(watched) for name, watched in self.looks.items()}
        return out

    def with_looks(self, results: Mapping[str, Result]) -> EpochLine:
        """With what the monitor found after the epoch."""
        named = {ResultName.parse(name): result for name, result in results.items()}
        return dataclasses.replace(
            self,
            monitor={name: dict(result.numbers) for name, result in named.items()},
            looks={name: Watched.of(result) for name, result in named.items()},
        )

    @property
    def seen(self) -> list[Look]:
        """What was seen of each model by each probe."""
        return [Look(name, numbers, self._watched(name)) for name, numbers in self.monitor.items()]

    def _watched(self, name: ResultName) -> Watched:
        return self.looks[name] if name in self.looks else Watched.in_older_runs(self.monitor[name])

    def look(self, model: str, label: str) -> Look | None:
        """One of them; None where there is no such look, or it has no headline number."""
        return next((look for look in self._telling() if look.name == (model, label)), None)

    def look_under_attack(self, model: str) -> Look | None:
        """The first look at the model under attack; None where there is none."""
        return next((look for look in self._telling() if look.name.model == model and look.attacked), None)

    def _telling(self) -> Iterator[Look]:
        return (look for look in self.seen if look.value is not None)


def watched_in_words(looks: Sequence[Look], images: int | None = None) -> str:
    """The headline numbers of looks at one model, with how many images each saw: 'clean 61.2 · PGD-20 35.1 (500 images)'; '' where there is none.

    Args:
        images: how many all looks of the line saw, which whoever asks says once for all of them.
    """
    shown = [look for look in looks if look.value is not None]
    if not shown:
        return ""
    counts = {look.watched.images for look in shown}
    if len(counts) == 1:
        (own,) = counts
        text = " · ".join(look.shown for look in shown)
        return text if own is None or own == images else f"{text} ({own:,} images)"
    return " · ".join(
        look.shown if look.watched.images is None else f"{look.shown} ({look.watched.images:,} images)"
        for look in shown
    )


def images_of_all(looks: Sequence[Look]) -> int | None:
    """How many images every look saw, where that is one number."""
    counts = {look.watched.images for look in looks if look.value is not None}
    return counts.pop() if len(counts) == 1 else None

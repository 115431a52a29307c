"""Looks: what the monitor saw of the models after an epoch, as a line of a run's metrics holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actkit.probes import Result, ResultName
from actkit.probes.result import headline_among


@dataclass(frozen=True)
class Look:
    """One probe's numbers of one model after an epoch.

    Args:
        value: its headline number; None where the probe has none, as a sweep.
        attacked: whether that is under attack.
    """

    name: ResultName
    numbers: Mapping[str, float]
    value: float | None
    attacked: bool


def seen(results: Mapping[str, Result]) -> dict[str, Any]:
    """What a line of metrics keeps of the monitor's results: `monitor`, their numbers, and `looks`, which of these is the one to watch."""
    return {
        "monitor": {name: dict(result.numbers) for name, result in results.items()},
        "looks": {name: {"headline": r.headline, "attacked": r.attacked} for name, r in results.items()},
    }


def looks(entry: Mapping[str, Any]) -> list[Look]:
    """The looks of a line of metrics; none of an epoch without a look. Lines of older runs do not say which number is the headline."""
    found = []
    for name, numbers in entry.get("monitor", {}).items():
        headline = headline_among(numbers)
        how = entry.get("looks", {}).get(name, {"headline": headline, "attacked": headline != "clean"})
        value = None if how["headline"] is None else numbers[how["headline"]]
        found.append(Look(ResultName.parse(name), numbers, value, how["attacked"]))
    return found


def look(entry: Mapping[str, Any], model: str, label: str) -> Look | None:
    """One of them; None where there is no such look, or it has no headline number."""
    own = (look for look in looks(entry) if look.name == (model, label) and look.value is not None)
    return next(own, None)


def look_under_attack(entry: Mapping[str, Any], model: str) -> Look | None:
    """The first look at the model under attack; None where there is none."""
    own = (look for look in looks(entry) if look.name.model == model and look.attacked and look.value is not None)
    return next(own, None)

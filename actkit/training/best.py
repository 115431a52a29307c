"""Which epoch was the best, by the lines of a training's metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actkit.evaluation.looks import look


@dataclass(frozen=True)
class Score:
    """What the probe that chooses saw after one epoch: the higher, the better."""

    value: float
    step: int


def scores(entries: Sequence[Mapping[str, Any]], model: str, probe: str | None) -> list[Score]:
    """A model's scores under the probe of this label, one for each look: the headline number.

    There is none where `probe` is None: then nothing chooses.
    """
    if probe is None:
        return []
    found = [(look(entry, model, probe), entry["step"]) for entry in entries]
    return [Score(one.value, step) for one, step in found if one is not None and one.value is not None]


def best_step(found: Sequence[Score], among: Collection[int] | None = None) -> int | None:
    """The step of the best, the earliest where several are; of those `among` these steps. None where there is none."""
    wanted = [score for score in found if among is None or score.step in among]
    return max(wanted, key=lambda score: score.value).step if wanted else None

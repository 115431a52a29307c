"""Which epoch was the best, by the lines of a training's metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actkit.evaluation.summary import robust_number


@dataclass(frozen=True)
class Score:
    """What the probe that chooses saw after one epoch: the higher, the better."""

    value: float
    step: int


def scores(entries: Sequence[Mapping[str, Any]], model: str, probe: str | None) -> list[Score]:
    """A model's scores under the probe of this label, one for each look: its number under attack, or where there is no attack, its accuracy.

    There is none where `probe` is None: then nothing chooses.
    """
    looks = [(entry["step"], entry.get("monitor", {}).get(f"{model}.{probe}")) for entry in entries]
    return [Score(_value(numbers), step) for step, numbers in looks if numbers and probe is not None]


def _value(numbers: Mapping[str, float]) -> float:
    robust = robust_number(numbers)
    return float(numbers["clean"] if robust is None else robust)


def best_step(found: Sequence[Score], among: Collection[int] | None = None) -> int | None:
    """The step of the best, the earliest where several are; of those `among` these steps. None where there is none."""
    wanted = [score for score in found if among is None or score.step in among]
    return max(wanted, key=lambda score: score.value).step if wanted else None

"""Catastrophic overfitting (Wong et al. 2020): robustness is suddenly lost while the training loss goes on falling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actkit.evaluation.looks import look_under_attack

# A fall of accuracy under attack from one look to the next that is worth a warning.
WARNED = 0.15


def sudden_fall(entries: Sequence[Mapping[str, Any]], model: str, *, limit: float | None = None) -> str | None:
    """What to say where the newest epoch's look shows a sudden fall of a model's accuracy under attack since the look before; None otherwise.

    Args:
        entries: the lines of a training's metrics.
        limit: a fall of more than this (a fraction) counts; by default one of more than 0.15 while the training loss falls too.
    """
    looks = [
        (seen.value, entry) for entry in entries if (seen := look_under_attack(entry, model)) and seen.value is not None
    ]
    if len(looks) < 2 or looks[-1][1] is not entries[-1]:
        return None
    (before, then), (now, last) = looks[-2:]
    falls = last["loss"][model] < then["loss"][model]
    if before - now > (WARNED if limit is None else limit) and (limit is not None or falls):
        return f"accuracy under attack fell from {100 * before:.1f} to {100 * now:.1f} % in one look: catastrophic overfitting?"
    return None

"""Catastrophic overfitting (Wong et al. 2020): robustness is suddenly lost while the training loss goes on falling."""

from __future__ import annotations

from collections.abc import Sequence

from actkit.evaluation.looks import EpochLine

# A fall of accuracy under attack from one look to the next that is worth a warning.
WARNED = 0.15


def sudden_fall(lines: Sequence[EpochLine], model: str, *, limit: float | None = None) -> str | None:
    """What to say where the newest epoch's look shows a sudden fall of a model's accuracy under attack since the look before; None otherwise.

    Args:
        lines: of a training's metrics.
        limit: a fall of more than this (a fraction) counts; by default one of more than 0.15 while the training loss falls too.
    """
    looks = [(seen.value, line) for line in lines if (seen := line.look_under_attack(model)) and seen.value is not None]
    if len(looks) < 2 or looks[-1][1] is not lines[-1]:
        return None
    (before, then), (now, last) = looks[-2:]
    # An objective may yield no loss for this model: then it cannot be seen to fall.
    falls = model in last.loss and model in then.loss and last.loss[model] < then.loss[model]
    if before - now > (WARNED if limit is None else limit) and (limit is not None or falls):
        return f"accuracy under attack fell from {100 * before:.1f} to {100 * now:.1f} % in one look: catastrophic overfitting?"
    return None

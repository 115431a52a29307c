"""Catastrophic overfitting (Wong et al. 2020): robustness is suddenly lost while the training loss goes on falling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actkit.evaluation.looks import EpochLine

# A fall of accuracy under attack from one look to the next that is worth a warning.
WARNED = 0.15


@dataclass(frozen=True)
class Fall:
    """A fall of a model's accuracy under attack from one look to the next.

    Args:
        before, now: the accuracies, and the epochs after which they were seen.
        step: how many batches had been trained on at the look before.
    """

    before: float
    now: float
    epochs: tuple[int, int]
    step: int

    def __str__(self) -> str:
        return f"accuracy under attack fell from {100 * self.before:.1f} to {100 * self.now:.1f} % in one look: catastrophic overfitting?"


def sudden_fall(lines: Sequence[EpochLine], model: str, *, limit: float | None = None) -> Fall | None:
    """What the newest epoch's look shows, where that is a sudden fall of a model's accuracy under attack since the look before; None otherwise.

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
        return Fall(before, now, (then.epoch, last.epoch), then.step)
    return None


def last_look(lines: Sequence[EpochLine], model: str) -> int | None:
    """The step of the newest look at a model under attack: what there is to go back to if the next one shows a fall."""
    return next((line.step for line in reversed(lines) if line.look_under_attack(model)), None)

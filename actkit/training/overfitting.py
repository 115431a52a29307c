"""Catastrophic overfitting (Wong et al. 2020): robustness is suddenly lost while the training loss goes on falling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actkit.evaluation.summary import robust_number

# A fall of accuracy under attack from one look to the next that is worth a warning.
WARNED = 0.15


def sudden_fall(
    entries: Sequence[Mapping[str, Any]], model: str, probe: str | None, *, limit: float | None = None
) -> str | None:
    """What to say where the newest epoch's look shows a sudden fall of a model's accuracy under attack since the look before; None otherwise.

    Args:
        entries: the lines of a training's metrics.
        probe: the label of the monitored probe under attack.
        limit: a fall of more than this (a fraction) counts; by default one of more than 0.15 while the training loss falls too.
    """
    name = f"{model}.{probe}"
    looks = [entry for entry in entries if entry.get("monitor", {}).get(name)]
    if len(looks) < 2 or "monitor" not in entries[-1]:
        return None
    before, now = (robust_number(entry["monitor"][name]) for entry in looks[-2:])
    loss_before, loss_now = (entry["loss"][model] for entry in looks[-2:])
    if before - now > (WARNED if limit is None else limit) and (limit is not None or loss_now < loss_before):
        return f"accuracy under attack fell from {100 * before:.1f} to {100 * now:.1f} % in one look: catastrophic overfitting?"
    return None

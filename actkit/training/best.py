"""Which epoch was the best, by the lines of a training's metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from actkit.errors import InputError
from actkit.evaluation.looks import EpochLine
from actkit.probes import Result, ResultName


@dataclass(frozen=True)
class Score:
    """What the probe that chooses saw after one epoch: the higher, the better."""

    value: float
    step: int


def scores(lines: Sequence[EpochLine], model: str, probe: str | None) -> list[Score]:
    """A model's scores under the probe of this label, one for each look: the headline number.

    There is none where `probe` is None: then nothing chooses.
    """
    if probe is None:
        return []
    found = [(line.look(model, probe), line.step) for line in lines]
    return [Score(one.value, step) for one, step in found if one is not None and one.value is not None]


def best_step(found: Sequence[Score], among: Collection[int] | None = None) -> int | None:
    """The step of the best, the earliest where several are; of those `among` these steps. None where there is none."""
    wanted = [score for score in found if among is None or score.step in among]
    return max(wanted, key=lambda score: score.value).step if wanted else None


def assert_watchable(
    results: Mapping[str, Result], model: str, *, best: str | None, stop_on_drop: float | None
) -> None:
    """Raise `InputError` at the first look where it shows that `run.best` or `run.stop_on_drop` has no number of this model to go by."""
    own = {ResultName.parse(name).label: r for name, r in results.items() if ResultName.parse(name).model == model}
    if best is not None and (best not in own or own[best].headline is None):
        raise InputError(
            f"run.best = {best!r} has nothing to choose by: this probe gives {model!r} no headline number",
            help="choose by one that does, such as probe.robust_accuracy",
        )
    if stop_on_drop is not None and not any(r.attacked and r.headline is not None for r in own.values()):
        raise InputError(
            f"run.stop_on_drop has nothing to watch: no probe in run.monitor gives {model!r} a headline number under attack",
            help="add one that does, such as probe.robust_accuracy, or set run.stop_on_drop = None",
        )

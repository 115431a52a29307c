"""The smallest perturbation that fools a model (ACT, Table 2 and Figure 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from actkit.attacks import budget_problems, smallest_perturbation, untargeted
from actkit.config.registry import Model, register
from actkit.datasets import Data
from actkit.errors import InputError
from actkit.probes.protocols import Examples, RecordingGoal, no_gradient, settings_problems
from actkit.probes.result import Column, Progress, Result, share


def search_problems(
    *, eps: float, steps: int, tries: int, limit: int | None, batch_size: int
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the search's settings."""
    if eps == 0:
        yield "eps", InputError("the search starts from an eps above 0, got 0")
    yield from budget_problems(eps=eps, steps=steps)
    yield from settings_problems(tries=tries, limit=limit, batch_size=batch_size)


@register("probe", check=search_problems, attacks=True)
def fgsm_k(
    model: Model,
    data: Data,
    *,
    eps: float = 0.3,
    steps: int = 10,
    tries: int = 20,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Result:
    """FGSM^k: the mean smallest linf perturbation that fools the model (ACT, section 4.3), as foolbox 1.x and 2.x measured it.

    `actkit.attacks.smallest_perturbation` says how it is searched; `eps` is where each example's search starts. `mean_all` counts a
    misclassified image as 0, as foolbox's own mean does; `mean_correct` leaves those out (the paper does not say which it is). Images for
    which nothing was found are in neither mean, but in the median, as farther than all others (of an even number it is the mean of the two in the middle); their share is `not_found`. Distances are in [0,1] pixels.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress = progress or Progress()
    with model.frozen("eval") as g:

        def search(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            goal = RecordingGoal(untargeted(g, y), x, None)
            distance = smallest_perturbation(goal, x, eps=eps, steps=steps, tries=tries)[1]
            goal.assert_numbers()
            return distance

        distance = examples.each("search", progress, search)
        found = distance.isfinite()
        # Nothing was found: is there a gradient to follow at all?
        flags = () if (found & (distance > 0)).any() else no_gradient(g, *examples.first()[:2])
    attacked, right = distance[found & (distance > 0)].double(), distance[distance > 0].double()
    numbers = {
        "mean_correct": float(attacked.mean()) if len(attacked) else float("nan"),
        "mean_all": float(distance[found].double().mean()) if found.any() else float("nan"),
        "median_correct": _median(right),
        "misclassified": share(distance == 0),
        "not_found": share(~found),
    }
    columns = [
        Column("mean_correct", "FGSM^k mean", percent=False),
        Column("mean_all", "with misclassified as 0", percent=False),
    ]
    if not bool(found.all()):
        columns.append(Column("not_found", "not found"))
    return Result(numbers, {"distance": distance.to(torch.float32)}, tuple(columns), flags=flags, attacked=True)


def _median(distances: Tensor) -> float:
    """The middle one, or the mean of the two in the middle, of shape (n,); not a number of none, or where so many are infinite."""
    if not len(distances):
        return float("nan")
    ordered = distances.sort().values
    middle = float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
    return middle if math.isfinite(middle) else float("nan")

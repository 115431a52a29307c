"""The smallest perturbation that fools a model: by FGSM^k (ACT, Table 2 and Figure 2), or by any attack that searches it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from actkit.attacks import Threat, budget_problems, norm_named, smallest_perturbation, threat, untargeted
from actkit.attacks.goals import Loss
from actkit.config.registry import Attack, Model, register
from actkit.config.spec import Quantity
from actkit.datasets import Data
from actkit.errors import InputError, raise_first
from actkit.findings import Flag
from actkit.noise import Noise
from actkit.probes.pictures import OWN, Picture
from actkit.probes.protocols import (
    Examples,
    RecordingGoal,
    assert_allowed,
    no_gradient,
    predict,
    settings_problems,
    title,
)
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
    columns = [
        Column("mean_correct", "FGSM^k mean", percent=False),
        Column("mean_all", "with misclassified as 0", percent=False),
    ]
    if not bool(found.all()):
        columns.append(Column("not_found", "not found"))
    kept = {"distance": distance.to(torch.float32)}
    return Result(_numbers(distance), kept, tuple(columns), flags=flags, attacked=True)


def curve_problems(
    *, values: list[float] | None, limit: int | None, batch_size: int
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the settings of a search by an attack."""
    if values is not None and (not values or any(b <= a for a, b in itertools.pairwise(values))):
        yield "values", InputError(f"the values of a curve must rise, got {[str(v) for v in values]}")
    yield from settings_problems(limit=limit, batch_size=batch_size)


@register("probe", check=curve_problems)
def smallest(
    model: Model,
    data: Data,
    *,
    attack: Attack,
    loss: Loss = "margin",
    values: list[float] | None = None,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """The smallest perturbation that an attack finds within its eps, in its norm: mean, median, and the accuracy at every smaller eps.

    For attacks that return the smallest adversarial example that they find (DDN, FMN); of any other the length of what it returns counts, which is no
    smallest. `eps` is the largest perturbation that counts. `mean_correct` and `mean_all` are over the images for which an adversarial example was found;
    a misclassified image counts as 0 in the second and is left out of the first; `median_correct` counts those without one as farther than all others.
    `eps V` is the share of images that no perturbation of length V or less was found for.

    Args:
        loss: what the attack raises; the margin is 0 at the border between two classes, as such attacks expect.
        values: of eps, for the curve, rising; by default the eighths of the attack's eps.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress, allowed = progress or Progress(), threat(attack)
    raise_first(curve_problems(values=values, limit=limit, batch_size=batch_size))
    values = [float(allowed.eps) * part / 8 for part in range(1, 9)] if values is None else values
    if float(values[-1]) > float(allowed.eps) * (1 + 1e-6):
        raise InputError(
            f"the curve goes up to eps {values[-1]}, and the attack looks no farther than {allowed.eps}",
            help="leave values out, or give the attack the larger eps",
        )
    with model.frozen("eval") as g:

        def search(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            goal = RecordingGoal(untargeted(g, y, loss=loss), x, None)
            x_adv = attack(goal, x, noise=Noise(ids, seed, 0))
            goal.assert_numbers()
            assert_allowed(allowed, x_adv, x)
            length = norm_named(allowed.norm).length(x_adv - x)
            distance = torch.where(predict(g, x_adv) != y, length, torch.inf)
            return torch.where(predict(g, x) != y, 0.0, distance)

        distance = examples.each("search", progress, search)
        flags = () if (distance.isfinite() & (distance > 0)).any() else no_gradient(g, *examples.first()[:2])
    return _searched(distance, values, allowed, title(attack, loss), data, flags)


def _searched(
    distance: Tensor, values: Sequence[float], allowed: Threat, name: str, data: Data, flags: tuple[Flag, ...]
) -> Result:
    """What is told of distances of shape (n,)."""
    curve = {f"eps {_short(value)}": share(distance > float(value)) for value in values}
    columns = [
        Column("mean_correct", f"{name} {allowed.norm} mean", percent=False),
        Column("median_correct", f"{name} {allowed.norm} median", percent=False),
    ]
    if not bool(distance.isfinite().all()):
        columns.append(Column("not_found", "not found"))
    picture = Picture(
        "accuracy-by-eps",
        "lines",
        f"Accuracy under perturbations up to eps that {name} finds",
        {
            "series": {OWN: {"x": [0.0, *map(float, values)], "y": [1 - share(distance == 0), *curve.values()]}},
            "percent": True,
            "y_label": "accuracy",
            "x_label": f"eps ({allowed.norm}, pixels in [0,1])",
            "levels": [{"value": 1 / data.num_classes, "text": "chance"}],
        },
    )
    return Result(
        {**_numbers(distance), **curve},
        {"distance": distance.to(torch.float32)},
        tuple(columns),
        Threat(allowed.norm, math.nan),
        flags,
        attacked=True,
        pictures=(picture,),
        headline=None,
    )


def _short(value: float) -> str:
    """As it is written, '8/255'; else four digits."""
    return str(value) if isinstance(value, Quantity) else f"{value:.4g}"


def _numbers(distance: Tensor) -> dict[str, float]:
    """Of distances of shape (n,): 0 where the image is misclassified, infinite where nothing was found."""
    found = distance.isfinite()
    attacked, right = distance[found & (distance > 0)].double(), distance[distance > 0].double()
    return {
        "mean_correct": float(attacked.mean()) if len(attacked) else float("nan"),
        "mean_all": float(distance[found].double().mean()) if found.any() else float("nan"),
        "median_correct": _median(right),
        "misclassified": share(distance == 0),
        "not_found": share(~found),
    }


def _median(distances: Tensor) -> float:
    """The middle one, or the mean of the two in the middle, of shape (n,); not a number of none, or where so many are infinite."""
    if not len(distances):
        return float("nan")
    ordered = distances.sort().values
    middle = float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
    return middle if math.isfinite(middle) else float("nan")

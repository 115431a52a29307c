"""What there is to see: adversarial examples themselves, and a slice of the loss around an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import budget_problems, norm_named, smallest_perturbation, threat, untargeted
from actkit.attacks.goals import Loss, ascend, away_from
from actkit.config.registry import Attack, Model, register
from actkit.datasets import Data
from actkit.errors import ActkitError, InputError
from actkit.losses import cross_entropy
from actkit.noise import Noise
from actkit.probes.pictures import OWN, Picture
from actkit.probes.protocols import (
    AttackRun,
    Examples,
    RecordingGoal,
    goal_for,
    no_gradient,
    perturb,
    predict,
    settings_problems,
    title,
)
from actkit.probes.result import Column, Progress, Result
from actkit.probes.triples import COLUMNS, cells_of, legend


def gallery_problems(
    *, count: int, eps: float, steps: int, tries: int, magnify: float
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with a gallery's settings."""
    if eps == 0:
        yield "eps", InputError("the search starts from an eps above 0, got 0")
    if not 1 <= count <= 64:
        yield "count", InputError(f"a gallery shows 1 to 64 images, got {count}")
    if not magnify > 0:
        yield "magnify", InputError(f"magnify must be positive, got {magnify}")
    yield from budget_problems(eps=eps, steps=steps)
    yield from settings_problems(tries=tries)


@register("probe", check=gallery_problems)
def gallery(
    model: Model,
    data: Data,
    *,
    count: int = 4,
    magnify: float = 5.0,
    eps: float = 0.3,
    steps: int = 10,
    tries: int = 20,
    split: str = "test",
    progress: Progress | None = None,
) -> Result:
    """Smallest adversarial examples by FGSM^k (ACT, Figure 2): the image, the adversarial one, their difference in colours, classes, linf distance.

    The same images for every model, chosen once for a split. A misclassified image is its own adversarial example, at distance 0.

    Args:
        magnify: how strong the colours of a difference are: full where a pixel changes by 0.5 / magnify.
    """
    examples = Examples(data, split, limit=count, batch_size=count, device=model.device)
    progress = progress or Progress()
    x, y, _ = examples.first()
    with model.frozen("eval") as g:

        def search() -> Tensor:
            goal = RecordingGoal(untargeted(g, y), x, None)
            x_adv, distance = smallest_perturbation(goal, x, eps=eps, steps=steps, tries=tries)
            goal.assert_numbers()
            return torch.cat([x_adv.flatten(1), distance[:, None]], 1)

        found = progress.part("search", search).to(x.device)
        x_adv, distance = found[:, :-1].view_as(x), found[:, -1]
        predicted = predict(g, x_adv)
        flags = () if (distance.isfinite() & (distance > 0)).any() else no_gradient(g, x, y)
    classes, span = data.classes, 0.5 / magnify
    cells: list[dict[str, Any]] = []
    for i in range(len(x)):
        label, answer = classes[int(y[i])], classes[int(predicted[i])]
        said = _smallest(float(distance[i]))
        cells += cells_of(x[i], x_adv[i], label=label, predicted=answer, distance=said, span=span)
    picture = Picture(
        "gallery",
        "images",
        "Smallest adversarial examples (FGSM^k)",
        {"rows": [{"name": OWN, "cells": cells}], "columns": list(COLUMNS), "span": span},
        f"Each image with its class, the nearest image found that the model takes for another, and their difference with its linf size. {legend(span)}",
    )
    shown = distance[distance.isfinite() & (distance > 0)]
    return Result(
        {"mean_shown": float(shown.mean()) if len(shown) else float("nan")},
        {"distance": distance.cpu()},
        (Column("mean_shown", "smallest linf shown", percent=False),),
        flags=flags,
        attacked=True,
        pictures=(picture,),
    )


def _smallest(distance: float) -> str:
    if not distance:
        return "wrong already"
    return f"linf {distance:.3g}" if math.isfinite(distance) else "none found"


def images_problems(*, loss: str, count: int) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the settings of the images shown."""
    if not 1 <= count <= 64:
        yield "count", InputError(f"1 to 64 images can be shown, got {count}")
    yield from settings_problems(loss=loss, mode="paper")


@register("probe", check=images_problems)
def adversarial_images(
    model: Model,
    data: Data,
    *,
    attack: Attack,
    loss: Loss = "cross_entropy",
    count: int = 6,
    split: str = "test",
    seed: int = 0,
) -> Result:
    """What an attack makes of a few images: each with its class, the adversarial one with the class that the model gives it, their difference.

    The same images for every model, chosen once for a split; what is shown is the attack's last point from its first random start, as `robust_accuracy`
    attacks. It measures nothing.
    """
    examples = Examples(data, split, limit=count, batch_size=count, device=model.device)
    x, y, ids = examples.first()
    allowed, name = threat(attack), title(attack, loss)
    with model.frozen("eval") as g:
        x_adv = perturb(g, x, y, ids, AttackRun(attack, goal_for(loss), (seed, 0), "shown"))
        predicted = predict(g, x_adv)
    sizes = norm_named(allowed.norm).length(x_adv - x)
    # Of an l2 ball no single pixel comes near eps.
    span = float(allowed.eps) if allowed.norm == "linf" else float((x_adv - x).abs().max())
    cells: list[dict[str, Any]] = []
    for i in range(len(x)):
        label, answer = data.classes[int(y[i])], data.classes[int(predicted[i])]
        said = f"{allowed.norm} {float(sizes[i]):.3g}"
        cells += cells_of(x[i], x_adv[i], label=label, predicted=answer, distance=said, span=span or 1.0)
    picture = Picture(
        "adversarial_images",
        "images",
        f"Adversarial images ({name}, {allowed})",
        {"rows": [{"name": OWN, "cells": cells}], "columns": list(COLUMNS), "span": span or 1.0},
        f"{len(x)} images drawn at random from the {split} images, attacked by {name} ({allowed}) from one random start. {legend(span or 1.0)}",
    )
    return Result(
        {},
        {"correct": (predicted == y).cpu()},
        columns=(),
        threat=allowed,
        attacked=True,
        pictures=(picture,),
        headline=None,
    )


def surface_problems(*, eps: float, points: int, limit: int | None) -> Iterator[tuple[str, InputError]]:
    """What is wrong with a slice's settings."""
    if not 3 <= points <= 201 or points % 2 == 0:
        yield "points", InputError(f"a slice has an odd number of points a side, 3 to 201, got {points}")
    yield from budget_problems(eps=eps)
    yield from settings_problems(limit=limit)


@register("probe", check=surface_problems)
def surface(
    model: Model,
    data: Data,
    *,
    eps: float,
    points: int = 25,
    split: str = "test",
    limit: int | None = 16,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """A slice of the loss around images: along the sign of its gradient and along a random sign, each up to eps; the mean over `limit` images.

    A jagged slice, or one that is flat along the gradient and steep elsewhere, is a sign of masked gradients. `roughness` is the mean absolute second
    derivative along the gradient with eps as the unit of length, over the image's own range of losses; the mean over images.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress = progress or Progress()
    steps = torch.linspace(-eps, eps, points, device=model.device)
    with model.frozen("eval") as g:

        def slices(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            goal = away_from(g, cross_entropy, y)
            along = ascend(goal, x, slice(None))[2].sign()
            across = Noise(ids, seed).integers(2, *x.shape[1:]).float() * 2 - 1
            with torch.no_grad():
                grid = [[cross_entropy(g((x + a * along + b * across).clamp(0, 1)), y) for a in steps] for b in steps]
            # Of shape (points, points, images).
            return torch.stack([torch.stack(row) for row in grid])

        each = examples.each("slice", progress, slices).double()
        middle = each[points // 2]
        # Flat along the gradient: is there one?
        flags = no_gradient(g, *examples.first()[:2]) if (middle == middle[:1]).all() else ()
    if not each.isfinite().all():
        raise ActkitError("the loss is not finite; no result is reported")
    z = each.mean(-1)
    axis = [round(float(step), 6) for step in steps]
    picture = Picture(
        "surface",
        "surface",
        "A slice of the loss around images",
        {
            "x": axis,
            "y": axis,
            "z": z.tolist(),
            "x_label": "along the sign of the gradient",
            "y_label": "along a random sign",
            "z_label": "cross-entropy",
        },
    )
    return Result(
        {"at_the_image": float(z[points // 2, points // 2]), "highest": float(z.max()), "roughness": _roughness(each)},
        columns=(
            Column("highest", f"loss within {eps}", percent=False),
            Column("roughness", "roughness", percent=False),
        ),
        flags=flags,
        pictures=(picture,),
    )


def _roughness(each: Tensor) -> float:
    """The mean over images of the mean absolute second derivative along the gradient; slices of shape (points, points, images)."""
    points = len(each)
    middle = each[points // 2]
    bends = (middle[2:] - 2 * middle[1:-1] + middle[:-2]).abs().mean(0) * ((points - 1) / 2) ** 2
    spread = each.amax((0, 1)) - each.amin((0, 1))
    return float((bends / spread.clamp_min(1e-12)).mean())

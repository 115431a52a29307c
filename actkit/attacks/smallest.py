"""FGSM^k: the smallest linf perturbation, each example searching its own eps."""

from __future__ import annotations

import torch
from torch import Tensor

from actkit.attacks.goals import Goal, ascend
from actkit.attacks.norms import Linf, batch_view
from actkit.errors import InputError


def smallest_perturbation(
    goal: Goal,
    x: Tensor,
    *,
    eps: float = 0.3,
    ratio: float = 1 / 6,
    steps: int = 10,
    growth: float = 1.5,
    tries: int = 20,
) -> tuple[Tensor, Tensor]:
    """FGSM^k as foolbox 1.x and 2.x had it (`LinfinityBasicIterativeAttack` with its binary search), for a whole batch at once.

    Every example runs the basic iterative method (Kurakin et al. 2017), without a random start, in a ball of its own: from `eps` the
    ball grows by `growth` until a run fools the model, at most `tries` times; then `tries` bisections between the last ball that did
    not and the one that did, starting from 0. A run takes at most `steps` steps of `ratio` times its eps and ends where the model is
    fooled. Of all points that fooled the model the nearest to x counts, so the result is at most the last eps, not equal to it.

    Args:
        goal: must tell who has won; an example that has won at x itself has distance 0.

    Returns x_adv (x itself where none was found) and the linf distance of each example, shape (B,), infinite where none was found.
    """
    if eps <= 0 or steps < 1 or tries < 1 or growth <= 1 or ratio <= 0:
        raise InputError("the search needs eps, ratio > 0, growth > 1, and at least 1 step and 1 try")
    x = x.detach()
    _, misclassified, gradient_at_x = ascend(goal, x, slice(None))
    if misclassified is None:
        raise InputError("the smallest perturbation needs a goal that tells who has won")
    best, distance = x.clone(), torch.where(misclassified, 0.0, torch.inf)
    low, high = torch.zeros_like(distance), torch.full_like(distance, torch.inf)
    trial = torch.full_like(distance, eps)
    grown, halved = torch.zeros_like(distance), torch.zeros_like(distance)
    while True:
        searching = ~misclassified & torch.where(high.isinf(), grown < tries, halved < tries)
        rows = searching.nonzero()[:, 0]
        if not len(rows):
            return best, distance
        won = _basic_iterative(goal, x, rows, gradient_at_x, trial, steps, ratio, best, distance)
        grows = high[rows].isinf()
        grown[rows] += (grows & ~won).float()
        halved[rows] += (~grows).float()
        low[rows] = torch.where(~won & ~grows, trial[rows], low[rows])
        high[rows] = torch.where(won, trial[rows], high[rows])
        trial[rows] = torch.where(high[rows].isinf(), trial[rows] * growth, (low[rows] + high[rows]) / 2)


def _basic_iterative(
    goal: Goal,
    x: Tensor,
    rows: Tensor,
    gradient_at_x: Tensor,
    trial: Tensor,
    steps: int,
    ratio: float,
    best: Tensor,
    distance: Tensor,
) -> Tensor:
    """One run of the basic iterative method; `best` and `distance` learn what it finds. Which of the rows have won.

    `gradient_at_x` is the same in every run.
    """
    won = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
    # Of the examples still running, in `rows`.
    place = torch.arange(len(rows), device=x.device)
    x_adv, eps = x[rows], batch_view(trial[rows], x)
    x_adv = Linf.project(x_adv + ratio * eps * Linf.direction(gradient_at_x[rows], x_adv, eps), x_adv, eps)
    for step in range(1, steps + 1):
        present = rows[place]
        if step < steps:
            _, fooled, gradient = ascend(goal, x_adv, present)
        else:
            with torch.no_grad():
                _, fooled = goal(x_adv, present)
        assert fooled is not None
        if fooled.any():
            found, points = present[fooled], x_adv[fooled]
            length = Linf.length(points - x[found])
            nearer = length < distance[found]
            distance[found[nearer]], best[found[nearer]] = length[nearer], points[nearer]
            won[place[fooled]] = True
            place, x_adv, eps = place[~fooled], x_adv[~fooled], eps[~fooled]
            if step < steps:
                gradient = gradient[~fooled]
        if step == steps or not len(place):
            break
        x_adv = Linf.project(x_adv + ratio * eps * Linf.direction(gradient, x, eps), x[rows[place]], eps)
    return won

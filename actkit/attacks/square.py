"""Square Attack: random search, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from actkit.attacks.goals import ActiveSet, Goal
from actkit.attacks.norms import Linf, batch_view, budget_problems, check_budget
from actkit.config.registry import register
from actkit.noise import Noise


def share(query: float, first: float) -> float:
    """The share of pixels that a query changes: `first`, halved at queries 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000."""
    at = int(query)
    return first / 2 ** sum(at > limit for limit in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))


@register("attack", check=budget_problems, title=lambda attack, loss: "Square")
def square(
    goal: Goal, x: Tensor, *, noise: Noise, eps: float, queries: int = 5000, first: float = 0.8, rescale: bool = True
) -> Tensor:
    """Square Attack, linf (Andriushchenko et al. 2020, Algorithms 1 and 2): random search with squares of +-eps that shrink; queries values only.

    It starts from vertical stripes of +-eps. A proposal sets a square to another corner of the ball and is kept where the value
    rises. Every example has its own squares (the released AutoAttack gives all examples of a batch the same). Give the probe the loss 'margin'.

    Args:
        queries: how often the goal is asked, besides once for the start.
        first: the share of pixels in the first squares, p in the paper; AutoAttack's 0.8.
        rescale: fit the schedule of sizes, made for 10,000 queries, to their number, as the paper does; AutoAttack does not.

    Returns the best point, or the first that won; within eps of x and within [0,1]. Raises `InputError` as `pgd` does.
    """
    check_budget(eps=eps, steps=queries)
    x = x.detach()
    _, channels, height, width = x.shape
    with torch.no_grad():
        stripes = noise.integers(2, channels, 1, width) * 2.0 - 1
        x_adv = Linf.project(x + eps * stripes, x, eps)
        active = ActiveSet(x_adv)
        value, fooled = goal(x_adv, active.rows)
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        for query in range(queries):
            if (left := active.drop(fooled, x_adv)) is not None:
                x, x_adv, value, noise = x[left], x_adv[left], value[left], noise[left]
                fooled = fooled[left] if fooled is not None else None
                if not len(left):
                    break
            at = query * 10_000 / queries if rescale else query
            side = min(max(round((share(at, first) * height * width) ** 0.5), 1), height, width)
            top, start = noise.integers(height - side + 1), noise.integers(width - side + 1)
            inside = ((rows >= top[:, None]) & (rows < top[:, None] + side))[:, None, :, None] & (
                (columns >= start[:, None]) & (columns < start[:, None] + side)
            )[:, None, None, :]
            signs = noise.integers(2, channels, 1, 1) * 2.0 - 1
            proposed = Linf.project(torch.where(inside, x_adv + 2 * eps * signs, x_adv), x, eps)
            proposed_value, won = goal(proposed, active.rows)
            better = proposed_value > value
            if won is not None and fooled is not None:
                better, fooled = (better | won) & ~fooled, fooled | won
            x_adv = torch.where(batch_view(better, x), proposed, x_adv)
            value = torch.where(better, proposed_value, value)
    return active.results(x_adv)

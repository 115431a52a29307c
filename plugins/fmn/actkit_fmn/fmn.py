from __future__ import annotations

import math

import torch

from actkit import InputError, Norm, ascend, norm_named, register

# By norm, the order of the dual one, in which the gradient says how far the border is.
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


def problems(*, eps: float, steps: int, step_size: float, gamma: float, norm: str):
    if norm not in DUAL:
        yield "norm", InputError(f"FMN searches in {', '.join(DUAL)}, not in {norm}")
    if not eps >= 0:
        yield "eps", InputError(f"eps must not be negative, got {eps}")
    if steps < 1:
        yield "steps", InputError(f"an attack needs at least 1 step, got {steps}")
    if not step_size > 0:
        yield "step_size", InputError(f"step_size must be above 0, got {step_size}")
    if not 0 < gamma < 1:
        yield "gamma", InputError(f"gamma must lie between 0 and 1, got {gamma}")


@register("attack", check=problems, title=lambda attack, loss: "FMN")
def fmn(
    goal, x, *, noise, eps: float, steps: int = 100, step_size: float = 1.0, gamma: float = 0.05, norm: Norm = "linf"
):
    """FMN: the smallest perturbation within eps in l1, l2 or linf (Pintor et al. 2021), from x itself.

    The ball's radius is where a linear model would have its border, value / |gradient|, until the model is fooled; then `gamma` smaller where it is and
    `gamma` larger where it is not. Each step moves along the gradient's l2 direction, then projects. Both `step_size` and `gamma` fall by a cosine, to a
    hundredth of the one and to 0.001. Give it a value that is 0 at the border: the loss 'margin'.

    Returns the nearest point that fooled the model, or x where none did or x itself does. Raises `InputError` where the goal does not tell who has won.
    """
    ball, l2, x = norm_named(norm), norm_named("l2"), x.detach()
    radius, delta = x.new_full((len(x),), float(eps)), torch.zeros_like(x)
    best, nearest = x.clone(), x.new_full((len(x),), math.inf)
    for step in range(steps + 1):
        x_adv = x + delta
        value, fooled, gradient = ascend(goal, x_adv, slice(None))
        if fooled is None:
            raise InputError(
                "attack.fmn needs a goal that tells who has won",
                help="the probes smallest, and robust_accuracy with mode = 'worst_case', do",
            )
        distance = ball.length(delta)
        nearer = fooled & (distance < nearest)
        best[nearer], nearest[nearer] = x_adv[nearer], distance[nearer]
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        shrink = 0.001 + (gamma - 0.001) * falling
        slope = torch.linalg.vector_norm(gradient.flatten(1), DUAL[norm], dim=1).clamp_min(1e-12)
        border = torch.where(nearest.isinf(), distance + value.abs() / slope, radius * (1 + shrink))
        radius = torch.where(fooled, (radius * (1 - shrink)).minimum(nearest), border).clamp_max(float(eps))
        moved = x_adv + step_size * (0.01 + 0.99 * falling) * l2.direction(gradient, x, eps)
        delta = ball.project(moved, x, radius.view(-1, 1, 1, 1)) - x
    return best

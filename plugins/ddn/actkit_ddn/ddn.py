from __future__ import annotations

import math

import torch

from actkit import InputError, Norm, ascend, norm_named, register


def problems(*, eps: float, steps: int, gamma: float, norm: str):
    if norm != "l2":
        yield "norm", InputError(f"DDN searches in l2 alone, not in {norm}")
    if not eps >= 0:
        yield "eps", InputError(f"eps must not be negative, got {eps}")
    if steps < 1:
        yield "steps", InputError(f"an attack needs at least 1 step, got {steps}")
    if not 0 < gamma < 1:
        yield "gamma", InputError(f"gamma must lie between 0 and 1, got {gamma}")


@register("attack", check=problems, title=lambda attack, loss: "DDN")
def ddn(goal, x, *, noise, eps: float, steps: int = 100, gamma: float = 0.05, norm: Norm = "l2"):
    """DDN: the smallest l2 perturbation within eps (Rony et al. 2019), by decoupling its direction from its length.

    Each step moves along the gradient, the step size falling from 1 to 0.01 by a cosine, and then sets the length: `gamma` shorter where x_adv fools the
    model, `gamma` longer where it does not, from min(1, eps) on. As published but for the rounding to 256 levels, which it leaves out.

    Returns the nearest point that fooled the model, or x where none did or x itself does. Raises `InputError` where the goal does not tell who has won.
    """
    l2, x = norm_named("l2"), x.detach()
    length, delta = x.new_full((len(x),), min(1.0, float(eps))), torch.zeros_like(x)
    best, nearest = x.clone(), x.new_full((len(x),), math.inf)
    for step in range(steps + 1):
        x_adv = l2.project(x + delta, x, eps)
        _, fooled, gradient = ascend(goal, x_adv, slice(None))
        if fooled is None:
            raise InputError(
                "attack.ddn needs a goal that tells who has won",
                help="the probes smallest, and robust_accuracy with mode = 'worst_case', do",
            )
        distance = l2.length(x_adv - x)
        nearer = fooled & (distance < nearest)
        best[nearer], nearest[nearer] = x_adv[nearer], distance[nearer]
        step_size = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        delta = x_adv - x + step_size * l2.direction(gradient, x, eps)
        length = (length * torch.where(fooled, 1 - gamma, 1 + gamma)).clamp_max(float(eps))
        delta = delta * (length / l2.length(delta).clamp_min(1e-12)).view(-1, 1, 1, 1)
    return best

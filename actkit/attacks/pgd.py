"""Projected gradient descent, and the fast gradient sign method as its first step."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from actkit.attacks.goals import ActiveSet, Goal, ascend, with_loss
from actkit.attacks.norms import batch_view, budget_problems, check_budget, setting
from actkit.config.norm import Norm, norm_named
from actkit.config.registry import register
from actkit.findings import Threat
from actkit.noise import Noise


def _pgd_title(attack: Any, loss: str) -> str:
    return with_loss(f"PGD-{setting(attack, 'steps')}", loss)


@register("attack", check=budget_problems, title=_pgd_title)
def pgd(
    goal: Goal,
    x: Tensor,
    *,
    noise: Noise,
    eps: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    start: Literal["uniform", "gaussian", "none"] = "uniform",
    start_std: float = 0.001,
    clip_start: bool = True,
) -> Tensor:
    """Projected gradient ascent, last iterate (Madry et al. 2018).

    Each step moves along the gradient's sign (linf), direction (l2) or largest components (l1), as the norm says, then projects onto the eps-ball around x and onto [0,1]. Where the goal
    tells who has won, those stay where they won.

    Args:
        start: uniform in the ball; Gaussian of deviation `start_std` (TRADES and ACT's released code); or x itself.
        clip_start: whether the first point is projected too; the released ACT code does not. Where it is not, the first gradient is taken there, but
            nobody wins there who would not have won within the threat model.

    Returns x_adv, detached, within eps of x and within [0,1]. Raises `InputError` for an eps below 0 or (linf) above 1 or steps below 1.
    """
    check_budget(eps=eps, step_size=step_size, steps=steps, norm=norm)
    ball = norm_named(norm)
    x_adv = x.detach()
    if start == "uniform":
        x_adv = x + eps * ball.uniform(noise, x)
    elif start == "gaussian":
        x_adv = x + start_std * noise.normal(*x.shape[1:])
    if clip_start:
        x_adv = ball.project(x_adv, x, eps)
    active = ActiveSet(x_adv)
    for step in range(steps):
        _, fooled, gradient = ascend(goal, x_adv, active.rows)
        moved = ball.project(x_adv + step_size * ball.direction(gradient, x, eps), x, eps)
        if step == 0 and not clip_start and fooled is not None:
            # What fools the model from outside is no adversarial example; what does from inside is kept there to the last bit.
            fooled = fooled & Threat(norm, eps).allows(x_adv, x)
            x_adv = ball.project(x_adv, x, eps)
        x_adv = moved if fooled is None else torch.where(batch_view(fooled, x), x_adv, moved)
        if (left := active.drop(fooled, x_adv)) is not None:
            x, x_adv = x[left], x_adv[left]
            if not len(left):
                break
    return active.results(x_adv)


@register("attack", check=budget_problems, title=lambda attack, loss: with_loss("FGSM", loss))
def fgsm(goal: Goal, x: Tensor, *, noise: Noise, eps: float, norm: Norm = "linf") -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): one step of length eps from x itself, in the norm's direction."""
    return pgd(goal, x, noise=noise, eps=eps, step_size=eps, steps=1, norm=norm, start="none")

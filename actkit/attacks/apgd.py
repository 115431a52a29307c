"""Auto-PGD: a step size that adapts itself."""

from __future__ import annotations

import torch
from torch import Tensor

from actkit.attacks.goals import ActiveSet, Goal, ascend
from actkit.attacks.norms import NORMS, Norm, batch_view, budget_problems, check_budget
from actkit.config.registry import register
from actkit.noise import Noise


def checkpoints(steps: int) -> list[int]:
    """The numbers of steps after which the step size is looked at (Croce and Hein 2020, section 3.2): the first time after 22 %, then
    at distances that shrink by 3 % down to 6 %."""
    gap, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found, at = [], gap
    while at <= steps:
        found.append(at)
        gap = max(gap - shrink, least)
        at += gap
    return found


@register("attack", check=budget_problems)
def apgd(
    goal: Goal, x: Tensor, *, noise: Noise, eps: float, steps: int = 100, norm: Norm = "linf", rho: float = 0.75
) -> Tensor:
    """Auto-PGD (Croce and Hein 2020, Algorithm 1): momentum, and a step size that starts at 2 eps and is halved where progress stalls.

    At each of its `checkpoints` an example whose value rose in at most `rho` of the steps since the last one, or whose best value has not
    changed while the step size has not either, goes back to its best point with half the step size. The start is uniform in
    direction, on the ball's surface, as in the authors' code. Give the probe the loss 'cross_entropy' for APGD-CE and 'targeted_dlr' for
    APGD-T.

    Returns the point of the highest value, or, where the goal tells who has won, the point that won; detached, within eps of x and within
    [0,1]. Raises `InputError` as `pgd` does.
    """
    check_budget(eps=eps, steps=steps, norm=norm)
    ball, momentum = NORMS[norm], 0.75
    x = x.detach()
    x_adv = ball.project(x + eps * ball.sphere(noise, x), x, eps)
    active, looks, previous = ActiveSet(x_adv), checkpoints(steps), 0
    value, fooled, gradient = ascend(goal, x_adv, active.rows)
    s = {  # the state of each example
        "x": x, "x_adv": x_adv, "before": x_adv, "gradient": gradient, "value": value,
        "best": x_adv, "best_gradient": gradient, "best_value": value,
        "step": batch_view(torch.full_like(value, 2 * eps), x), "rises": torch.zeros_like(value),
        "checked_value": value, "halved": torch.ones_like(value, dtype=torch.bool),
    }  # fmt: skip
    if (left := active.drop(fooled, x_adv)) is not None:
        s = {name: state[left] for name, state in s.items()}
        fooled = fooled[left] if fooled is not None else None
    for step in range(1, steps + 1):
        if not len(s["x"]):
            break
        at, inertia = s["x_adv"], (1 - momentum) if step > 1 else 0.0
        moved = ball.project(at + s["step"] * ball.direction(s["gradient"]), s["x"], eps)
        moved = ball.project(at + (1 - inertia) * (moved - at) + inertia * (at - s["before"]), s["x"], eps)
        if fooled is not None:
            moved = torch.where(batch_view(fooled, x), at, moved)  # who has won stays there
        value, fooled, gradient = ascend(goal, moved, active.rows)
        s["before"], s["x_adv"], s["gradient"] = at, moved, gradient
        s["rises"] = s["rises"] + (value > s["value"])
        s["value"] = value
        better = (value > s["best_value"]) | value.isnan()  # what is no number must be noticed, not passed over
        better = better if fooled is None else better | fooled
        s["best"] = torch.where(batch_view(better, x), moved, s["best"])
        s["best_gradient"] = torch.where(batch_view(better, x), gradient, s["best_gradient"])
        s["best_value"] = torch.where(better, value, s["best_value"])
        if step in looks:
            stalled = s["rises"] <= rho * (step - previous)
            stuck = ~s["halved"] & (s["checked_value"] >= s["best_value"])
            halve = stalled | stuck
            if fooled is not None:
                halve = halve & ~fooled
            s["halved"], s["checked_value"], s["rises"] = halve, s["best_value"], torch.zeros_like(s["rises"])
            s["step"] = torch.where(batch_view(halve, x), s["step"] / 2, s["step"])
            s["x_adv"] = torch.where(batch_view(halve, x), s["best"], s["x_adv"])
            s["gradient"] = torch.where(batch_view(halve, x), s["best_gradient"], s["gradient"])
            previous = step
        if (left := active.drop(fooled, s["best"])) is not None:
            s = {name: state[left] for name, state in s.items()}
            fooled = fooled[left] if fooled is not None else None
    return active.results(s["best"])

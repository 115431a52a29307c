"""Auto-PGD: a step size that adapts itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actkit.attacks.goals import LOSS_TITLES, ActiveSet, Goal, ascend
from actkit.attacks.norms import batch_view, budget_problems, check_budget
from actkit.config.norm import Norm, norm_named
from actkit.config.registry import register
from actkit.noise import Noise

# alpha of Algorithm 1: the share of the new step, the rest being the step before.
MOMENTUM = 0.75


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


@dataclass(frozen=True)
class _State:
    """Where each example of the batch is: images of shape (B, C, H, W), values and flags of shape (B,)."""

    x: Tensor
    x_adv: Tensor
    x_before: Tensor
    gradient: Tensor
    value: Tensor
    # None where the goal does not tell.
    fooled: Tensor | None
    x_best: Tensor
    best_gradient: Tensor
    best_value: Tensor
    # Of shape (B, 1, 1, 1).
    step_size: Tensor
    # In how many steps since the last checkpoint the value rose.
    rises: Tensor
    # The best value at the last checkpoint, and whether the step size was halved there.
    checked_value: Tensor
    halved: Tensor

    def __getitem__(self, rows: Tensor) -> _State:
        """Some of the examples."""
        tensors: dict[str, Any] = {name: None if state is None else state[rows] for name, state in vars(self).items()}
        return _State(**tensors)


@register("attack", check=budget_problems, title=lambda attack, loss: f"APGD-{LOSS_TITLES[loss]}")
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
    x = x.detach()
    ball = norm_named(norm)
    x_adv = ball.project(x + eps * ball.sphere(noise, x), x, eps)
    active, looks, previous = ActiveSet(x_adv), checkpoints(steps), 0
    state = _begin(goal, x, x_adv, active, eps)
    if (left := active.drop(state.fooled, x_adv)) is not None:
        state = state[left]
    for step in range(1, steps + 1):
        if not len(state.x):
            break
        x_next = _next_point(state, norm, eps, inertia=(1 - MOMENTUM) if step > 1 else 0.0)
        state = _evaluate(state, x_next, *ascend(goal, x_next, active.rows))
        if step in looks:
            state = _halve_where_stalled(state, rho * (step - previous))
            previous = step
        if (left := active.drop(state.fooled, state.x_best)) is not None:
            state = state[left]
    return active.results(state.x_best)


def _begin(goal: Goal, x: Tensor, x_adv: Tensor, active: ActiveSet, eps: float) -> _State:
    value, fooled, gradient = ascend(goal, x_adv, active.rows)
    return _State(
        x=x,
        x_adv=x_adv,
        x_before=x_adv,
        gradient=gradient,
        value=value,
        fooled=fooled,
        x_best=x_adv,
        best_gradient=gradient,
        best_value=value,
        step_size=batch_view(torch.full_like(value, 2 * eps), x),
        rises=torch.zeros_like(value),
        checked_value=value,
        halved=torch.ones_like(value, dtype=torch.bool),
    )


def _next_point(state: _State, norm: Norm, eps: float, *, inertia: float) -> Tensor:
    """A step along the gradient, and `inertia` times the step before. Who has won stays there."""
    ball, x_adv = norm_named(norm), state.x_adv
    moved = ball.project(x_adv + state.step_size * ball.direction(state.gradient, state.x, eps), state.x, eps)
    moved = ball.project(x_adv + (1 - inertia) * (moved - x_adv) + inertia * (x_adv - state.x_before), state.x, eps)
    return moved if state.fooled is None else torch.where(batch_view(state.fooled, x_adv), x_adv, moved)


def _evaluate(state: _State, x_next: Tensor, value: Tensor, fooled: Tensor | None, gradient: Tensor) -> _State:
    """The state at the next point, whose value and gradient are given; it is the best one where the value rose, or where it won."""
    # What is no number must be noticed, not passed over.
    better = (value > state.best_value) | value.isnan()
    better = better if fooled is None else better | fooled
    return dataclasses.replace(
        state,
        x_adv=x_next,
        x_before=state.x_adv,
        gradient=gradient,
        value=value,
        fooled=fooled,
        x_best=torch.where(batch_view(better, x_next), x_next, state.x_best),
        best_gradient=torch.where(batch_view(better, x_next), gradient, state.best_gradient),
        best_value=torch.where(better, value, state.best_value),
        rises=state.rises + (value > state.value),
    )


def _halve_where_stalled(state: _State, enough_rises: float) -> _State:
    """At a checkpoint (conditions 1 and 2 of section 3.2): back to the best point with half the step size."""
    stalled = state.rises <= enough_rises
    stuck = ~state.halved & (state.checked_value >= state.best_value)
    halve = stalled | stuck
    if state.fooled is not None:
        halve = halve & ~state.fooled
    of_images = batch_view(halve, state.x)
    return dataclasses.replace(
        state,
        x_adv=torch.where(of_images, state.x_best, state.x_adv),
        gradient=torch.where(of_images, state.best_gradient, state.gradient),
        step_size=torch.where(of_images, state.step_size / 2, state.step_size),
        rises=torch.zeros_like(state.rises),
        checked_value=state.best_value,
        halved=halve,
    )

"""Attacks: functions of a goal and an input; they never see a model or labels.

`goal(x, rows) -> value, fooled` gives, for the examples `rows` of the batch (an index tensor or a slice) at the inputs x, the value
to maximise, shape (len(x),), and whether the attacker has already won, or None where nobody asks. Inputs are images in [0,1] of shape
(B, C, H, W), eps and step_size are in the same unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from actkit.errors import InputError
from actkit.losses import cross_entropy
from actkit.noise import Noise
from actkit.registry import register

Rows = Tensor | slice
Goal = Callable[[Tensor, Rows], tuple[Tensor, Tensor | None]]


def untargeted(model: Callable[[Tensor], Tensor], y: Tensor) -> Goal:
    """The goal of an untargeted attack: raise the cross-entropy; it has won where the prediction is not y."""

    def goal(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return cross_entropy(logits, y[rows]), logits.argmax(1) != y[rows]

    return goal


def away_from(model: Callable[[Tensor], Tensor], loss: Callable[[Tensor, Rows], Tensor]) -> Goal:
    """The goal of training: raise `loss(logits, rows)`, whatever it is."""
    return lambda x, rows: (loss(model(x), rows), None)


@register("attack")
def pgd(
    goal: Goal,
    x: Tensor,
    *,
    noise: Noise,
    eps: float,
    step_size: float,
    steps: int,
    norm: Literal["linf", "l2"] = "linf",
    start: Literal["uniform", "gaussian", "none"] = "uniform",
    start_std: float = 0.001,
    clip_start: bool = True,
) -> Tensor:
    """Projected gradient ascent, last iterate (Madry et al. 2018).

    Each step moves along the gradient's sign (linf) or direction (l2), then projects onto the eps-ball around x and onto [0,1].

    Args:
        start: uniform in the ball; Gaussian of deviation `start_std` (TRADES and ACT's released code); or x itself.
        clip_start: whether the first point is projected too; the released ACT code does not.

    Returns x_adv, detached, within eps of x and within [0,1]. Raises `InputError` for a negative eps or steps below 1.
    """
    check_budget(eps=eps, step_size=step_size, steps=steps)
    moves = _MOVES[norm]
    x_adv = x.detach()
    if start == "uniform":
        x_adv = x + eps * moves.uniform(noise, x)
    elif start == "gaussian":
        x_adv = x + start_std * noise.normal(*x.shape[1:])
    if clip_start:
        x_adv = moves.project(x_adv, x, eps)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        value, _ = goal(x_adv, slice(None))
        (gradient,) = torch.autograd.grad(value.sum(), x_adv)
        x_adv = moves.project(x_adv.detach() + step_size * moves.direction(gradient), x, eps)
    return x_adv.detach()


def check_budget(*, eps: float, step_size: float, steps: int) -> None:
    if eps < 0:
        raise InputError(f"eps must not be negative, got {eps}", help="eps is in [0,1] pixels: 8/255 is about 0.031")
    if step_size < 0:
        raise InputError(f"step_size must not be negative, got {step_size}")
    if steps < 1:
        raise InputError(f"an attack needs at least 1 step, got {steps}")


class _Linf:
    @staticmethod
    def uniform(noise: Noise, x: Tensor) -> Tensor:
        return noise.uniform(*x.shape[1:], low=-1.0, high=1.0)

    @staticmethod
    def direction(gradient: Tensor) -> Tensor:
        return gradient.sign()

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        return torch.clamp(x_adv, x - eps, x + eps).clamp(0, 1)


class _L2:
    @staticmethod
    def _length(v: Tensor) -> Tensor:
        return v.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (v.dim() - 1))

    @classmethod
    def uniform(cls, noise: Noise, x: Tensor) -> Tensor:
        direction = noise.normal(*x.shape[1:])
        radius = noise.uniform() ** (1 / x[0].numel())
        return direction / cls._length(direction) * radius.view(-1, *[1] * (x.dim() - 1))

    @classmethod
    def direction(cls, gradient: Tensor) -> Tensor:
        return gradient / cls._length(gradient)

    @classmethod
    def project(cls, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        delta = x_adv - x
        # Clamping moves each pixel towards x, which lies in [0,1], so the result stays in the ball.
        return (x + delta * (eps / cls._length(delta)).clamp_max(1)).clamp(0, 1)


_MOVES: dict[str, type[_Linf] | type[_L2]] = {"linf": _Linf, "l2": _L2}

"""The balls in which attacks move, linf and l2, and the budget that a recipe gives them."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from actkit.errors import InputError, raise_first
from actkit.findings import Threat, length
from actkit.noise import Noise

# Of shape (B, 1, 1, 1) where each example has its own.
Eps = float | Tensor


class Linf:
    @staticmethod
    def length(v: Tensor) -> Tensor:
        """The norm of each example, shape (B,)."""
        return length("linf", v)

    @staticmethod
    def uniform(noise: Noise, x: Tensor) -> Tensor:
        """Uniform in the ball of radius 1."""
        return noise.uniform(*x.shape[1:], low=-1.0, high=1.0)

    @classmethod
    def sphere(cls, noise: Noise, x: Tensor) -> Tensor:
        """On the sphere of radius 1."""
        inside = cls.uniform(noise, x)
        return inside / batch_view(cls.length(inside), x)

    @staticmethod
    def direction(gradient: Tensor) -> Tensor:
        """The step of length 1 along which a linear function rises most. A gradient that is no number stays none, so that it is noticed."""
        return torch.where(gradient.isnan(), gradient, gradient.sign())

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: Eps) -> Tensor:
        """The nearest point of the eps-ball around x and of [0,1]."""
        return torch.clamp(x_adv, x - eps, x + eps).clamp(0, 1)


class L2:
    @staticmethod
    def length(v: Tensor) -> Tensor:
        return length("l2", v)

    @classmethod
    def uniform(cls, noise: Noise, x: Tensor) -> Tensor:
        return cls.sphere(noise, x) * batch_view(noise.uniform() ** (1 / x[0].numel()), x)

    @classmethod
    def sphere(cls, noise: Noise, x: Tensor) -> Tensor:
        return cls.direction(noise.normal(*x.shape[1:]))

    @classmethod
    def direction(cls, gradient: Tensor) -> Tensor:
        # Scaled first, so that no square of a small gradient vanishes.
        largest = batch_view(Linf.length(gradient), gradient)
        scaled = gradient / torch.where(largest == 0, 1, largest)
        return scaled / batch_view(cls.length(scaled).clamp_min(1e-12), gradient)

    @classmethod
    def project(cls, x_adv: Tensor, x: Tensor, eps: Eps) -> Tensor:
        delta = x_adv - x
        # Clamping moves each pixel towards x, which lies in [0,1], so the result stays in the ball.
        return (x + delta * (eps / batch_view(cls.length(delta).clamp_min(1e-12), x)).clamp_max(1)).clamp(0, 1)


NORMS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}


def batch_view(values: Tensor, x: Tensor) -> Tensor:
    """Shape (B,) as (B, 1, 1, 1), to go with images."""
    return values.view(-1, *[1] * (x.dim() - 1))


def threat(attack: Any) -> Threat:
    """The threat model of a built attack. Raises `InputError` when it cannot be told."""
    eps, norm = setting(attack, "eps"), setting(attack, "norm", "linf")
    if eps is None or norm not in NORMS:
        raise InputError("the attack does not say its eps", help="give it as functools.partial(attack, eps=...)")
    return Threat(norm, eps)


def setting(attack: Any, name: str, default: Any = None) -> Any:
    """A hyper-parameter of a built attack, whether it was given or not."""
    if isinstance(attack, functools.partial) and name in attack.keywords:
        return attack.keywords[name]
    function: Callable[..., Any] = attack.func if isinstance(attack, functools.partial) else attack
    found = inspect.signature(function).parameters.get(name)
    if found is not None and found.default is not inspect.Parameter.empty:
        return found.default
    # An attribute, where the attack is a class.
    return getattr(attack, name, default)


def budget_problems(
    *, eps: float, norm: str = "linf", step_size: float = 0.0, steps: int = 1
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with an attack's budget: pairs of the parameter and the error."""
    if not (eps >= 0 and math.isfinite(eps)):
        yield (
            "eps",
            InputError(f"eps must not be negative, got {eps}", help="eps is in [0,1] pixels: 8/255 is about 0.031"),
        )
    elif norm == "linf" and eps > 1:
        grey = f"'{eps:g}/255'" if eps <= 255 else "a fraction such as '8/255'"
        yield "eps", InputError(f"eps must not be above 1, got {eps}", help=f"eps is in [0,1] pixels; perhaps {grey}?")
    if not (step_size >= 0 and math.isfinite(step_size)):
        yield "step_size", InputError(f"step_size must not be negative, got {step_size}")
    if steps < 1:
        yield "steps", InputError(f"an attack needs at least 1 step, got {steps}")


def check_budget(**budget: Any) -> None:
    """Raises the first of `budget_problems`."""
    raise_first(budget_problems(**budget))

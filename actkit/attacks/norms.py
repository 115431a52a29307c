"""The balls in which attacks move, linf, l2 and l1, and the budget that a recipe gives them."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from actkit.config.norm import norm_named
from actkit.config.registry import register
from actkit.errors import InputError, raise_first
from actkit.findings import Threat
from actkit.noise import Noise

# Of shape (B, 1, 1, 1) where each example has its own.
Eps = float | Tensor


@register("norm", "linf")
class Linf:
    """The largest change of a pixel: every pixel may change by eps."""

    @staticmethod
    def length(v: Tensor) -> Tensor:
        """The norm of each example, shape (B,)."""
        return v.flatten(1).abs().amax(1)

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
    def direction(gradient: Tensor, x: Tensor, eps: Eps) -> Tensor:
        """The step of length 1 along which a linear function rises most. A gradient that is no number stays none, so that it is noticed."""
        return torch.where(gradient.isnan(), gradient, gradient.sign())

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: Eps) -> Tensor:
        """The nearest point of the eps-ball around x and of [0,1]."""
        return torch.clamp(x_adv, x - eps, x + eps).clamp(0, 1)


@register("norm", "l2")
class L2:
    """The Euclidean length of the change."""

    @staticmethod
    def length(v: Tensor) -> Tensor:
        return v.flatten(1).norm(dim=1)

    @classmethod
    def uniform(cls, noise: Noise, x: Tensor) -> Tensor:
        return cls.sphere(noise, x) * batch_view(noise.uniform() ** (1 / x[0].numel()), x)

    @classmethod
    def sphere(cls, noise: Noise, x: Tensor) -> Tensor:
        return cls._unit(noise.normal(*x.shape[1:]))

    @classmethod
    def direction(cls, gradient: Tensor, x: Tensor, eps: Eps) -> Tensor:
        return cls._unit(gradient)

    @classmethod
    def _unit(cls, v: Tensor) -> Tensor:
        # Scaled first, so that no square of a small gradient vanishes.
        scaled = _scaled(v)
        return scaled / batch_view(cls.length(scaled).clamp_min(1e-12), v)

    @classmethod
    def project(cls, x_adv: Tensor, x: Tensor, eps: Eps) -> Tensor:
        delta = x_adv - x
        # Clamping moves each pixel towards x, which lies in [0,1], so the result stays in the ball.
        return (x + delta * (eps / batch_view(cls.length(delta).clamp_min(1e-12), x)).clamp_max(1)).clamp(0, 1)


@register("norm", "l1")
class L1:
    """The sum of the changes of all pixels: few pixels may change much."""

    @staticmethod
    def length(v: Tensor) -> Tensor:
        return v.flatten(1).abs().sum(1)

    @classmethod
    def uniform(cls, noise: Noise, x: Tensor) -> Tensor:
        return cls.sphere(noise, x) * batch_view(noise.uniform() ** (1 / x[0].numel()), x)

    @classmethod
    def sphere(cls, noise: Noise, x: Tensor) -> Tensor:
        """Uniform: Laplace variables over the sum of their sizes."""
        signed = noise.uniform(*x.shape[1:], low=-1.0, high=1.0)
        laplace = -signed.sign() * torch.log1p(-signed.abs())
        return laplace / batch_view(cls.length(laplace), x)

    @classmethod
    def direction(cls, gradient: Tensor, x: Tensor, eps: Eps) -> Tensor:
        """Along the gradient's largest components alone, divided by the sum of their sizes.

        Steepest in l1 is the one largest component, which stands still at once where its pixel reaches 0 or 1; released attacks move a share of the
        pixels (SLIDE, Tramer and Boneh 2019; APGD in l1, Croce and Hein 2021, who adapt the share). Here they are as many as the steepest step within the
        ball and [0,1] changes (Croce and Hein 2021, section 3): from the largest on, each as far as [0,1] lets it, until eps is used up. Where a single
        pixel has room for all of eps, it is the one largest component. So the maximum of a linear function is where the steps end.
        """
        flat, at = gradient.flatten(1), x.flatten(1)
        order = flat.abs().argsort(dim=1, descending=True, stable=True)
        room = torch.where(flat > 0, 1 - at, torch.where(flat < 0, at, 0)).gather(1, order)
        radius = eps.view(-1, 1) if isinstance(eps, Tensor) else eps
        needed = (room.cumsum(1) - room < radius).scatter(1, order, room.cumsum(1) - room < radius)
        kept = _scaled(torch.where(needed | flat.isnan(), flat, 0).view_as(gradient))
        return kept / batch_view(cls.length(kept).clamp_min(1e-12), gradient)

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: Eps) -> Tensor:
        """The nearest point of both sets at once (Croce and Hein 2021, Proposition 2.1): each change shrinks by the same amount, which sorting finds.

        With changes a and room r to the border of [0,1], t_j(s) = min(max(a_j - s, 0), r_j), where s is the least that brings their sum to eps. The sum is
        piecewise linear in s: it falls by 1 a pixel between a_j - r_j and a_j.
        """
        delta = (x_adv - x).flatten(1).double()
        at, change = x.flatten(1).double(), delta.abs()
        room = torch.where(delta > 0, 1 - at, at)
        radius = batch_view(eps, at).double() if isinstance(eps, Tensor) else torch.full_like(at[:, :1], eps)
        bends, order = torch.cat([(change - room).clamp_min(0).minimum(change), change], 1).sort(dim=1)
        slopes = torch.cat([-torch.ones_like(change), torch.ones_like(change)], 1).gather(1, order).cumsum(1)
        # The sum at each bend: what it is unshrunk, and what it has fallen by from bend to bend.
        whole = change.minimum(room).sum(1, keepdim=True)
        gaps = bends.diff(dim=1)
        sums = torch.cat([whole, whole + (slopes[:, :-1] * gaps).cumsum(1)], 1)
        before = ((sums > radius).sum(1, keepdim=True) - 1).clamp_min(0)
        excess = (sums.gather(1, before) - radius) / -slopes.gather(1, before).clamp_max(-1)
        shrink = torch.where(whole > radius, bends.gather(1, before) + excess, 0)
        moved = at + delta.sign() * (change - shrink).clamp_min(0).minimum(room)
        moved = torch.where(radius > 0, torch.where(delta.isnan(), delta, moved), at)
        return moved.view_as(x).to(x.dtype).clamp(0, 1)


def _scaled(v: Tensor) -> Tensor:
    """Each example divided by its largest component."""
    largest = batch_view(Linf.length(v), v)
    return v / torch.where(largest == 0, 1, largest)


def batch_view(values: Tensor, x: Tensor) -> Tensor:
    """Shape (B,) as (B, 1, 1, 1), to go with images."""
    return values.view(-1, *[1] * (x.dim() - 1))


def threat(attack: Any) -> Threat:
    """The threat model of a built attack. Raises `InputError` when it cannot be told."""
    eps, norm = setting(attack, "eps"), setting(attack, "norm", "linf")
    if eps is None:
        raise InputError("the attack does not say its eps", help="give it as functools.partial(attack, eps=...)")
    norm_named(norm)
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
    try:
        norm_named(norm)
    except InputError as error:
        yield "norm", error
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

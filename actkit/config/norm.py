"""Norms by name: what one must offer to attacks and probes, and which there are. No torch: what reads results names norms without it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Protocol

from actkit.config import registry
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from actkit.noise import Noise

# Of a parameter: the name of a registered norm, `norm: Norm = "linf"`.
Norm = Annotated[str, registry.NameOf("norm")]


class Ball(Protocol):
    """What a norm offers: how long a perturbation is, and how an attack moves in its ball. x: images in [0,1], shape (B, C, H, W).

    `eps` is a number, or of shape (B, 1, 1, 1) where each example has its own.
    """

    def length(self, v: Tensor) -> Tensor:
        """The norm of each example of v, shape (B,); infinite for what no eps allows, such as a change outside a patch."""

    def uniform(self, noise: Noise, x: Tensor) -> Tensor:
        """Perturbations of x, of its shape, drawn from the ball of radius 1."""

    def sphere(self, noise: Noise, x: Tensor) -> Tensor:
        """Perturbations of length 1."""

    def direction(self, gradient: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
        """The step of length at most 1 by which an attack climbs in the eps-ball around x. A gradient that is no number stays none, so that it is noticed."""

    def project(self, x_adv: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
        """The nearest point of the eps-ball around x and of [0,1]; x itself where eps is 0."""


def norm_named(name: str) -> Ball:
    """The norm that is registered under a name. Raises `InputError`, with the nearest name and what there is, where there is none."""
    if not registry.has(f"norm.{name}"):
        raise InputError(f"there is no norm {name!r}", help=_what_there_is(name))
    return _made(registry.get(f"norm.{name}"))


def norm_names() -> list[str]:
    """Every norm that there is, plugins' included."""
    return [entry.name for entry in registry.entries("norm")]


def _what_there_is(name: str) -> str:
    near, known = nearest(name, norm_names(), listing=False), ", ".join(norm_names())
    return f"{near}  (there is {known})" if near else f"there is {known}"


@functools.cache
def _by_target(target: type[Ball]) -> Ball:
    return target()


def _made(entry: registry.Entry) -> Ball:
    """The one instance of a norm's class."""
    made: Ball = _by_target(entry.target)
    return made

"""A network's names and shapes without memory behind them, and which of its sizes the data decide: classes, channels, the image's size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actkit.errors import InputError
from actkit.networks.building import asks_for_image_size, initialise

Size = Literal["num_classes", "in_chans", "image_size"]


@dataclass(frozen=True)
class Open:
    """A dimension that the data decide: `factor` times so many classes (or channels), and `offset`."""

    size: Size
    factor: int = 1
    offset: int = 0

    def solve(self, length: int) -> int | None:
        """How many classes (or channels) a dimension of this length stands for; None where it can be of none."""
        number, rest = divmod(length - self.offset, self.factor)
        return number if number >= 1 and not rest else None


@dataclass(frozen=True)
class Shapes:
    """Names and shapes of a backbone's state dict, for a number of classes that is not known yet.

    Args:
        own: the state dict for some sizes, on the device 'meta'.
        open: by name, the dimensions that the data decide. Those of the image's size have no equation: any length fits.
        in_chans: of `own`: the number of channels of a network that can be built for one alone.
    """

    own: dict[str, Tensor]
    open: dict[str, dict[int, Open]]
    in_chans: int | None = None

    def needed(self) -> list[str]:
        """What a file must hold; batch counters, which old files lack, can be added."""
        return [name for name in self.own if not name.endswith("num_batches_tracked")]

    def fits(self, name: str, shape: Iterable[int]) -> bool:
        """Whether a tensor of this shape can be this entry, the open dimensions having any length. A matrix may stand for a 1x1 convolution."""
        given, wanted = tuple(shape), tuple(self.own[name].shape)
        if len(given) == 2 and len(wanted) == 4 and wanted[2:] == (1, 1):
            given = (*given, 1, 1)
        free = self.open.get(name, {})
        return len(given) == len(wanted) and all(
            self._fits(free.get(i), length, wanted[i]) for i, length in enumerate(given)
        )

    @staticmethod
    def _fits(free: Open | None, length: int, wanted: int) -> bool:
        if free is None:
            return length == wanted
        return free.size == "image_size" or free.solve(length) is not None

    def shown(self, name: str) -> str:
        """A shape in words: (num_classes, 512)."""
        free = self.open.get(name, {})
        parts = [free[i].size if i in free else str(length) for i, length in enumerate(self.own[name].shape)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def sizes(self, size: Size, found: Mapping[str, Tensor]) -> dict[str, int]:
        """How many classes (or channels) each of these entries, under our names, stands for."""
        solved: dict[str, int] = {}
        for name, value in found.items():
            for dim, free in self.open.get(name, {}).items():
                if free.size == size and (number := free.solve(value.shape[dim])) is not None:
                    solved[name] = number
        return solved

    def of_classes(self) -> dict[str, int]:
        """The entries that belong to the classes, the head, and which of their dimensions counts them."""
        return {
            name: dim for name, dims in self.open.items() for dim, free in dims.items() if free.size == "num_classes"
        }


def shapes_of(
    backbone: Callable[..., nn.Module], *, num_classes: int, in_chans: int, image_size: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """The network's own state dict without memory behind it; a network that needs real tensors is made for once."""
    sizes: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "image_size": image_size}
    try:
        with torch.device("meta"):
            return initialise(backbone, **sizes, seed=0).state_dict()
    except InputError:
        raise
    except (NotImplementedError, RuntimeError):
        made = initialise(backbone, **sizes, seed=0).state_dict()
        return {name: value.to("meta") for name, value in made.items()}


# What a network says of sizes that it cannot be built for.
_REFUSALS = (InputError, AssertionError, ValueError, RuntimeError, TypeError, IndexError, ZeroDivisionError)


def open_shapes(backbone: Callable[..., nn.Module]) -> Shapes:
    """A backbone's names and shapes, and which dimensions move when it is built for other classes, channels or images.

    Raises `InputError` where it can be built for none of the usual sizes.
    """
    sides: list[tuple[int, int] | None] = [None]
    if asks_for_image_size(backbone):
        sides = [(side, side) for side in (32, 224, 256, 64)]
    own, at = _first_that_builds(backbone, [(c, s) for s in sides for c in (3, 1, 2, 4)])
    in_chans, side = at
    free: dict[str, dict[int, Open]] = {}

    def compare(size: Size, numbers: tuple[int, int], **other: Any) -> bool:
        sizes = {"num_classes": 10, "in_chans": in_chans, "image_size": side, **other}
        try:
            made = shapes_of(backbone, **sizes)
        except _REFUSALS:
            return False
        _compare(own, made, size, numbers, free)
        return True

    compare("num_classes", (10, 11), num_classes=11)
    any(compare("in_chans", (in_chans, c), in_chans=c) for c in (3, 1, 2, 4) if c != in_chans)
    any(compare("image_size", (0, 1), image_size=other) for other in sides if other != side)
    return Shapes(own, free, in_chans)


def _first_that_builds(
    backbone: Callable[..., nn.Module], sizes: list[tuple[int, tuple[int, int] | None]]
) -> tuple[dict[str, Tensor], tuple[int, tuple[int, int] | None]]:
    refused: list[Exception] = []
    for in_chans, side in sizes:
        try:
            return shapes_of(backbone, num_classes=10, in_chans=in_chans, image_size=side), (in_chans, side)
        except _REFUSALS as error:
            refused.append(error)
    first = refused[0]
    if isinstance(first, InputError):
        raise first
    raise InputError(f"{getattr(backbone, 'spec', backbone)!r} cannot be built: {first}") from first


def _compare(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    size: Size,
    numbers: tuple[int, int],
    free: dict[str, dict[int, Open]],
) -> None:
    """Note each dimension in which two builds differ."""
    for name, value in a.items():
        other = b.get(name)
        if other is None or other.dim() != value.dim():
            continue
        for dim, (x, y) in enumerate(zip(value.shape, other.shape, strict=True)):
            if x == y:
                continue
            factor, rest = divmod(y - x, numbers[1] - numbers[0])
            if size == "image_size":
                free.setdefault(name, {}).setdefault(dim, Open(size))
            elif factor > 0 and not rest:
                free.setdefault(name, {})[dim] = Open(size, factor, x - factor * numbers[0])

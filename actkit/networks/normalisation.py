"""Normalisation that a foreign file holds, or that is given beside it: means and deviations by channel, for images in [0,1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from actkit.errors import InputError, nearest

# Of the training images, by channel.
KNOWN: dict[str, tuple[list[float], list[float]]] = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5], [0.5]),
}

# What is said where a file holds no normalisation and none is given.
NONE_FOUND = (
    "no normalisation is in the file and none was given: the network will see images in [0,1] as they are. If its code normalised them, accuracy "
    "falls, often to chance, and eps means something else: --normalise cifar10|cifar100|imagenet|half, or --mean and --std; --normalise none says that there is none"
)

# The last parts of names under which codes keep a mean and a deviation.
_PAIRS = [("mean", "std"), ("mu", "sigma"), ("mean", "sigma"), ("mean", "stdev"), ("means", "stds"), ("means", "sds")]


def known(name: str) -> tuple[list[float], list[float]] | None:
    """The constants of that name, None for 'none'. Raises `InputError` for a name that is none of them."""
    if name == "none":
        return None
    if name not in KNOWN:
        raise InputError(f"there is no normalisation {name!r}", help=nearest(name, [*KNOWN, "none"]))
    return KNOWN[name]


def assert_in_range(mean: Sequence[float], std: Sequence[float], *, in_file: bool = False) -> None:
    """Raise `InputError` for constants that are not for images in [0,1]; those for pixels of 0..255 are named as what they are likely to be.

    Args:
        in_file: whether they are the file's own, not given as --mean and --std.
    """
    what = "the file's normalisation" if in_file else "--mean and --std"
    values = [*mean, *std]
    held = f"mean {shown(mean)} and deviation {shown(std)}"
    if not all(map(math.isfinite, values)):
        raise InputError(f"{what} must be finite numbers, got {held}")
    if 1 < max(values) <= 255 and min(mean) >= 0:
        leave_out = "--ignore '*mean' --ignore '*std', and " if in_file else ""
        raise InputError(
            f"images are in [0,1], and {what}, {held}, would be for pixels of 0..255",
            help=f"divided by 255: {leave_out}--mean {_scaled(mean)} --std {_scaled(std)}",
        )
    if min(mean) < 0 or max(values) > 1:
        raise InputError(f"{what} must be for images in [0,1], got {held}")


def _scaled(values: Sequence[float]) -> str:
    return ",".join(f"{value / 255 if max(values) > 1 else value:.4g}" for value in values)


def shown(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.7g}" for value in values) + "]"


def held(rest: Mapping[str, Tensor], where: str) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The mean and the deviation, by channel, that are among entries which are not the network's, or nothing; and the other entries.

    Raises `InputError` where there are two different ones.
    """
    left, found = dict(rest), list[list[Tensor]]()
    for name in rest:
        for mean, std in _PAIRS:
            partner = name[: len(name) - len(mean)] + std
            if not name.endswith(mean) or name not in left or partner not in left:
                continue
            pair = [left[name].detach().flatten(), left[partner].detach().flatten()]
            if len(pair[0]) == len(pair[1]) <= 16 and pair[0].is_floating_point() and pair[1].is_floating_point():
                del left[name], left[partner]
                found.append([part.float() for part in pair])
    if found and not all(torch.equal(a, b) for pair in found for a, b in zip(pair, found[0], strict=True)):
        raise InputError(
            "it normalises twice", where=where, help="--ignore leaves one out: see which names end in mean and std"
        )
    return (found[0] if found else []), left

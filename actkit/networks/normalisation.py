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
_NOBODY_SAYS = "no normalisation is in the file and none was given"
NONE_FOUND = (
    f"{_NOBODY_SAYS}: the network takes [0,1] images as they are. If it was trained on normalised images, accuracy "
    "falls, often to chance, and eps means something else: --normalise cifar10|cifar100|imagenet|half, or --mean and --std; --normalise none says that there is none"
)


# The same in short, for whoever uses such a model.
UNNORMALISED = "it takes [0,1] images as they are; if it was trained on normalised images, its numbers mean nothing: import it with --normalise, or --mean and --std"


def is_unsaid(notes: Sequence[str]) -> bool:
    """Whether nobody has said how images were normalised, by the notes of an import."""
    return any(note.startswith(_NOBODY_SAYS) for note in notes)


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


def assert_for_channels(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Raise `InputError` where there is not a mean and a positive deviation for each of the network's channels."""
    for option, given, such in (("--mean", mean, "0.491,0.482,0.447"), ("--std", std, "0.247,0.243,0.262")):
        if len(given) != channels:
            wanted = f"{channels} numbers, one a channel" if channels > 1 else "one number"
            such = such if channels == 3 else ",".join(["0.5"] * channels)
            raise InputError(
                f"{option} has {len(given)} number{'s' * (len(given) != 1)}, images of {channels} channel{'s' * (channels > 1)} want {wanted}",
                help=f"such as {option} {such}",
            )
    if min(std) <= 0:
        raise InputError(f"--std wants positive deviations, got {shown(std)}")


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

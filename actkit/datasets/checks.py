"""Images and labels, checked once where they enter: what is unambiguous is taken, anything else is refused with what was seen and what is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from actkit.errors import InputError


def checked_images(images: Any) -> Tensor:
    """Images as a tensor: uint8 (0..255), or floating in [0,1]; of true and false, as 1 and 0.

    Raises `InputError` for others.
    """
    found = as_tensor(images, "images")
    if found.dtype == torch.bool:
        return found.to(torch.uint8) * 255
    if found.dtype == torch.uint8:
        return found
    if not found.is_floating_point():
        raise InputError(
            f"images are uint8 (0..255) or floating in [0,1], these are {_kind(found)}",
            help="convert them: images.to(torch.uint8) where they span 0 to 255",
        )
    if found.numel():
        low, high = found.min().item(), found.max().item()
        # Also where one is not a number.
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"images must lie in [0,1], these span {low:g} to {high:g}",
                help="divide by the largest value; normalisation is a layer of the model: backbone.normalized",
            )
    # NumPy, which sums are made with, has no bfloat16.
    return found.float() if found.dtype == torch.bfloat16 else found


def checked_labels(labels: Any) -> Tensor:
    """Labels as (N,) int64: of any kind of whole numbers, (N, 1), or one-hot (N, classes).

    Raises `InputError` for others.
    """
    found = as_tensor(labels, "labels")
    if found.dim() == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.is_complex() or (found.is_floating_point() and not _whole(found)):
        raise InputError(f"labels are whole numbers, these are {_kind(found)}", help="give each image one class")
    if found.dim() == 2:
        ones = found.to(torch.int64)
        if len(ones) and not (((ones == 0) | (ones == 1)).all() and (ones.sum(1) == 1).all()):
            raise InputError(
                f"labels of shape {tuple(found.shape)} are not one-hot: an image has exactly one class here",
                help="give labels of shape (N,)",
            )
        return ones.argmax(1) if ones.shape[1] else ones.sum(1)
    if found.dim() != 1:
        raise InputError(f"labels have the shape (N,), these {tuple(found.shape)}", help="one class an image")
    return found.to(torch.int64)


def assert_soft_labels(y: Tensor) -> None:
    """Raise `InputError` for labels (B, classes) that are no shares of classes: finite, none below 0, 1 in all (within 1e-4)."""
    if y.dim() != 2 or not y.is_floating_point():
        raise InputError(
            f"soft labels are floating, of shape (images, classes), these are {_kind(y)} of shape {tuple(y.shape)}",
            help="one class an image has the shape (images,)",
        )
    sums = y.sum(1)
    # Also where one is not a number.
    if not bool(((y >= 0).all(1) & ((sums - 1).abs() <= 1e-4)).all()):
        raise InputError(
            f"soft labels are shares of the classes, 0 to 1, and sum to 1; these span {y.min().item():g} to {y.max().item():g} and sum to {sums.min().item():g} to {sums.max().item():g}",
            help="divide each image's by their sum",
        )


def _whole(values: Tensor) -> bool:
    return bool(values.isfinite().all()) and values.equal(values.round())


def assert_range(labels: Tensor, classes: int, place: str, split: str) -> None:
    """Raise `InputError` for labels outside 0 to classes - 1."""
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    help = f"labels are 0 to {classes - 1}"
    if low == 1 and high == classes:
        help += f"; these are 1 to {classes}: subtract 1"
    for label in (low, high):
        if not 0 <= label < classes:
            raise InputError(f"{place}: label {label} in {split}, but {classes} classes", help=help)


def assert_shape(found: tuple[int, ...], declared: tuple[int, int, int], place: str, split: str) -> None:
    """Raise `InputError`, with both shapes, for images of another shape than was declared."""
    if found == tuple(declared):
        return
    height_first = (declared[1], declared[2], declared[0])
    help = "images are (N, C, H, W), and Data says (C, H, W)"
    if found == height_first:
        help += "; these have their channels last: images.permute(0, 3, 1, 2)"
    elif len(found) == 1 and found[0] == declared[0] * declared[1] * declared[2]:
        help += f"; these are flat: images.view(-1, {', '.join(map(str, declared))})"
    raise InputError(f"{place}: images of {found} in {split}, but {tuple(declared)} are declared", help=help)


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor of a tensor, an array or a list. Raises `InputError` for what holds no numbers."""
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
        if array.dtype in (np.uint16, np.uint32):
            array = array.astype(np.int64)
        # In the machine's order of bytes, and in memory that is torch's own to write to.
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise InputError(f"the {what} are no array of numbers: {type(values).__name__} ({error})") from error


def _kind(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")

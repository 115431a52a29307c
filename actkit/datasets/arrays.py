"""Data sets in files of arrays: NumPy's .npz, as people save them and as MedMNIST does."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from actkit.config.registry import register
from actkit.datasets.checks import checked_labels
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.errors import InputError
from actkit.files import shown_path

Layout = Literal["NCHW", "NHWC"]

# How files call the images and the labels of a split; without a split's name they are the training images, for `dataset.holdout` to divide.
_IMAGES = ("images", "image", "x", "data")
_LABELS = ("labels", "label", "y", "targets")
_SPELLINGS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}
_NAMES = ("classes", "class_names", "label_names")


@register("dataset")
def npz(
    *,
    file: str,
    layout: Layout | None = None,
    classes: list[str] | None = None,
    first_label: int = 0,
    crop: int = 0,
    flip: bool = False,
) -> Data:
    """A .npz file of images and labels, in memory: `images` and `labels`, `x_train`, `y_train`, `x_test` ..., or MedMNIST's `train_images` and so on.

    Images are uint8 or floating in [0,1], (N, H, W), (N, C, H, W) or (N, H, W, C); labels whole numbers (N,) or (N, 1), or one-hot (N, classes).

    Args:
        layout: where the channels are; needed where the shape does not say it, as 1 or 3 in one place alone does.
        classes: their names; by default those in the file, or their numbers.
        first_label: the number of the first class, 0 or 1.
    """
    path = Path(file).expanduser()
    arrays = _headers(path)
    found, others = _pairs(arrays, path)
    places = {split: _Place(path, images, labels, layout) for split, (images, labels) in found.items()}
    shapes = {split: place.shape(arrays[place.images]) for split, place in places.items()}
    shape = shapes["train"]
    for split, other in shapes.items():
        if other != shape:
            raise InputError(f"images of {shape} in train, but of {other} in {split}", where=shown_path(path))
    labels = {split: place.read_labels() - first_label for split, place in places.items()}
    named = classes or _stored_names(path, arrays)
    count = max(int(one.max()) for one in labels.values()) + 1 if any(map(len, labels.values())) else 0
    if not named and min(int(one.min()) for one in labels.values()) == 1:
        raise InputError(
            f"labels are 1 to {count - 1}, and none is 0",
            where=shown_path(path),
            help="set dataset.npz.first_label = 1, or name every class with dataset.npz.classes",
        )

    def read(split: str) -> Split:
        return Split(places[split].read_images(), labels[split])

    sizes = {split: len(one) for split, one in labels.items()}
    notes = (f"left out of {shown_path(path.name)}: {', '.join(sorted(others))}",) if others else ()
    names = tuple(named or map(str, range(count)))
    name = f"npz:{shown_path(path.stem)}"
    return Data(name, shape, names, sizes, with_augmentation(read, augmentation(crop, flip, shape)), notes)


@dataclass(frozen=True)
class _Place:
    """Where a split is in a file: the names of its arrays, and how its images lie."""

    file: Path
    images: str
    labels: str
    layout: Layout | None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, int, int]:
        """(C, H, W) of the images, from the shape of the array."""
        if len(stored) == 3:
            return (1, stored[1], stored[2])
        if len(stored) != 4:
            raise InputError(
                f"{self.images!r} has the shape {stored}; images are (N, H, W), (N, C, H, W) or (N, H, W, C)",
                where=shown_path(self.file),
            )
        _, first, second, last = stored
        return (last, first, second) if self._last(stored) else (first, second, last)

    def _last(self, stored: tuple[int, ...]) -> bool:
        """Whether the channels are the last dimension."""
        if self.layout is not None:
            return self.layout == "NHWC"
        first, last = stored[1] in (1, 3), stored[3] in (1, 3)
        if first == last:
            raise InputError(
                f"the shape {stored} of {self.images!r} does not say where the channels are",
                where=shown_path(self.file),
                help="set dataset.npz.layout = 'NCHW' or 'NHWC'",
            )
        return last

    def read_images(self) -> Tensor:
        array = _array(self.file, self.images)
        if array.ndim == 3:
            array = array[:, None]
        elif self._last(array.shape):
            array = array.transpose(0, 3, 1, 2)
        if array.dtype.kind not in "fbu" or array.dtype.itemsize > 8:
            raise InputError(f"{self.images!r} holds {array.dtype}", where=shown_path(self.file))
        return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))

    def read_labels(self) -> Tensor:
        array = _array(self.file, self.labels)
        try:
            return checked_labels(array)
        except InputError as error:
            raise InputError(
                f"{self.labels!r}: {error.message}", where=shown_path(self.file), help=error.help
            ) from None


def _headers(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in a file, by name; no array is read."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as opened:
                    version = np.lib.format.read_magic(opened)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    found[name.removesuffix(".npy")] = tuple(read(opened)[0])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        said = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise InputError(f"no .npz file that can be read: {said}", where=shown_path(path)) from error
    return found


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: np.ndarray = stored[name]
            return found
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
        raise InputError(
            f"{name!r} cannot be read: {str(error).splitlines()[0]}",
            where=shown_path(path),
            help="arrays of numbers are read; objects, which NumPy pickles, are not",
        ) from error


def _pairs(arrays: Mapping[str, Any], path: Path) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """The names of the images and labels of each split, and the names that are neither. Raises `InputError` where they cannot be told."""
    lower = {name.lower(): name for name in arrays}
    found: dict[str, tuple[str, str]] = {}
    for split, spellings in _SPELLINGS.items():
        images = [lower[n] for s in spellings for i in _IMAGES for n in (f"{s}_{i}", f"{i}_{s}") if n in lower]
        labels = [lower[n] for s in spellings for i in _LABELS for n in (f"{s}_{i}", f"{i}_{s}") if n in lower]
        if len(images) == len(labels) == 1:
            found[split] = images[0], labels[0]
        elif images or labels:
            raise InputError(
                f"the arrays of the split {split!r} cannot be told: {', '.join([*images, *labels])}",
                where=shown_path(path),
                help=f"there should be one of images and one of labels, as {split}_images and {split}_labels",
            )
    if not found:
        images = [lower[name] for name in _IMAGES if name in lower]
        labels = [lower[name] for name in _LABELS if name in lower]
        if len(images) == len(labels) == 1:
            found["train"] = images[0], labels[0]
    if "train" not in found:
        raise InputError(
            f"no training images are found by name among: {', '.join(sorted(arrays)) or 'nothing'}",
            where=shown_path(path),
            help="call the arrays images and labels, or train_images, train_labels, test_images and test_labels",
        )
    used = {name for pair in found.values() for name in pair}
    return found, {name for name in arrays if name not in used and name.lower() not in _NAMES}


def _stored_names(path: Path, arrays: Mapping[str, Any]) -> list[str]:
    """The names of the classes, where the file holds them as text."""
    for name in arrays:
        if name.lower() in _NAMES and (found := _array(path, name)).dtype.kind == "U":
            return [str(one) for one in found.reshape(-1)]
    return []

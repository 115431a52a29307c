"""Corrupted test sets (Hendrycks and Dietterich 2019): CIFAR-10-C and CIFAR-100-C as arrays, ImageNet-C as folders."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from actkit.config.registry import Dataset, register
from actkit.datasets.checks import checked_labels
from actkit.datasets.decoding import FileSplit
from actkit.datasets.listing import list_images
from actkit.datasets.splits import Data, Labelled, Split
from actkit.errors import InputError, nearest
from actkit.files import shown_path

# Those that the paper averages over; it gives four more to develop with.
KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corrupted:
    """A folder of corrupted test images for a data set: `<kind>.npy` and `labels.npy`, or `<kind>/<severity>/<class>/*`.

    Args:
        data: whose images were corrupted; its classes and its shape are those of the corrupted ones.
        kinds: of corruption, in the paper's order, then others by name.
        arrays: whether they are arrays.
    """

    folder: Path
    data: Data
    kinds: tuple[str, ...]
    arrays: bool

    def split(self, kind: str, severity: int) -> Labelled:
        """The test images under one corruption, severity 1 (mild) to 5. Raises `InputError`."""
        if kind not in self.kinds:
            raise InputError(
                f"there is no corruption {kind!r}", where=shown_path(self.folder), help=nearest(kind, self.kinds)
            )
        if severity not in SEVERITIES:
            raise InputError(f"a corruption's severity is 1 to 5, got {severity}")
        return self._of_arrays(kind, severity) if self.arrays else self._of_folders(kind, severity)

    def of(self, kind: str, severity: int) -> Data:
        """The data set with these images as its split 'test', which is checked as any is."""
        data = self.data
        split = self.split(kind, severity)
        sizes = {**data.sizes, "test": len(split)}
        name = f"{data.name} ({kind} {severity})"
        return dataclasses.replace(data, name=name, sizes=sizes, read=lambda s: split if s == "test" else data.split(s))

    def _of_arrays(self, kind: str, severity: int) -> Split:
        """CIFAR's: five severities, one after the other, (5 N, H, W, C) uint8; the labels once, or for each."""
        images, labels = _load(self.folder / f"{kind}.npy"), checked_labels(_load(self.folder / "labels.npy"))
        count = len(images) // len(SEVERITIES)
        if images.ndim != 4 or len(images) % len(SEVERITIES) or len(labels) not in (count, len(images)):
            raise InputError(
                f"{images.shape} images and {len(labels):,} labels: five severities, one after the other, are wanted",
                where=shown_path(self.folder / f"{kind}.npy"),
            )
        part = slice((severity - 1) * count, severity * count)
        pixels = torch.from_numpy(np.ascontiguousarray(images[part].transpose(0, 3, 1, 2)))
        return Split(pixels, labels[part] if len(labels) == len(images) else labels)

    def _of_folders(self, kind: str, severity: int) -> FileSplit:
        """ImageNet's, by the class names of the data set; they are cut already, and resized only where the data set's are of another size."""
        below = f"{kind}/{severity}"
        if not (self.folder / below).is_dir():
            raise InputError(f"{kind} has no severity {severity}", where=shown_path(self.folder / kind))
        listing = list_images(self.folder, {"train": below}, None)
        place = {name: label for label, name in enumerate(self.data.classes)}
        if unknown := [name for name in listing.classes if name not in place]:
            raise InputError(
                f"classes that {self.data.name} does not have: {', '.join(unknown[:5])}",
                where=shown_path(self.folder / below),
            )
        labels = [place[name] for name, files in listing.splits["train"].items() for _ in files]
        files = np.array([os.fsencode(file) for file in listing.files("train")])
        size = self.data.shape[1]
        return FileSplit(
            self.folder, files, torch.tensor(labels), size, size, "RGB" if self.data.shape[0] == 3 else "L"
        )


def corrupted(root: str, data: Data) -> Corrupted:
    """What corruptions of a data set's test images a folder holds. Raises `InputError` where it holds none."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError("the folder of corrupted images does not exist", where=shown_path(folder))
    arrays = {p.stem for p in folder.glob("*.npy")} - {"labels"}
    if arrays and not (folder / "labels.npy").is_file():
        raise InputError("there is no labels.npy beside the corrupted images", where=shown_path(folder))
    folders = {shown_path(p.name) for p in folder.iterdir() if (p / "1").is_dir() or (p / "5").is_dir()}
    found = arrays or folders
    if not found:
        raise InputError(
            "there are no corrupted images",
            where=shown_path(folder),
            help="it should hold <kind>.npy and labels.npy (CIFAR-10-C), or <kind>/<severity>/<class>/* (ImageNet-C)",
        )
    kinds = (*(kind for kind in KINDS if kind in found), *sorted(found - set(KINDS)))
    return Corrupted(folder, data, kinds, bool(arrays))


@register("dataset")
def corruptions(*, data: Dataset, root: str, kind: str, severity: int = 3) -> Data:
    """Another data set, its test images under one corruption of CIFAR-10-C, CIFAR-100-C or ImageNet-C (Hendrycks and Dietterich 2019).

    Args:
        root: the folder with `<kind>.npy` and `labels.npy`, or with `<kind>/<severity>/<class>/*`.
        severity: 1 (mild) to 5.
    """
    return corrupted(root, data()).of(kind, severity)


def _load(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return found
    except (OSError, ValueError, EOFError) as error:
        said = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise InputError(f"the array cannot be read: {said}", where=shown_path(path)) from error

"""Splits: labelled images in [0,1], NCHW, held in memory or read from files as they are asked for.

Order and augmentation are a pure function of (seed, epoch, example): neither the batch size, the number of workers nor a resumed run changes them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from actkit.datasets.checks import assert_range, assert_shape, checked_images, checked_labels
from actkit.errors import InputError, nearest
from actkit.noise import Noise, seed_for

Augment = Callable[[Tensor, Noise], Tensor]


Batches = Iterator[tuple[Tensor, Tensor]]


# Bytes of images that may stay on an accelerator.
RESIDENT = 1 << 30


class Labelled(Protocol):
    """Labelled examples, wherever their pixels are: what the loop and the probes need of a split.

    An example's place, 0 to N - 1, is where it stands in this split; its name is its number in the whole split that this one may be a part of.
    Random numbers depend on the name, so that a part gives an example the same as the whole. Places and names are int64 on the CPU.
    """

    @property
    def labels(self) -> Tensor:
        """The classes of all examples, shape (N,) int64 on the CPU."""

    def __len__(self) -> int: ...

    def order(self, seed: int, epoch: int) -> Tensor:
        """The places of one epoch, shuffled: shape (N,)."""

    def names(self, places: Tensor) -> Tensor:
        """The names of the examples in these places."""

    def take(self, places: Tensor) -> Self:
        """A part of the split; its examples keep their names."""

    def plain(self) -> Self:
        """The same examples without augmentation."""

    def sample(self, limit: int | None) -> Self:
        """At most so many examples, without augmentation: a fixed choice."""

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x (B, C, H, W) fp32 in [0,1] and y (B,) int64 of each group of places, on the device; augmented where a `key` is given.

        With a key, y may be (B, classes) fp32, shares of the classes that sum to 1, where `Data.soft_labels` says so.

        Raises `InputError` for a file that cannot be read.
        """

    def fingerprint(self) -> str:
        """A short text that is another for other examples."""


class Examples:
    """What every kind of split does in the same way: order, names and samples. They may be a part of another split, whose numbers `ids` keeps."""

    labels: Tensor
    ids: Tensor | None

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The places of one epoch, shuffled: shape (N,), a function of seed and epoch."""
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed_for(seed, epoch)))

    def names(self, places: Tensor) -> Tensor:
        """The examples' numbers in the whole split, of the places' shape: what their random numbers depend on."""
        return places if self.ids is None else self.ids[places]

    def take(self, places: Tensor) -> Self:
        """The examples in these places (M,), as a split; they keep their names."""
        raise NotImplementedError

    def plain(self) -> Self:
        """The same examples without augmentation."""
        raise NotImplementedError

    def sample(self, limit: int | None) -> Self:
        """At most so many examples, without augmentation: what a probe's `limit` means. A random choice, since folders come sorted by class, but always
        the same for a split of this size, in its order. None: all of them."""
        if limit is None or limit >= len(self):
            return self.plain()
        return self.take(self.order(0, 0)[:limit].sort().values).plain()


@dataclass(frozen=True)
class Split(Examples):
    """Labelled examples in memory.

    Args:
        images: (N, C, H, W), uint8 (0..255) or floating in [0,1]; a tensor or an array.
        labels: (N,) of whole numbers from 0; (N, 1) and one-hot (N, classes) are taken too. Kept as (N,) int64.
        augment: (x, noise) -> x, applied to training batches on their device.
        ids: the examples' names, (N,) int64, where this is a part of another split; by default their places.

    Raises `InputError` when images are of another kind or outside [0,1], when labels are no classes, or when they are not as many.
    """

    images: Tensor
    labels: Tensor
    augment: Augment | None = None
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        # Checked once: a part of a split has its tensors.
        if self.ids is None:
            object.__setattr__(self, "images", checked_images(self.images))
            object.__setattr__(self, "labels", checked_labels(self.labels))
        if len(self.images) != len(self.labels):
            raise InputError(f"a split has {len(self.images)} images but {len(self.labels)} labels")

    def take(self, places: Tensor) -> Split:
        """The examples in these places (M,), as a split; they keep their names."""
        return Split(self.images[places], self.labels[places], self.augment, self.names(places))

    def plain(self) -> Split:
        """The same examples without augmentation."""
        return dataclasses.replace(self, augment=None)

    @functools.cached_property
    def _copies(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def _on(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Images and labels where the batches are made: on the device itself, when they are small enough to stay there."""
        device = torch.device(device)
        if device.type == "cpu" or self.images.numel() * self.images.element_size() > RESIDENT:
            return self.images, self.labels
        if str(device) not in self._copies:
            self._copies[str(device)] = self.images.to(device), self.labels.to(device)
        return self._copies[str(device)]

    def batch(
        self, places: Tensor, *, device: torch.device | str = "cpu", noise: Noise | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) fp32 in [0,1] and y (B,) int64 of the examples in these places, on the device; augmented when `noise` is given and the split
        has an augmentation."""
        images, labels = self._on(device)
        where = places.to(images.device)
        x, y = images[where].to(device), labels[where].to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if noise is not None and self.augment is not None:
            x = self.augment(x, noise)
        return x, y

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x (B, C, H, W) fp32 in [0,1] and y (B,) int64 of each group of places (B,), on the device; augmented, as a function of `key` and the
        example, when one is given: `images.batches(torch.arange(len(images)).split(256), device=model.device)`."""
        for places in groups:
            noise = None if key is None else Noise(self.names(places).to(device), *key).fork(0)
            yield self.batch(places, device=device, noise=noise)

    def fingerprint(self) -> str:
        """A short hash of pixels and labels: two results with the same one were measured on the same data."""
        digest = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def crop_and_flip(x: Tensor, noise: Noise, *, pad: int, flip: bool) -> Tensor:
    """Random crop of the image padded by reflection, and a random horizontal flip (ACT, section 4.1)."""
    size, (height, width) = len(x), x.shape[2:]
    if pad:
        corner = noise.integers(2 * pad + 1, 2)
        rows = corner[:, 0, None] + torch.arange(height, device=x.device)
        columns = corner[:, 1, None] + torch.arange(width, device=x.device)
        padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    else:
        rows = torch.arange(height, device=x.device).expand(size, -1)
        columns = torch.arange(width, device=x.device).expand(size, -1)
        padded = x
    if flip:
        flipped = noise.integers(2).bool()[:, None]
        columns = torch.where(flipped, columns.flip(1), columns)
    example = torch.arange(size, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[example, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def augmentation(pad: int, flip: bool, shape: tuple[int, int, int]) -> Augment | None:
    """`crop_and_flip` for images of this shape; None when there is nothing to do. Raises `InputError` for a crop that they are too small for."""
    if pad < 0 or pad >= min(shape[1:]):
        raise InputError(f"crop must be between 0 and the image's size less 1 ({min(shape[1:]) - 1}), got {pad}")
    return functools.partial(crop_and_flip, pad=pad, flip=flip) if pad or flip else None


def with_augmentation(splits: Callable[[str], Split], augment: Augment | None) -> Callable[[str], Split]:
    """Only the training split is augmented."""
    return lambda name: dataclasses.replace(splits(name), augment=augment if name == "train" else None)


@dataclass(frozen=True)
class Data:
    """A data set: what is known of it without reading a pixel, and its splits, read when first asked for.

    Args:
        name: what reports call it.
        shape: (C, H, W) of an image.
        classes: their names; label i is the i-th.
        sizes: the number of examples of each split ('train', 'test', perhaps 'val').
        read: gives a split by its name. It is asked once for each, and only then touches files.
        notes: what its reader should know of it, a line each: what was left out, and why.
        soft_labels: whether batches for training (those with a key) have labels y (B, classes), shares that sum to 1. Objectives that take none are then
            refused. A split's `labels` are classes in any case.

    `num_classes` is how many classes it has; `train` and `test` are those splits.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    read: Callable[[str], Labelled]
    notes: tuple[str, ...] = ()
    soft_labels: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def counted(self) -> str:
        """Its splits in words: '49,000 training, 10,000 test and 1,000 val images'."""
        words = {"train": "training"}
        parts = [f"{size:,} {words.get(name, name)}" for name, size in self.sizes.items()]
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) + " images"

    @functools.cached_property
    def _splits(self) -> dict[str, Any]:
        return {}

    def split(self, name: str) -> Any:
        """The examples of a split, a `Split` or one that is read from files as it is asked for. It is read once.

        Raises `InputError` when there is no such split, its files cannot be used, or its images and labels are not as declared.
        """
        if name not in self.sizes:
            help = nearest(name, self.sizes)
            if name == "val":
                help = "hold some training images out: run.data = @dataset.holdout(), dataset.holdout.data = ..."
            if name == "test":
                help = "hold some out: run.data = @dataset.holdout(), dataset.holdout.data = ..., dataset.holdout.split = 'test'"
            raise InputError(f"{self.name} has no split {name!r}", help=help)
        if name not in self._splits:
            split = self.read(name)
            assert_range(split.labels, self.num_classes, self.name, name)
            if isinstance(split, Split) and len(split):
                assert_shape(tuple(split.images.shape[1:]), self.shape, self.name, name)
            # A kind of its own, of a plugin's: its first image tells.
            elif not isinstance(split, Examples) and len(split):
                x, _ = next(iter(split.batches([torch.arange(1)])))
                assert_shape(tuple(x.shape[1:]), self.shape, self.name, name)
            self._splits[name] = split
        return self._splits[name]

    @property
    def train(self) -> Any:
        return self.split("train")

    @property
    def test(self) -> Any:
        return self.split("test")


def random_batch(data: Data, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images in [0,1], shape (B, C, H, W), and labels such as the data set's, (B,) or (B, classes), for a dry run: no pixel of it is read."""
    noise = Noise(torch.arange(count), seed)
    x, y = noise.uniform(*data.shape), noise.integers(data.num_classes)
    return x, F.one_hot(y, data.num_classes).float() if data.soft_labels else y

"""Splits: labelled images in [0,1], NCHW, held in memory or read from files as they are asked for.

Order and augmentation are a pure function of (seed, epoch, example): neither the batch size, the number of workers nor a resumed run changes them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actkit.errors import ActkitError, InputError, nearest
from actkit.noise import Noise, seed_for

Augment = Callable[[Tensor, Noise], Tensor]
Batches = Iterator[tuple[Tensor, Tensor]]
_RESIDENT = 1 << 30  # bytes of images that may stay on an accelerator


class Labelled(Protocol):
    """What the loop and the probes need of a split. `labels` is (N,) int64."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def order(self, seed: int, epoch: int) -> Tensor: ...

    def names(self, places: Tensor) -> Tensor: ...

    def take(self, places: Tensor) -> Self: ...

    def sample(self, limit: int | None) -> Self: ...

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches: ...

    def fingerprint(self) -> str: ...


class _Numbered:
    """Order, names and samples, the same for every kind of split."""

    labels: Tensor
    ids: Tensor | None

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The places of one epoch, shuffled."""
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed_for(seed, epoch)))

    def names(self, places: Tensor) -> Tensor:
        """The examples' numbers in the whole split: what their random numbers depend on."""
        return places if self.ids is None else self.ids[places]

    def take(self, places: Tensor) -> Self:
        """A part of the split; its examples keep their names."""
        raise NotImplementedError

    def plain(self) -> Self:
        """The same examples without augmentation."""
        raise NotImplementedError

    def sample(self, limit: int | None) -> Self:
        """At most so many examples, without augmentation, for a probe: a fixed choice, since folders come sorted by class."""
        if limit is None or limit >= len(self):
            return self.plain()
        return self.take(self.order(0, 0)[:limit].sort().values).plain()


@dataclass(frozen=True)
class Split(_Numbered):
    """Labelled examples in memory. `images` (N, C, H, W) is uint8 (0..255) or floating in [0,1]; `labels` (N,) int64.

    Raises `InputError` when the images lie outside [0,1] or are not as many as the labels.
    """

    images: Tensor
    labels: Tensor
    augment: Augment | None = None
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(f"a split has {len(self.images)} images but {len(self.labels)} labels")
        if self.images.dtype != torch.uint8 and len(self.images):
            low, high = self.images.min().item(), self.images.max().item()
            if not (low >= 0 and high <= 1):  # also where one is not a number
                raise InputError(
                    f"images must lie in [0,1], these span {low:g} to {high:g}",
                    help="divide by the largest value; normalisation is a layer of the model: backbone.normalized",
                )

    def take(self, places: Tensor) -> Split:
        return Split(self.images[places], self.labels[places], self.augment, self.names(places))

    def plain(self) -> Split:
        return dataclasses.replace(self, augment=None)

    @functools.cached_property
    def _copies(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def _on(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Images and labels where the batches are made: on the device itself, when they are small enough to stay there."""
        device = torch.device(device)
        if device.type == "cpu" or self.images.numel() * self.images.element_size() > _RESIDENT:
            return self.images, self.labels
        if str(device) not in self._copies:
            self._copies[str(device)] = self.images.to(device), self.labels.to(device)
        return self._copies[str(device)]

    def batch(
        self, places: Tensor, *, device: torch.device | str = "cpu", noise: Noise | None = None
    ) -> tuple[Tensor, Tensor]:
        """x in [0,1] fp32 and y of these examples; augmented when `noise` is given and the set has an augmentation."""
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
        """x and y of each group of places; augmented, as a function of `key` and the example, when one is given."""
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


# -- images that stay in their files -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileSplit(_Numbered):
    """Labelled image files, decoded by worker processes a few batches ahead.

    Plain, an image is resized so that its short side is `resize`, and its centre taken; augmented, it is a random crop of 8 to 100 % of its area
    and 3/4 to 4/3 in aspect, resized, and flipped or not: the usual transforms of ImageNet, which the released code uses too.

    Args:
        files: paths below `root`, as bytes in an array (a list of a million texts would be copied into every worker).
        workers: processes that decode; 0 decodes in this one. Their number changes no pixel.
        timeout: seconds to wait for a batch before giving up.
    """

    root: Path
    files: np.ndarray
    labels: Tensor
    size: int
    resize: int
    mode: Literal["RGB", "L"] = "RGB"
    augmented: bool = False
    workers: int = 0
    timeout: float = 120.0
    ids: Tensor | None = None

    def take(self, places: Tensor) -> FileSplit:
        return dataclasses.replace(
            self, files=self.files[places.numpy()], labels=self.labels[places], ids=self.names(places)
        )

    def plain(self) -> FileSplit:
        return dataclasses.replace(self, augmented=False)

    def path(self, place: int) -> Path:
        return self.root / os.fsdecode(bytes(self.files[place]))

    def pixels(self, place: int, key: tuple[int, ...] | None) -> Tensor:
        """One image as uint8, shape (C, size, size). Raises `InputError` when the file is no readable image."""
        from PIL import Image
        from torchvision.transforms import functional as transforms
        from torchvision.transforms import v2

        path = self.path(place)
        try:
            with Image.open(path) as opened:
                image = opened.convert(self.mode)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"not a readable image: {error}", where=str(path), help="remove or replace the file"
            ) from error
        if self.augmented and key is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(*key, int(self.names(torch.tensor(place)))))
                image = v2.RandomHorizontalFlip()(v2.RandomResizedCrop(self.size)(image))
        else:
            image = transforms.center_crop(transforms.resize(image, [self.resize]), [self.size, self.size])
        return transforms.pil_to_tensor(image)

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x and y of each group of places; augmented, as a function of `key` and the example, when one is given.

        Raises `InputError` for an unreadable file, `ActkitError` when a worker dies or hangs.
        """
        given, ahead = itertools.tee(groups)
        labels = self.labels
        for places, pixels in zip(given, self._decoded(ahead, key, torch.device(device)), strict=True):
            x = pixels.to(device, non_blocking=True).float() / 255
            yield x, labels[places].to(device, non_blocking=True)

    def _decoded(self, groups: Iterable[Tensor], key: tuple[int, ...] | None, device: torch.device) -> Iterator[Tensor]:
        loader = torch.utils.data.DataLoader(
            _Decoder(self, key),
            batch_sampler=_Lists(groups),
            num_workers=self.workers,
            collate_fn=_stack,
            timeout=self.timeout if self.workers else 0,
            worker_init_fn=_deaf,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # a private one: an iterator draws from it
        )
        others = set(multiprocessing.active_children())
        try:
            for pixels in loader:
                if isinstance(pixels, InputError):
                    raise pixels
                yield pixels
        except RuntimeError as error:
            _end(set(multiprocessing.active_children()) - others)
            if (told := worker_error(error)) is not None:
                raise told from error
            raise

    def fingerprint(self) -> str:
        """A short hash of the files' names, sizes and labels and of how they are cut: their bytes are too many to be read for it."""
        digest = hashlib.sha256(repr((self.size, self.resize, self.mode)).encode())
        for place, label in enumerate(self.labels.tolist()):
            digest.update(b"%s %d %d\n" % (bytes(self.files[place]), self.path(place).stat().st_size, label))
        return "files-" + digest.hexdigest()[:12]


class _Lists:
    """Groups of places as the lists that a DataLoader wants, made as they are asked for."""

    def __init__(self, groups: Iterable[Tensor]) -> None:
        self.groups = groups

    def __iter__(self) -> Iterator[list[int]]:
        return (places.tolist() for places in self.groups)


@dataclass(frozen=True)
class _Decoder(torch.utils.data.Dataset):
    split: FileSplit
    key: tuple[int, ...] | None

    def __getitem__(self, place: int) -> Tensor | InputError:
        try:
            return self.split.pixels(place, self.key)
        except (
            InputError
        ) as error:  # handed over as it is: raised in a worker, it would come with the worker's traceback in its text
            return error


def _stack(images: list[Tensor | InputError]) -> Tensor | InputError:
    wrong = [image for image in images if isinstance(image, InputError)]
    return wrong[0] if wrong else torch.stack([image for image in images if isinstance(image, Tensor)])


def worker_error(error: RuntimeError) -> ActkitError | None:
    """What torch says of a worker that hangs or dies, in a clear line; None for any other error. A death may be told anywhere, by a signal."""
    said = str(error).splitlines()[0] if str(error) else ""
    if not said.startswith("DataLoader "):
        return None
    if "timed out" in said:
        return ActkitError(
            f"the workers that decode images gave no batch in time: {said}",
            help="a slow disk or network wants a larger timeout (dataset.imagenet.timeout), or fewer workers",
        )
    return ActkitError(
        f"a worker that decodes images was killed: {said}",
        help="most often memory, or shared memory in a container, is short: take fewer workers (dataset.imagenet.workers)",
    )


def _end(workers: set[Any]) -> None:
    """Kill workers that heed nothing gentler; torch's own handler would raise an error for each."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if mine else None
    for worker in workers:
        worker.kill()
        worker.join()
    if mine:
        signal.signal(signal.SIGCHLD, before)


def _deaf(worker: int) -> None:
    """Ctrl-C and SIGTERM go to the whole process group; the main process alone decides what they mean."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


# -- data sets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """A data set: what is known of it without reading a pixel, and its splits, read when first asked for.

    Args:
        shape: (C, H, W) of an image.
        sizes: the number of examples of each split ('train', 'test', perhaps 'val').
        read: gives a split by name.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    read: Callable[[str], Labelled]

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
        """The `Labelled` examples of a split. Raises `InputError` when there is no such split or its files cannot be used."""
        if name not in self.sizes:
            help = nearest(name, self.sizes)
            if name == "val":
                help = "hold some training images out: run.data = @dataset.holdout(), dataset.holdout.data = ..."
            raise InputError(f"{self.name} has no split {name!r}", help=help)
        if name not in self._splits:
            split = self.read(name)
            for label in (int(split.labels.min()), int(split.labels.max())) if len(split) else ():
                if not 0 <= label < self.num_classes:
                    raise InputError(
                        f"{self.name}: label {label} in {name}, but {self.num_classes} classes",
                        help=f"labels are 0 to {self.num_classes - 1}",
                    )
            self._splits[name] = split
        return self._splits[name]

    @property
    def train(self) -> Any:
        return self.split("train")

    @property
    def test(self) -> Any:
        return self.split("test")


def made_up(data: Data, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images and labels of the data set's shape, for a dry run."""
    noise = Noise(torch.arange(count), seed)
    return noise.uniform(*data.shape), noise.integers(data.num_classes)

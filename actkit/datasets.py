"""Data sets: images in [0,1], NCHW, small ones held in memory and augmented in batches.

A data set says its shape and classes at once and reads pixels when a split is asked for. Order and augmentation are a pure function
of (seed, epoch, example): neither the batch size nor a resumed run changes them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from actkit.errors import InputError, nearest
from actkit.noise import Noise, seed_for
from actkit.registry import register

Augment = Callable[[Tensor, Noise], Tensor]


@dataclass(frozen=True)
class Split:
    """Some labelled examples. `images` (N, C, H, W) is uint8 (0..255) or floating in [0,1]; `labels` (N,) int64."""

    images: Tensor
    labels: Tensor
    augment: Augment | None = None
    ids: Tensor | None = None  # in the whole split, when this is a part of it; 0 .. N - 1 otherwise

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

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The ids of one epoch, shuffled."""
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed_for(seed, epoch)))

    def batch(
        self, ids: Tensor, *, device: torch.device | str = "cpu", noise: Noise | None = None
    ) -> tuple[Tensor, Tensor]:
        """x in [0,1] fp32 and y of these examples; augmented when `noise` is given and the set has an augmentation."""
        x, y = self.images[ids.cpu()].to(device), self.labels[ids.cpu()].to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if noise is not None and self.augment is not None:
            x = self.augment(x, noise)
        return x, y

    def sample(self, limit: int | None) -> Split:
        """At most so many examples, without augmentation, for a probe: a fixed choice, since folders come sorted by class."""
        if limit is None or limit >= len(self):
            return Split(self.images, self.labels, ids=self.ids)
        places = self.order(0, 0)[:limit].sort().values
        return Split(self.images[places], self.labels[places], ids=places if self.ids is None else self.ids[places])


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
    read: Callable[[str], Split]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @functools.cached_property
    def _splits(self) -> dict[str, Split]:
        return {}

    def split(self, name: str) -> Split:
        """Raises `InputError` when there is no such split or its files cannot be used."""
        if name not in self.sizes:
            raise InputError(f"{self.name} has no split {name!r}", help=nearest(name, self.sizes))
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
    def train(self) -> Split:
        return self.split("train")

    @property
    def test(self) -> Split:
        return self.split("test")


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


def _augmentation(pad: int, flip: bool, shape: tuple[int, int, int]) -> Augment | None:
    if pad < 0 or pad >= min(shape[1:]):
        raise InputError(f"crop must be between 0 and the image's size less 1 ({min(shape[1:]) - 1}), got {pad}")
    return functools.partial(crop_and_flip, pad=pad, flip=flip) if pad or flip else None


def _with_augmentation(splits: Callable[[str], Split], augment: Augment | None) -> Callable[[str], Split]:
    """Only the training split is augmented."""
    return lambda name: dataclasses.replace(splits(name), augment=augment if name == "train" else None)


@register("dataset")
def digits(*, test_fraction: float = 0.2, split_seed: int = 0, crop: int = 0, flip: bool = False) -> Data:
    """scikit-learn's 1,797 real 8x8 grey digits (UCI Optical Recognition of Handwritten Digits, Alpaydin and Kaynak): offline, 10 classes.

    One grey level is 1/16, so eps 0.15 is 2.4 levels. The split into train and test is a fixed shuffle by `split_seed`.
    """
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    total = 1797
    test_size = round(total * test_fraction)

    def read(name: str) -> Split:
        from sklearn.datasets import load_digits

        raw = load_digits()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(split_seed))
        ids = order[:test_size] if name == "test" else order[test_size:]
        images = torch.from_numpy(raw.images).float()[:, None] / 16
        return Split(images[ids], torch.from_numpy(raw.target).long()[ids])

    shape = (1, 8, 8)
    return Data(
        "digits", shape, tuple("0123456789"), {"train": total - test_size, "test": test_size},
        _with_augmentation(read, _augmentation(crop, flip, shape)),
    )  # fmt: skip


@register("dataset")
def moons(*, size: int = 400, spread: float = 0.08, split_seed: int = 0) -> Data:
    """scikit-learn's two moons as 'images' of 2 channels and 1 pixel, scaled into [0,1]: the toy of ACT's Figure 1b."""

    def read(name: str) -> Split:
        from sklearn.datasets import make_moons

        points, labels = make_moons(size, noise=spread, random_state=split_seed if name == "train" else split_seed + 1)
        # The same map for both splits: the noiseless moons span [-1, 2] x [-0.5, 1].
        scaled = (torch.from_numpy(points).float() - torch.tensor([0.5, 0.25])) * 0.27 + 0.5
        return Split(scaled.clamp(0, 1).view(-1, 2, 1, 1), torch.from_numpy(labels).long())

    return Data("moons", (2, 1, 1), ("upper", "lower"), {"train": size, "test": size}, read)


@register("dataset")
def cifar10(*, root: str = "data", download: bool = False, crop: int = 4, flip: bool = True) -> Data:
    """CIFAR-10 (Krizhevsky 2009) through torchvision, its checksums verified; downloaded only when `download` says so."""
    shape = (3, 32, 32)

    def read(name: str) -> Split:
        from torchvision.datasets import CIFAR10

        remedy = (
            "set dataset.cifar10.root to the folder that holds cifar-10-batches-py, or -s dataset.cifar10.download=true"
        )
        try:
            raw = CIFAR10(root, train=name == "train", download=download)
        except RuntimeError as error:
            found = (Path(root) / CIFAR10.base_folder).is_dir()
            what = (
                "CIFAR-10 is there but its checksum is wrong or files are missing" if found else "CIFAR-10 is not there"
            )
            raise InputError(f"{what}: {error}", where=str(Path(root) / CIFAR10.base_folder), help=remedy) from error
        except OSError as error:
            raise InputError(
                f"CIFAR-10 could not be read or downloaded: {error}", where=str(root), help=remedy
            ) from error
        images = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(raw.targets))

    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return Data(
        "cifar10",
        shape,
        classes,
        {"train": 50_000, "test": 10_000},
        _with_augmentation(read, _augmentation(crop, flip, shape)),
    )


_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


@register("dataset")
def imagefolder(
    *,
    root: str,
    train: str = "train",
    test: str = "test",
    mode: Literal["RGB", "L"] = "RGB",
    crop: int = 4,
    flip: bool = True,
    limit: int | None = None,
    max_gib: float = 4.0,
) -> Data:
    """A folder `<root>/train/<class>/*` and `<root>/test/<class>/*` of images of one size, decoded into memory as uint8.

    Args:
        limit: take only the first so many images of each class and split, for a trial.
        max_gib: refuse a set that would take more memory than this.
    """
    if limit is not None and limit < 1:
        raise InputError(f"dataset.imagefolder.limit must be at least 1, got {limit}")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise InputError("the image folder does not exist", where=str(base), help="set dataset.imagefolder.root")
    folders = {"train": base / train, "test": base / test}
    files = {name: _class_folders(folder, limit) for name, folder in folders.items()}
    classes = tuple(files["train"])
    if set(files["test"]) - set(classes):
        extra = ", ".join(sorted(set(files["test"]) - set(classes)))
        raise InputError(f"classes in {test} that {train} does not have: {extra}", where=str(base))
    width, height = _image_size(next(f for paths in files["train"].values() for f in paths))
    shape = (3 if mode == "RGB" else 1, height, width)
    sizes = {name: sum(map(len, by_class.values())) for name, by_class in files.items()}
    gib = sum(sizes.values()) * shape[0] * height * width / 2**30
    if gib > max_gib:
        raise InputError(
            f"{sum(sizes.values()):,} images of {width}x{height} take {gib:.1f} GiB in memory, more than max_gib = {max_gib}",
            where=str(base), help="raise dataset.imagefolder.max_gib, or take a part with dataset.imagefolder.limit",
        )  # fmt: skip

    def read(name: str) -> Split:
        paths = [path for cls in classes for path in files[name].get(cls, [])]
        labels = torch.tensor([i for i, cls in enumerate(classes) for _ in files[name].get(cls, [])])
        images = torch.empty(len(paths), *shape, dtype=torch.uint8)

        def decode(i: int) -> None:
            images[i] = _decode(paths[i], mode, (width, height))

        with ThreadPoolExecutor() as pool:
            list(pool.map(decode, range(len(paths)), chunksize=256))
        return Split(images, labels)

    name = f"imagefolder:{base.name}"
    return Data(name, shape, classes, sizes, _with_augmentation(read, _augmentation(crop, flip, shape)))


def _class_folders(folder: Path, limit: int | None) -> dict[str, list[Path]]:
    if not folder.is_dir():
        there = sorted(p.name for p in folder.parent.iterdir() if p.is_dir())
        raise InputError(
            f"the image folder has no {folder.name!r}",
            where=str(folder.parent),
            help=nearest(folder.name, there) or "it is empty",
        )
    found = {
        cls.name: sorted(f for f in cls.iterdir() if f.suffix.lower() in _IMAGES)[:limit]
        for cls in sorted(folder.iterdir())
        if cls.is_dir() and not cls.name.startswith(".")
    }
    if not any(found.values()):
        raise InputError(
            "there are no images", where=str(folder), help="it must hold one folder a class, with images in it"
        )
    return found


def _image_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as image:  # reads the header only
            return image.size
    except OSError as error:
        raise InputError(f"not a readable image: {error}", where=str(path)) from error


def _decode(path: Path, mode: str, size: tuple[int, int]) -> Tensor:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.size != size:
                raise InputError(
                    f"this image is {image.size[0]}x{image.size[1]}, the first one {size[0]}x{size[1]}",
                    where=str(path), help="all images must have one size",
                )  # fmt: skip
            pixels = torch.from_numpy(np.array(image.convert(mode)))
    except OSError as error:
        raise InputError(
            f"not a readable image: {error}", where=str(path), help="remove or replace the file"
        ) from error
    return pixels.permute(2, 0, 1) if pixels.dim() == 3 else pixels[None]


def fingerprint(split: Split) -> str:
    """A short hash of pixels and labels: two results with the same one were measured on the same data."""
    digest = hashlib.sha256(split.images.contiguous().numpy().tobytes())
    digest.update(split.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def made_up(data: Data, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images and labels of the data set's shape, for a dry run."""
    noise = Noise(torch.arange(count), seed)
    return noise.uniform(*data.shape), noise.integers(data.num_classes)

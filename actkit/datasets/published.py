"""Published data sets through torchvision: CIFAR-10 and CIFAR-100, and any other of its classification sets by name."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actkit.config.registry import register
from actkit.datasets.download import fetch
from actkit.datasets.folders import assert_small, decoded
from actkit.datasets.pixels import DECODING, Mode, pixels_of, to_mode
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.display import tell
from actkit.errors import InputError, nearest
from actkit.files import adding_to, md5

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar cattle
    chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
    kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
    orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
    shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASSES = {"cifar10": _CIFAR10, "cifar100": tuple(_FINE.split())}


@register("dataset")
def cifar10(*, root: str = "data", download: bool = False, crop: int = 4, flip: bool = True) -> Data:
    """CIFAR-10 (Krizhevsky 2009): 60,000 images of 32x32 in 10 classes. Checked against its checksums; downloaded only if `download` says so."""
    return _cifar("CIFAR10", root, download, crop, flip)


@register("dataset")
def cifar100(*, root: str = "data", download: bool = False, crop: int = 4, flip: bool = True) -> Data:
    """CIFAR-100 (Krizhevsky 2009): 60,000 images of 32x32 in 100 classes. Checked against its checksums; downloaded only if `download` says so."""
    return _cifar("CIFAR100", root, download, crop, flip)


def _cifar(name: str, root: str, download: bool, crop: int, flip: bool) -> Data:
    """CIFAR10 or CIFAR100, as torchvision calls them."""
    shape, folder, title = (3, 32, 32), Path(root).expanduser(), name.replace("CIFAR", "CIFAR-")

    def read(split: str) -> Split:
        from torchvision import datasets

        source = getattr(datasets, name)
        files = folder / source.base_folder
        if not files.is_dir():
            _unpack_cifar(source, title, folder, download)
        _assert_sums(files, {**dict(source.train_list + source.test_list), source.meta["filename"]: source.meta["md5"]})
        try:
            raw = source(folder, train=split == "train")
        except (RuntimeError, OSError) as error:
            raise InputError(f"{title} cannot be read: {error}", where=str(files)) from error
        return Split(torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(raw.targets))

    sizes = {"train": 50_000, "test": 10_000}
    return Data(
        name.lower(), shape, CLASSES[name.lower()], sizes, with_augmentation(read, augmentation(crop, flip, shape))
    )


def _unpack_cifar(source: Any, title: str, folder: Path, download: bool) -> None:
    """Unpack the archive in the folder, downloaded first where it is not there and may be. `source` is torchvision's class."""
    from torchvision.datasets.utils import extract_archive

    archive, dataset = folder / source.filename, f"dataset.{source.__name__.lower()}"
    if not download and not archive.is_file():
        raise InputError(
            f"{title} is not there",
            where=str(folder / source.base_folder),
            help=f"set {dataset}.root to the folder that holds {source.base_folder} or {source.filename}, or -s {dataset}.download=true",
        )
    fetch(source.url, archive, source.tgz_md5)
    try:
        with adding_to(folder) as temporary:
            tell(f"unpacking {archive.name}", 0, 1)
            extract_archive(archive, temporary)
    except OSError as error:
        raise InputError(
            f"{archive.name} cannot be unpacked: {error}",
            where=str(folder),
            help="make room, or choose another root",
        ) from error


def _assert_sums(folder: Path, expected: Mapping[str, str]) -> None:
    for name, wanted in expected.items():
        path = folder / name
        if not path.is_file():
            raise InputError("the file is missing", where=str(path), help=f"move {folder.name} away and get it again")
        if (found := md5(path)) != wanted:
            raise InputError(
                f"this file's checksum is wrong: its MD5 is {found}, it should be {wanted}",
                where=str(path),
                help=f"move {folder.name} away and get it again",
            )


# Of the sets whose files hold arrays: (C, H, W), classes, training and test images. The others say it themselves once they are there.
_ARRAYS: dict[str, tuple[tuple[int, int, int], int, int, int]] = {
    "MNIST": ((1, 28, 28), 10, 60_000, 10_000),
    "FashionMNIST": ((1, 28, 28), 10, 60_000, 10_000),
    "KMNIST": ((1, 28, 28), 10, 60_000, 10_000),
    "SVHN": ((3, 32, 32), 10, 73_257, 26_032),
    "STL10": ((3, 96, 96), 10, 5_000, 8_000),
    "USPS": ((1, 16, 16), 10, 7_291, 2_007),
}
_LABELS = ("targets", "labels", "_labels", "_targets")


@register("dataset")
def torchvision(
    *,
    name: str,
    root: str = "data",
    download: bool = False,
    size: int | None = None,
    test: str = "test",
    mode: Mode = "RGB",
    crop: int = 4,
    flip: bool = False,
    max_gib: float = 4.0,
    options: dict[str, Any] | None = None,
) -> Data:
    """Any of torchvision's classification sets by its name there (MNIST, FashionMNIST, SVHN, STL10, Flowers102, Food101, ...), in memory as uint8.

    Args:
        size: images are resized to size x size; needed where they have several sizes.
        test: what the set calls the split that serves as 'test', where it has several ('test', 'val').
        mode: of images that come in files; those that come as arrays keep their channels.
        max_gib: refuse a set that would take more memory than this.
        options: what else the set's own class takes: {'split': 'letters'} for EMNIST.
    """
    if name in ("CIFAR10", "CIFAR100"):
        raise InputError(
            f"torchvision's {name} has a name of its own here", help=f"run.data = @dataset.{name.lower()}()"
        )
    source = _classification(name)
    _assert_options(name, source, test, options or {})
    published = _Published(name, source, Path(root).expanduser(), test, mode, download, options or {})
    if size is None:
        shape, classes, sizes = published.known()
        read: Callable[[str], Split] = functools.partial(published.arrays, shape=shape, sizes=sizes)
    else:
        opened = {split: published.open(split) for split in ("train", "test")}
        shape, classes, sizes = published.seen(opened, size)
        assert_small(sum(sizes.values()), shape, max_gib, "torchvision", where=str(published.folder))

        def read(split: str) -> Split:
            return published.resized(opened[split], split, shape)

    apart = functools.cache(lambda: _read_apart(name, read))
    augmented = with_augmentation(lambda split: apart()[split], augmentation(crop, flip, shape))
    return Data(name.lower(), shape, classes, sizes, augmented)


def _assert_options(name: str, source: Any, test: str, options: Mapping[str, Any]) -> None:
    """Raise `InputError` for an option that is not the user's to give: it would decide which split is read, or change the images."""
    parameters = _parameters(source)
    which = "train" if "train" in parameters else "split"
    for option in options:
        # QMNIST's `what` is another word for it.
        if option in (which, "what"):
            raise InputError(
                f"dataset.torchvision.options may not set {option!r}: it decides which split is read",
                help="dataset.torchvision.test names the one that serves as 'test'",
            )
        if option in ("root", "download", "transform", "target_transform", "transforms", "loader"):
            raise InputError(f"dataset.torchvision.options may not set {option!r}")
        if option not in parameters:
            raise InputError(f"torchvision's {name} takes no {option!r}", help=nearest(option, parameters))
    if which == "split" and test == "train":
        raise InputError("dataset.torchvision.test = 'train': a model is not examined on what it was trained on")


def _read_apart(name: str, read: Callable[[str], Split]) -> dict[str, Split]:
    """Both splits. Raises `InputError` where images of one are in the other: more than the odd one that a published set has twice."""
    splits = {split: read(split) for split in ("train", "test")}
    known = set(_sums(splits["train"]))
    same = sum(one in known for one in _sums(splits["test"]))
    if same > 0.01 * len(splits["test"]):
        raise InputError(
            f"{same:,} of {len(splits['test']):,} test images of torchvision's {name} are training images too",
            help="an option or dataset.torchvision.test chooses what is read twice",
        )
    return splits


def _sums(split: Split) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in split.images.contiguous().numpy()]


# What is known of a data set without its pixels: the shape (C, H, W), the classes, and the sizes of its splits.
_About = tuple[tuple[int, int, int], tuple[str, ...], dict[str, int]]


@dataclass(frozen=True)
class _Published:
    """One of torchvision's classification sets in a folder; `source` is its class there."""

    name: str
    source: Any
    folder: Path
    test: str
    mode: Mode
    download: bool
    options: Mapping[str, Any]

    def open(self, split: str) -> Any:
        """torchvision's own data set. Raises `InputError` when it cannot be read."""
        which = split if split == "train" else self.test
        try:
            return _instance(self.source, self.folder, which, split == "train", self.download, self.options)
        except (RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
            remedy = f"set dataset.torchvision.root, or -s dataset.torchvision.download=true; its splits are named as {self.name}'s documentation says"
            raise InputError(
                f"torchvision's {self.name} cannot be read: {str(error).splitlines()[0]}",
                where=str(self.folder),
                help=remedy,
            ) from error

    def known(self) -> _About:
        """Of a set of arrays, before it is there. Raises `InputError` for any other: its images may have several sizes."""
        if self.name not in _ARRAYS:
            raise InputError(
                f"torchvision's {self.name} has images of several sizes",
                help="set dataset.torchvision.size: they are resized to size x size",
            )
        shape, count, training, testing = _ARRAYS[self.name]
        return shape, tuple(map(str, range(count))), {"train": training, "test": testing}

    def seen(self, opened: Mapping[str, Any], size: int) -> _About:
        """Of a set that is there, its images resized to size x size."""
        channels = _pixels(opened["train"], 0, self.mode, size).shape[0]
        named = [str(c) for c in getattr(opened["train"], "classes", [])]
        count = max(int(_labels(raw, self.name).max()) for raw in opened.values()) + 1
        classes = tuple(named) if len(named) >= count else tuple(map(str, range(count)))
        return (channels, size, size), classes, {split: len(raw) for split, raw in opened.items()}

    def arrays(self, split: str, *, shape: tuple[int, int, int], sizes: Mapping[str, int]) -> Split:
        """A split as it comes, its images in an array. Raises `InputError` where they are not of this shape or not as many as they should be."""
        raw = self.open(split)
        images = _nchw(torch.as_tensor(raw.data), shape[0])
        if len(images) != sizes[split] or tuple(images.shape[1:]) != shape:
            raise InputError(
                f"torchvision's {self.name} holds {len(images):,} {split} images of {tuple(images.shape[1:])}, not {sizes[split]:,} of {shape}",
                where=str(self.folder),
            )
        return Split(images, _labels(raw, self.name))

    def resized(self, raw: Any, split: str, shape: tuple[int, int, int]) -> Split:
        """A split with its images resized to this shape; they are kept in the cache."""
        labels, size = _labels(raw, self.name), shape[1]
        key = {
            "torchvision": self.name,
            "decoding": DECODING,
            "options": self.options or None,
            "split": split,
            "test": self.test,
            "mode": self.mode,
            "shape": shape,
            "folder": str(self.folder.resolve()),
            "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest(),
        }
        pixels = decoded(key, lambda place: _pixels(raw, place, self.mode, size), len(raw), shape)
        return Split(torch.from_numpy(pixels), labels)


def _classification(name: str) -> Any:
    """torchvision's class of this name. Raises `InputError` where it is no set for classification."""
    from torchvision import datasets

    known = [n for n in datasets.__all__ if hasattr(getattr(datasets, n), "__getitem__")]
    source = getattr(datasets, name, None) if name in known else None
    parameters = inspect.signature(source).parameters if source is not None else {}
    if source is None or not {"train", "split"} & set(parameters) or "root" not in parameters:
        usable = [n for n in known if {"train", "split"} & set(inspect.signature(getattr(datasets, n)).parameters)]
        raise InputError(f"torchvision has no classification set {name!r}", help=nearest(name, usable))
    return source


def _parameters(source: Any) -> set[str]:
    """What a class of torchvision's takes, also what it hands on to the class that it extends (EMNIST's `train`)."""
    found: set[str] = set()
    for cls in source.__mro__[:-1]:
        parameters = inspect.signature(cls).parameters.values()
        found |= {p.name for p in parameters}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _instance(source: Any, folder: Path, which: str, training: bool, download: bool, options: Mapping[str, Any]) -> Any:
    parameters = _parameters(source)
    settings = {**({"train": training} if "train" in parameters else {"split": which}), **options}
    try:
        return source(folder, **settings)
    # It is not there.
    except RuntimeError:
        if not download or "download" not in parameters:
            raise
    # torchvision writes straight to the final names.
    with adding_to(folder) as temporary:
        source(temporary, **settings, download=True)
    return source(folder, **settings)


def _labels(raw: Any, name: str) -> torch.Tensor:
    for attribute in _LABELS:
        if (found := getattr(raw, attribute, None)) is not None:
            return torch.as_tensor(np.asarray(found), dtype=torch.long)
    raise InputError(
        f"torchvision's {name} does not list its labels", help="save it as an image folder: dataset.imagefolder"
    )


def _nchw(arrays: torch.Tensor, channels: int) -> torch.Tensor:
    if arrays.dim() == 3:
        return arrays[:, None]
    return arrays if arrays.shape[1] == channels else arrays.permute(0, 3, 1, 2).contiguous()


def _pixels(raw: Any, place: int, mode: Mode, size: int | None) -> np.ndarray:
    from PIL import Image

    image = raw[place][0]
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    image = to_mode(image, mode)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return pixels_of(image)

"""Published data sets through torchvision: CIFAR-10 and CIFAR-100, and any other of its classification sets by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from actkit.config.registry import register
from actkit.datasets.download import fetch, md5, whole
from actkit.datasets.folders import assert_small, decoded
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.display import tell
from actkit.errors import InputError, nearest

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
    shape, folder, title = (3, 32, 32), Path(root).expanduser(), name.replace("CIFAR", "CIFAR-")

    def read(split: str) -> Split:
        from torchvision import datasets
        from torchvision.datasets.utils import extract_archive

        source = getattr(datasets, name)
        files = folder / source.base_folder
        if not files.is_dir():
            archive = folder / source.filename
            if not download and not archive.is_file():
                raise InputError(
                    f"{title} is not there",
                    where=str(files),
                    help=f"set dataset.{name.lower()}.root to the folder that holds {source.base_folder} or {source.filename}, or -s dataset.{name.lower()}.download=true",
                )
            fetch(source.url, archive, source.tgz_md5)
            try:
                with whole(folder) as temporary:
                    tell(f"unpacking {archive.name}", 0, 1)
                    extract_archive(archive, temporary)
            except OSError as error:
                raise InputError(
                    f"{archive.name} cannot be unpacked: {error}",
                    where=str(folder),
                    help="make room, or choose another root",
                ) from error
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
    "MNIST": ((1, 28, 28), 10, 60_000, 10_000), "FashionMNIST": ((1, 28, 28), 10, 60_000, 10_000),
    "KMNIST": ((1, 28, 28), 10, 60_000, 10_000), "SVHN": ((3, 32, 32), 10, 73_257, 26_032),
    "STL10": ((3, 96, 96), 10, 5_000, 8_000), "USPS": ((1, 16, 16), 10, 7_291, 2_007),
}  # fmt: skip
_LABELS = ("targets", "labels", "_labels", "_targets")


@register("dataset")
def torchvision(
    *,
    name: str,
    root: str = "data",
    download: bool = False,
    size: int | None = None,
    test: str = "test",
    mode: Literal["RGB", "L"] = "RGB",
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
    from torchvision import datasets

    if name in ("CIFAR10", "CIFAR100"):
        raise InputError(
            f"torchvision's {name} has a name of its own here", help=f"run.data = @dataset.{name.lower()}()"
        )

    source = _classification(datasets, name)
    folder = Path(root).expanduser()

    def opened(split: str) -> Any:
        which = split if split == "train" else test
        try:
            return _instance(source, folder, which, split == "train", download, options or {})
        except (RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
            remedy = f"set dataset.torchvision.root, or -s dataset.torchvision.download=true; its splits are named as {name}'s documentation says"
            raise InputError(
                f"torchvision's {name} cannot be read: {str(error).splitlines()[0]}", where=str(folder), help=remedy
            ) from error

    if name in _ARRAYS and size is None:
        shape, count, training, testing = _ARRAYS[name]
        classes, sizes = tuple(map(str, range(count))), {"train": training, "test": testing}
        found: dict[str, Any] = {}
    else:
        if size is None:
            raise InputError(
                f"torchvision's {name} has images of several sizes",
                help="set dataset.torchvision.size: they are resized to size x size",
            )
        found = {split: opened(split) for split in ("train", "test")}
        channels = _pixels(found["train"], 0, mode, size).shape[0]
        shape, sizes = (channels, size, size), {split: len(raw) for split, raw in found.items()}
        named = [str(c) for c in getattr(found["train"], "classes", [])]
        count = max(int(_labels(raw, name).max()) for raw in found.values()) + 1
        classes = tuple(named) if len(named) >= count else tuple(map(str, range(count)))
        assert_small(sum(sizes.values()), shape, max_gib, "torchvision", where=str(folder))

    def read(split: str) -> Split:
        raw = found[split] if split in found else opened(split)
        labels, arrays = _labels(raw, name), getattr(raw, "data", None)
        if size is None and isinstance(arrays, (np.ndarray, torch.Tensor)):
            images = _nchw(torch.as_tensor(arrays), shape[0])
            if len(images) != sizes[split] or tuple(images.shape[1:]) != shape:
                raise InputError(
                    f"torchvision's {name} holds {len(images):,} {split} images of {tuple(images.shape[1:])}, not {sizes[split]:,} of {shape}",
                    where=str(folder),
                )
            return Split(images, labels)
        key = {
            "torchvision": name, "options": options, "split": split, "test": test, "mode": mode, "shape": shape, "folder": str(folder.resolve()),
            "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest(),
        }  # fmt: skip
        return Split(
            torch.from_numpy(decoded(key, lambda place: _pixels(raw, place, mode, size), len(raw), shape)), labels
        )

    return Data(name.lower(), shape, classes, sizes, with_augmentation(read, augmentation(crop, flip, shape)))


def _classification(datasets: Any, name: str) -> Any:
    known = [n for n in datasets.__all__ if hasattr(getattr(datasets, n), "__getitem__")]
    source = getattr(datasets, name, None) if name in known else None
    parameters = inspect.signature(source).parameters if source is not None else {}
    if source is None or not {"train", "split"} & set(parameters) or "root" not in parameters:
        usable = [n for n in known if {"train", "split"} & set(inspect.signature(getattr(datasets, n)).parameters)]
        raise InputError(f"torchvision has no classification set {name!r}", help=nearest(name, usable))
    return source


def _instance(source: Any, folder: Path, which: str, training: bool, download: bool, options: Mapping[str, Any]) -> Any:
    parameters = inspect.signature(source).parameters
    told = {**({"train": training} if "train" in parameters else {"split": which}), **options}
    try:
        return source(folder, **told)
    except RuntimeError:  # not there
        if not download or "download" not in parameters:
            raise
    with whole(folder) as temporary:  # torchvision writes straight to the final names
        source(temporary, **told, download=True)
    return source(folder, **told)


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


def _pixels(raw: Any, place: int, mode: str, size: int | None) -> np.ndarray:
    from PIL import Image

    image = raw[place][0]
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    image = image.convert(mode)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]

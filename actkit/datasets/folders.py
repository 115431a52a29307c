"""Folders of images in class folders: small ones decoded into memory once, large ones read by workers as they are needed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from actkit.config.registry import register
from actkit.datasets.caching import cached
from actkit.datasets.decoding import FileSplit
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.display import tell
from actkit.errors import InputError, nearest
from actkit.machine import cores

Mode = Literal["RGB", "L"]
# Fewer images are decoded in a moment.
CACHED = 1000
_IMAGENET = {"train": 1_281_167, "test": 50_000}
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


@register("dataset")
def imagefolder(
    *,
    root: str,
    train: str = "train",
    test: str = "test",
    mode: Mode = "RGB",
    crop: int = 4,
    flip: bool = True,
    limit: int | None = None,
    max_gib: float = 4.0,
) -> Data:
    """A folder `<root>/train/<class>/*` and `<root>/test/<class>/*` of images of one size, decoded into memory as uint8.

    What was decoded is kept in a cache (below XDG_CACHE_HOME, or ~/.cache), which is used again while the files' names, sizes and times are
    the same and its own sum is right. For images of many sizes, or too many for memory, there is `dataset.imagenet`.

    Args:
        limit: take only the first so many images of each class and split, for a trial.
        max_gib: refuse a set that would take more memory than this.
    """
    base, files = _listing("imagefolder", root, {"train": train, "test": test}, limit)
    classes = tuple(files["train"])
    width, height = _image_size(base / next(f for names in files["train"].values() for f in names))
    shape = (3 if mode == "RGB" else 1, height, width)
    sizes = {name: sum(map(len, by_class.values())) for name, by_class in files.items()}
    assert_small(sum(sizes.values()), shape, max_gib, "imagefolder", where=str(base))

    def read(name: str) -> Split:
        names = [file for cls in classes for file in files[name].get(cls, [])]
        labels = torch.tensor([i for i, cls in enumerate(classes) for _ in files[name].get(cls, [])])

        def image(place: int) -> np.ndarray:
            return decode(base / names[place], mode, (width, height))

        key = {"folder": str(base.resolve()), "shape": shape, "files": _stamp(base, names)}
        return Split(torch.from_numpy(decoded(key, image, len(names), shape)), labels)

    name = f"imagefolder:{base.name}"
    return Data(name, shape, classes, sizes, with_augmentation(read, augmentation(crop, flip, shape)))


@register("dataset")
def imagenet(
    *,
    root: str = "data/imagenet",
    train: str = "train",
    val: str = "val",
    size: int = 224,
    resize: int | None = None,
    mode: Mode = "RGB",
    limit: int | None = None,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Data:
    """ImageNet (Russakovsky et al. 2015), or any folder `<root>/train/<class>/*`, `<root>/val/<class>/*`, decoded by worker processes.

    Its split 'test' is the folder `val`, ImageNet's 50,000 validation images, as in the literature. Training images are random crops
    (8 to 100 % of the area) resized to `size`, and flipped; test images are resized to `resize` at their short side and cut in the middle.

    Args:
        resize: 8/7 of `size` by default (256 for 224).
        limit: take only the first so many images of each class and split, for a trial.
        workers: processes that decode, one a core by default; 0 decodes in the main one.
        timeout: seconds to wait for a batch before giving up.
    """
    resize = round(size * 8 / 7) if resize is None else resize
    if size < 1 or resize < size:
        raise InputError(f"dataset.imagenet needs a size of at least 1 and resize >= size, got {size} and {resize}")
    if (workers is not None and workers < 0) or timeout <= 0:
        raise InputError(f"dataset.imagenet needs workers >= 0 and a positive timeout, got {workers} and {timeout:g}")
    folders, channels = {"train": train, "test": val}, 3 if mode == "RGB" else 1
    # Its numbers are known: a dry run, or an import, needs no file.
    if not Path(root).expanduser().is_dir():

        def absent(name: str) -> FileSplit:
            _listing("imagenet", root, folders, limit)
            raise AssertionError("unreachable")

        return Data("imagenet", (channels, size, size), tuple(map(str, range(1000))), _IMAGENET, absent)
    base, files = _listing("imagenet", root, folders, limit)
    classes = tuple(files["train"])
    processes = cores() if workers is None else workers

    def read(name: str) -> FileSplit:
        names = [os.fsencode(file) for cls in classes for file in files[name].get(cls, [])]
        labels = torch.tensor([i for i, cls in enumerate(classes) for _ in files[name].get(cls, [])])
        split = FileSplit(base, np.array(names), labels, size, resize, mode, workers=processes, timeout=timeout)
        return dataclasses.replace(split, augmented=name == "train")

    sizes = {name: sum(map(len, by_class.values())) for name, by_class in files.items()}
    return Data(f"imagenet:{base.name}", (channels, size, size), classes, sizes, read)


def assert_small(count: int, shape: tuple[int, int, int], max_gib: float, dataset: str, *, where: str) -> None:
    """Raise `InputError` for images that would take more than so many GiB of memory."""
    gib = count * shape[0] * shape[1] * shape[2] / 2**30
    if gib > max_gib:
        raise InputError(
            f"{count:,} images of {shape[2]}x{shape[1]} take {gib:.1f} GiB in memory, more than max_gib = {max_gib}",
            where=where,
            help=f"raise dataset.{dataset}.max_gib, take a part (limit), or read from files with dataset.imagenet",
        )


def decoded(
    key: Mapping[str, object], decode: Callable[[int], np.ndarray], count: int, shape: tuple[int, int, int]
) -> np.ndarray:
    """`decode(i)`, each (C, H, W) uint8, of so many images; from the cache when they were decoded before."""

    def make() -> np.ndarray:
        images = np.empty((count, *shape), np.uint8)

        def fill(place: int) -> None:
            images[place] = decode(place)

        # Small images are decoded under the interpreter's lock, where threads only wait for each other (measured: twice as slow).
        threads = 1 if shape[1] * shape[2] < 96 * 96 else cores()
        if threads == 1:
            for place in range(count):
                fill(place)
                if place % 500 == 0:
                    tell("decoding images", place, count)
            return images
        with ThreadPoolExecutor(threads) as pool:
            for place, _ in enumerate(pool.map(fill, range(count))):
                if place % 500 == 0:
                    tell("decoding images", place, count)
        return images

    return cached(dict(key), make) if count >= CACHED else make()


def _class_folders(base: Path, below: str, limit: int | None, setting: str) -> dict[str, list[str]]:
    """The images of one split: file names below the root, by class."""
    folder = base / below
    if not folder.is_dir():
        there = sorted(p.name for p in base.iterdir() if p.is_dir())
        near = nearest(below, there) or "it is empty"
        raise InputError(
            f"the image folder has no {below!r}", where=str(base), help=f"{near}; -s dataset.{setting}=NAME names it"
        )
    with os.scandir(folder) as entries:
        classes = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    found = {}
    for cls in classes:
        with os.scandir(folder / cls) as entries:
            names = sorted(e.name for e in entries if e.name.lower().endswith(_IMAGES))[:limit]
        found[cls] = [f"{below}/{cls}/{name}" for name in names]
    if not any(found.values()):
        raise InputError(
            "there are no images in class folders",
            where=str(folder),
            help="it must hold one folder a class, with images in it",
        )
    return found


def _listing(
    dataset: str, root: str, folders: Mapping[str, str], limit: int | None
) -> tuple[Path, dict[str, dict[str, list[str]]]]:
    """The root, and each split's image files by class."""
    if limit is not None and limit < 1:
        raise InputError(f"dataset.{dataset}.limit must be at least 1, got {limit}")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise InputError(
            "the image folder does not exist",
            where=str(base),
            help=f"set dataset.{dataset}.root to the folder that holds {' and '.join(folders.values())}",
        )
    called = {"train": "train", "test": "val" if dataset == "imagenet" else "test"}
    files = {name: _class_folders(base, below, limit, f"{dataset}.{called[name]}") for name, below in folders.items()}
    if extra := set(files["test"]) - set(files["train"]):
        raise InputError(
            f"classes in {folders['test']} that {folders['train']} does not have: {', '.join(sorted(extra)[:5])}",
            where=str(base),
        )
    return base, files


def _stamp(base: Path, names: list[str]) -> str:
    """A hash of the files' names, sizes and times."""
    digest = hashlib.sha256()
    for name in names:
        found = os.stat(base / name)
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _image_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        # Opening reads the header only.
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise InputError(f"not a readable image: {error}", where=str(path)) from error


def decode(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """An image of this (width, height) as (C, H, W) uint8. Raises `InputError` where it is unreadable or of another size."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.size != size:
                raise InputError(
                    f"this image is {image.size[0]}x{image.size[1]}, the first one {size[0]}x{size[1]}",
                    where=str(path),
                    help="all images must have one size; dataset.imagenet resizes them",
                )
            pixels = np.asarray(image.convert(mode))
    except OSError as error:
        raise InputError(
            f"not a readable image: {error}", where=str(path), help="remove or replace the file"
        ) from error
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]

"""Folders of images in class folders: small ones decoded into memory once, large ones read by workers as they are needed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from actkit.config.registry import register
from actkit.datasets.caching import cached
from actkit.datasets.decoding import FileSplit
from actkit.datasets.listing import Listing, find_splits, list_images
from actkit.datasets.pixels import DECODING, Header, Mode, Unreadable, header_of, image_of, pixels_of, unreadable
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.display import tell
from actkit.errors import InputError
from actkit.files import shown_path
from actkit.machine import cores

# Fewer images are decoded in a moment.
CACHED = 1000
_IMAGENET = {"train": 1_281_167, "test": 50_000}


@register("dataset")
def imagefolder(
    *,
    root: str,
    train: str | None = None,
    test: str | None = None,
    val: str | None = None,
    mode: Mode = "RGB",
    size: int | None = None,
    resize: int | None = None,
    background: float = 1.0,
    crop: int = 4,
    flip: bool = True,
    limit: int | None = None,
    skip_unreadable: bool = False,
    max_gib: float = 4.0,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Data:
    """A folder `<root>/<split>/<class>/*` of images, or `<root>/<class>/*` without splits, which `dataset.holdout` then makes.

    Without `size` all images have one size, and are decoded into memory as uint8. What was decoded is kept in a cache (below XDG_CACHE_HOME, or
    ~/.cache), which is used again while the files' names, sizes and times are the same and its own sum is right.

    With `size` they may have any: worker processes decode them as they are needed. Test images are resized so that their short side is `resize`
    (bilinear, antialiased), and their centre is cut out; training images are random crops (8 to 100 % of the area, 3/4 to 4/3 in aspect) resized to `size`.

    Folders inside a class folder belong to the class. What is left out is said, with counts. docs/data.md lists what is read and what is refused.

    Args:
        train, test, val: the splits' folders; by default those called train, test and val, or as people spell them (validation, Valid, ...). Where there is
            no test folder, val serves as 'test'.
        mode: what every image is converted to, 'RGB' or grey, 'L'.
        resize: 8/7 of `size` by default (256 for 224).
        background: the grey, in [0,1], that lies behind what is see-through.
        crop: of images of one size, random crops of the image padded by so many pixels; with `size`, 0 trains on the centres instead of random crops.
        limit: take only the first so many images of each class and split, for a trial.
        skip_unreadable: leave out files that cannot be decoded, with a count; by default they are all named, and nothing is trained.
        max_gib: without `size`, refuse a set that would take more memory than this.
        workers, timeout: with `size`, as of `dataset.imagenet`.
    """
    _assert_settings("imagefolder", size, resize, background, workers, timeout)
    with _reading(root):
        base = _base("imagefolder", root, limit, "the splits, or the class folders")
        folders, notes = find_splits(base, {"train": train, "test": test, "val": val}, "imagefolder")
        listing = list_images(base, folders, limit)
        listing.notes += notes
        headers = _checked(listing, folders, mode, skip_unreadable)
    name = f"imagefolder:{shown_path(base.name)}"
    if size is not None:
        cut = _Cut(size, resize or round(size * 8 / 7), mode, background, bool(crop), flip, workers, timeout)
        return cut.data(name, listing)
    shape = _shape(listing, headers, mode)
    assert_small(sum(listing.sizes.values()), shape, max_gib, "imagefolder", where=shown_path(base))

    def read(split: str) -> Split:
        return _in_memory(listing, split, shape, mode, background)

    augmented = with_augmentation(read, augmentation(crop, flip, shape))
    return Data(name, shape, listing.classes, listing.sizes, augmented, listing.said())


@register("dataset")
def imagenet(
    *,
    root: str = "data/imagenet",
    train: str = "train",
    val: str = "val",
    size: int = 224,
    resize: int | None = None,
    mode: Mode = "RGB",
    background: float = 1.0,
    limit: int | None = None,
    skip_unreadable: bool = False,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Data:
    """ImageNet (Russakovsky et al. 2015), or any folder `<root>/train/<class>/*`, `<root>/val/<class>/*`, decoded by worker processes.

    Its split 'test' is the folder `val`, ImageNet's 50,000 validation images, as in the literature. Training images are random crops
    (8 to 100 % of the area) resized to `size`, and flipped; test images are resized to `resize` at their short side and cut in the middle.

    Args:
        resize: 8/7 of `size` by default (256 for 224).
        background: the grey, in [0,1], that lies behind what is see-through.
        limit: take only the first so many images of each class and split, for a trial.
        skip_unreadable: leave out files that cannot be decoded, with a count; by default they are all named before anything is trained.
        workers: processes that decode, one a core by default; 0 decodes in the main one.
        timeout: seconds to wait for a batch before giving up.
    """
    _assert_settings("imagenet", size, resize, background, workers, timeout)
    folders, channels = {"train": train, "test": val}, 3 if mode == "RGB" else 1
    below = f"{train} and {val}"
    # Its numbers are known: a dry run, or an import, needs no file.
    if not Path(root).expanduser().is_dir():

        def absent(name: str) -> FileSplit:
            _base("imagenet", root, limit, below)
            raise AssertionError("unreachable")

        return Data("imagenet", (channels, size, size), tuple(map(str, range(1000))), _IMAGENET, absent)
    with _reading(root):
        base = _base("imagenet", root, limit, below)
        find_splits(base, {**folders, "val": None}, "imagenet")
        listing = list_images(base, folders, limit)
        if skip_unreadable:
            _checked(listing, folders, mode, True)
        else:
            listing.assert_classes(folders)
    cut = _Cut(size, resize or round(size * 8 / 7), mode, background, True, True, workers, timeout)
    data = cut.data(f"imagenet:{shown_path(base.name)}", listing)
    if skip_unreadable:
        return data
    # A million headers take minutes: they are read when the first pixels are.
    check = functools.cache(lambda: _checked(listing, folders, mode, False))

    def read(split: str) -> FileSplit:
        check()
        found: FileSplit = data.split(split)
        return found

    return dataclasses.replace(data, read=read)


@dataclass(frozen=True)
class _Cut:
    """How images of any size become images of one; and who decodes them."""

    size: int
    resize: int
    mode: Mode
    background: float
    crop: bool
    flip: bool
    workers: int | None
    timeout: float

    def data(self, name: str, listing: Listing) -> Data:
        shape = (3 if self.mode == "RGB" else 1, self.size, self.size)
        processes = cores() if self.workers is None else self.workers

        def read(split: str) -> FileSplit:
            files = np.array([os.fsencode(file) for file in listing.files(split)])
            return FileSplit(
                listing.base,
                files,
                torch.tensor(listing.labels(split)),
                self.size,
                self.resize,
                self.mode,
                augmented=split == "train",
                workers=processes,
                timeout=self.timeout,
                background=self.background,
                crop=self.crop,
                flip=self.flip,
            )

        return Data(name, shape, listing.classes, listing.sizes, read, listing.said())


def _assert_settings(
    dataset: str, size: int | None, resize: int | None, background: float, workers: int | None, timeout: float
) -> None:
    if size is None and resize is not None:
        raise InputError(f"dataset.{dataset}.resize does nothing without size", help=f"set dataset.{dataset}.size too")
    if size is not None and (size < 1 or (resize is not None and resize < size)):
        raise InputError(f"dataset.{dataset} needs a size of at least 1 and resize >= size, got {size} and {resize}")
    if (workers is not None and workers < 0) or timeout <= 0:
        raise InputError(f"dataset.{dataset} needs workers >= 0 and a positive timeout, got {workers} and {timeout:g}")
    if not 0 <= background <= 1:
        raise InputError(f"dataset.{dataset}.background is a grey in [0,1], got {background:g}")


class _reading:
    """Meanwhile, a folder that may not be listed is an `InputError`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            place = error.filename or self.root
            raise InputError(f"the folder cannot be read: {error.strerror}", where=shown_path(place)) from error


def _base(dataset: str, root: str, limit: int | None, below: str) -> Path:
    """The root. Raises `InputError` where it is no folder."""
    if limit is not None and limit < 1:
        raise InputError(f"dataset.{dataset}.limit must be at least 1, got {limit}")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise InputError(
            "the image folder does not exist",
            where=shown_path(base),
            help=f"set dataset.{dataset}.root to the folder that holds {below}",
        )
    return base


# -- before any pixel ----------------------------------------------------------------------------------------------------


def _checked(listing: Listing, folders: Mapping[str, str], mode: Mode, skip_unreadable: bool) -> dict[str, Header]:
    """The header of every file; the listing then holds only what can be used.

    Raises `InputError`, with the names, for files that cannot be read (unless they are left out), or for a class that a split lacks.
    """
    files = [file for split in listing.splits for file in listing.files(split)]
    headers = _headers(listing.base, files, mode if skip_unreadable else None)
    problems = listing.broken | {file: header.problem for file, header in headers.items() if header.problem}
    if problems and not skip_unreadable:
        raise unreadable([(listing.base / file, problem) for file, problem in sorted(problems.items())])
    listing.without(problems)
    listing.broken = {}
    listing.assert_classes(folders)
    moving = [file for file, header in headers.items() if header.frames and not header.problem]
    if moving:
        listing.notes.append(f"{len(moving):,} files hold several frames ({shown_path(moving[0])}): the first is taken")
    return headers


def _headers(base: Path, files: list[str], decoding: Mode | None) -> dict[str, Header]:
    """The headers of these files; with `decoding`, each is decoded to be sure. They are kept in the cache where they are many."""

    def look(file: str) -> Header:
        header = header_of(base / file)
        if decoding is not None and not header.problem:
            try:
                image_of(base / file, decoding)
            except Unreadable as error:
                return Header(problem=str(error))
        return header

    def make() -> np.ndarray:
        found = np.zeros((len(files), 4), np.int64)
        with ThreadPoolExecutor(cores()) as pool:
            for place, header in enumerate(pool.map(look, files)):
                found[place] = header.width, header.height, header.frames, not header.problem
                if place % 500 == 0:
                    tell("looking at images", place, len(files))
        return found

    if len(files) < CACHED:
        return {file: look(file) for file in files}
    key = {"headers": DECODING, "folder": str(base.resolve()), "files": _stamp(base, files), "decoding": decoding}
    found = cached(key, make, kind="headers")
    return {
        file: Header(int(width), int(height), bool(frames)) if fine else look(file)
        for file, (width, height, frames, fine) in zip(files, found, strict=True)
    }


def _shape(listing: Listing, headers: Mapping[str, Header], mode: Mode) -> tuple[int, int, int]:
    """Of the images, where all have one size. Raises `InputError` where they do not."""
    files = [file for split in listing.splits for file in listing.files(split)]
    first = headers[files[0]]
    size = (first.width, first.height)
    others = [file for file in files if headers[file][:2] != size]
    if others:
        other = headers[others[0]]
        raise InputError(
            f"images of several sizes: this one is {other.width}x{other.height}, the first one {size[0]}x{size[1]}, as {len(files) - len(others):,} of {len(files):,} are",
            where=shown_path(listing.base / others[0]),
            help="dataset.imagefolder.size = N resizes all of them, and cuts out their centre",
        )
    return (3 if mode == "RGB" else 1, size[1], size[0])


def assert_small(count: int, shape: tuple[int, int, int], max_gib: float, dataset: str, *, where: str) -> None:
    """Raise `InputError` for images that would take more than so many GiB of memory."""
    gib = count * shape[0] * shape[1] * shape[2] / 2**30
    if gib > max_gib:
        raise InputError(
            f"{count:,} images of {shape[2]}x{shape[1]} take {gib:.1f} GiB in memory, more than max_gib = {max_gib}",
            where=where,
            help=f"raise dataset.{dataset}.max_gib, take a part (limit), or read from files with dataset.imagenet",
        )


# -- into memory ---------------------------------------------------------------------------------------------------------


def _in_memory(listing: Listing, split: str, shape: tuple[int, int, int], mode: Mode, background: float) -> Split:
    base, names = listing.base, listing.files(split)
    problems: list[tuple[Path, str]] = []

    def image(place: int) -> np.ndarray:
        try:
            return decode(base / names[place], mode, background)
        # All of them are named at once.
        except Unreadable as error:
            problems.append((base / names[place], str(error)))
            return np.zeros(shape, np.uint8)

    def whole() -> None:
        if problems:
            raise unreadable(sorted(problems))

    key = {
        "decoding": [DECODING, background],
        "folder": str(base.resolve()),
        "shape": shape,
        "files": _stamp(base, names),
    }
    pixels = decoded(key, image, len(names), shape, whole=whole)
    return Split(torch.from_numpy(pixels), torch.tensor(listing.labels(split)))


def decode(path: Path, mode: Mode, background: float) -> np.ndarray:
    """An image as (C, H, W) uint8. Raises `Unreadable`."""
    return pixels_of(image_of(path, mode, background))


def decoded(
    key: Mapping[str, object],
    decode: Callable[[int], np.ndarray],
    count: int,
    shape: tuple[int, int, int],
    *,
    whole: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """`decode(i)`, each (C, H, W) uint8, of so many images; from the cache when they were decoded before.

    `whole` is asked after the last, and raises where the images are not to be kept.
    """

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
        else:
            with ThreadPoolExecutor(threads) as pool:
                for place, _ in enumerate(pool.map(fill, range(count))):
                    if place % 500 == 0:
                        tell("decoding images", place, count)
        whole()
        return images

    return cached(dict(key), make) if count >= CACHED else make()


def _stamp(base: Path, names: list[str]) -> str:
    """A hash of the files' names, sizes and times."""
    digest = hashlib.sha256()
    for name in names:
        found = os.stat(base / name)
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

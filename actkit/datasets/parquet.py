"""Tables of images: Parquet files as the Hugging Face hub keeps data sets. Needs pyarrow (the extra `parquet`)."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actkit.config.registry import register
from actkit.datasets.checks import checked_labels
from actkit.datasets.folders import assert_small, decoded
from actkit.datasets.listing import SPELLINGS
from actkit.datasets.pixels import DECODING, Mode, Unreadable, image_of, pixels_of, unreadable
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.errors import InputError
from actkit.files import sha256, shown_path

_IMAGES = ("image", "img")
_LABELS = ("label", "labels")


@register("dataset")
def parquet(
    *,
    root: str,
    image: str | None = None,
    label: str | None = None,
    mode: Mode = "RGB",
    size: int | None = None,
    background: float = 1.0,
    crop: int = 0,
    flip: bool = False,
    max_gib: float = 4.0,
) -> Data:
    """Parquet files of images, as the Hugging Face hub keeps them: `train-00000-of-00001.parquet`, `test-...`, in `root` or in its folder `data`.

    Images are encoded files in a column of bytes, or of `bytes` and `path`; labels whole numbers, whose names are the file's own where it has them.
    They are decoded into memory as uint8. Without any split's name the rows are training images, for `dataset.holdout` to divide. Needs the extra `parquet`.

    Args:
        image, label: the columns; by default 'image' or 'img', and 'label' or 'labels'.
        size: images are resized so that their short side is `size`, and their centre cut out; needed where they have several sizes.
        background: the grey, in [0,1], that lies behind what is see-through.
        max_gib: refuse a set that would take more memory than this.
    """
    base = Path(root).expanduser()
    files, others = _files(base)
    tables = {split: _Table(tuple(paths), image, label) for split, paths in files.items()}
    first = tables["train"].image(0, mode, background)
    width, height = (size, size) if size is not None else first.size
    shape = (3 if mode == "RGB" else 1, height, width)
    sizes = {split: len(table.labels) for split, table in tables.items()}
    assert_small(sum(sizes.values()), shape, max_gib, "parquet", where=shown_path(base))
    count = max(int(table.labels.max()) for table in tables.values()) + 1
    classes = tables["train"].names or tuple(map(str, range(count)))

    def read(split: str) -> Split:
        return tables[split].split(shape, mode, size, background)

    notes = (f"left out: {', '.join(sorted(others))}",) if others else ()
    name = f"parquet:{shown_path(base.stem)}"
    return Data(name, shape, classes, sizes, with_augmentation(read, augmentation(crop, flip, shape)), notes)


def _files(base: Path) -> tuple[dict[str, list[Path]], set[str]]:
    """The files of each split, and the names of those that belong to none. Raises `InputError` where there is no training split."""
    if base.is_file():
        return {"train": [base]}, set()
    found: dict[str, list[Path]] = {}
    others: list[Path] = []
    for path in sorted(base.rglob("*.parquet")) if base.is_dir() else ():
        words = {path.stem.lower().split("-")[0].split(".")[0], path.parent.name.lower() if path.parent != base else ""}
        split = next((split for split, spellings in SPELLINGS.items() if words & set(spellings)), None)
        if split is None:
            others.append(path)
        else:
            found.setdefault(split, []).append(path)
    if not found and others:
        found, others = {"train": others}, []
    if "train" not in found:
        raise InputError(
            "there are no Parquet files of a training split",
            where=shown_path(base),
            help="they are called train-*.parquet, test-*.parquet and validation-*.parquet, or lie in folders called so",
        )
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found, {shown_path(path.relative_to(base)) for path in others}


@dataclass(frozen=True)
class _Table:
    """The files of one split. Labels are read at once, images when they are asked for."""

    files: tuple[Path, ...]
    image_column: str | None
    label_column: str | None

    @functools.cached_property
    def _columns(self) -> tuple[str, str]:
        there = _opened(self.files[0]).schema_arrow.names
        return (
            _column(there, self.image_column, _IMAGES, "image", self.files[0]),
            _column(there, self.label_column, _LABELS, "label", self.files[0]),
        )

    def _read(self, column: str) -> list[Any]:
        rows: list[Any] = []
        for file in self.files:
            table = _tried(file, functools.partial(_opened(file).read, columns=[column]))
            rows += table.column(0).to_pylist()
        return rows

    @functools.cached_property
    def labels(self) -> Tensor:
        values = self._read(self._columns[1])
        if not values or any(not isinstance(value, int) for value in values):
            odd = next((value for value in values if not isinstance(value, int)), None)
            raise InputError(
                f"the column {self._columns[1]!r} holds {odd!r}, labels are whole numbers"
                if values
                else "it has no rows",
                where=shown_path(self.files[0]),
                help="dataset.parquet.label names another column",
            )
        return checked_labels(np.array(values))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, as Hugging Face's `datasets` writes them into the file; () where it does not."""
        about = (_opened(self.files[0]).schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            return tuple(map(str, json.loads(about)["info"]["features"][self._columns[1]]["names"]))
        except (ValueError, KeyError, TypeError):
            return ()

    @functools.cached_property
    def _images(self) -> list[bytes]:
        found: list[bytes] = []
        for place, row in enumerate(self._read(self._columns[0])):
            encoded = row.get("bytes") if isinstance(row, dict) else row
            if not isinstance(encoded, bytes):
                raise InputError(
                    f"row {place} of the column {self._columns[0]!r} holds no encoded image",
                    where=shown_path(self.files[0]),
                    help="columns of bytes, or of bytes and path, are read; a path alone is not. dataset.parquet.image names another column",
                )
            found.append(encoded)
        return found

    def image(self, place: int, mode: Mode, background: float) -> Any:
        try:
            return image_of(io.BytesIO(self._images[place]), mode, background)
        except Unreadable as error:
            raise unreadable([(self.files[0] / f"row {place}", str(error))]) from error

    def split(self, shape: tuple[int, int, int], mode: Mode, size: int | None, background: float) -> Split:
        problems: list[tuple[Path, str]] = []

        def pixels(place: int) -> np.ndarray:
            try:
                return _cut(image_of(io.BytesIO(self._images[place]), mode, background), shape, size)
            except Unreadable as error:
                problems.append((self.files[0].parent / f"row {place}", str(error)))
                return np.zeros(shape, np.uint8)

        def whole() -> None:
            if problems:
                raise unreadable(sorted(problems))

        key: Mapping[str, object] = {
            "parquet": [sha256(file) for file in self.files],
            "column": self._columns[0],
            "decoding": [DECODING, background, mode, size],
            "shape": shape,
        }
        return Split(torch.from_numpy(decoded(key, pixels, len(self.labels), shape, whole=whole)), self.labels)


def _cut(image: Any, shape: tuple[int, int, int], size: int | None) -> np.ndarray:
    """An image as (C, H, W) uint8 of this shape. Raises `Unreadable` where it is of another size and not to be resized."""
    from torchvision.transforms import functional as transforms

    if size is not None:
        image = transforms.center_crop(transforms.resize(image, [size]), [size, size])
    if image.size != (shape[2], shape[1]):
        raise Unreadable(
            f"it is {image.size[0]}x{image.size[1]}, the first one {shape[2]}x{shape[1]}; dataset.parquet.size resizes them"
        )
    return pixels_of(image)


def _column(there: list[str], named: str | None, usual: tuple[str, ...], what: str, file: Path) -> str:
    found = (
        [named] if named is not None and named in there else [name for name in usual if name in there and named is None]
    )
    if len(found) != 1:
        raise InputError(
            f"no column {named!r}" if named is not None else f"the column of the {what}s cannot be told",
            where=shown_path(file),
            help=f"dataset.parquet.{what} names it; there is {', '.join(there)}",
        )
    return found[0]


def _opened(file: Path) -> Any:
    """pyarrow's view of a file. Raises `InputError` where pyarrow is missing, or the file is no Parquet."""
    try:
        from pyarrow import parquet as reader
    except ImportError as error:
        raise InputError(
            "dataset.parquet needs pyarrow, which is not installed", help="pip install 'actkit[parquet]'"
        ) from error
    return _tried(file, lambda: reader.ParquetFile(file))


def _tried(file: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    # pyarrow's errors are OSErrors and ValueErrors.
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Parquet file that can be read: {str(error).splitlines()[0]}", where=shown_path(file)
        ) from error

"""One door for data: tensors, arrays, a torch data set or loader, a folder, a name, all become `actkit.Data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from actkit.config import registry
from actkit.config.spec import Spec
from actkit.datasets import Data, Labelled, Split
from actkit.datasets.checks import as_tensor, checked_images, checked_labels
from actkit.errors import InputError, nearest
from actkit.python.surroundings import load_plugins
from actkit.python.torch_data import DatasetSplit, dataset_of, labels_of

_TAKEN = "a tuple (x, y) of tensors, a torch DataLoader or Dataset, a folder of class folders, an actkit.Data, or the name of a data set ('digits')"
# Bytes of images that are read into memory for an examination, which looks at them many times.
_HELD = 4 << 30


def as_data(data: Any, *, split: str = "test", classes: Sequence[str] | None = None, limit: int | None = None) -> Data:
    """Data, whatever form they come in.

    Args:
        data: a tuple (x, y): images (N, C, H, W), floating in [0,1] or uint8, and labels (N,); a torch DataLoader or Dataset of such pairs; a folder
            `<class>/*` or `<split>/<class>/*`, or an .npz file; the name or Spec of a registered data set; or `actkit.Data` itself.
        split: what tensors, loaders and torch data sets are called: 'test' for an examination, 'train' for a training.
        classes: their names; by default 0, 1, ...
        limit: of a torch data set, read only so many examples, for an examination: the same fixed choice that a probe makes.

    The caller's tensors are never written to. Raises `InputError`, in one line, for images outside [0,1], labels that are no classes, and anything else.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, Spec):
        load_plugins()
        made: Data = data.build()()
        return made
    if isinstance(data, (str, Path)):
        return _named(data, split)
    if isinstance(data, Split):
        return _single("data", data, split, classes)
    if isinstance(data, (tuple, list)):
        return _single("data", _pair(data), split, classes)
    if isinstance(data, (DataLoader, Dataset)):
        return _of_torch(data, split, classes, limit)
    raise InputError(f"data cannot be a {type(data).__name__}", help=f"give {_TAKEN}")


# -- names and folders ---------------------------------------------------------------------------------------------------


def _named(data: str | Path, split: str) -> Data:
    load_plugins()
    path, known = Path(data).expanduser(), {entry.name for entry in registry.entries("dataset")}
    if isinstance(data, str) and data.removeprefix("dataset.") in known:
        made: Data = Spec("dataset", data.removeprefix("dataset.")).build()()
        return made
    if path.suffix == ".npz" and path.is_file():
        made = Spec("dataset", "npz", {"file": str(path)}).build()()
        return _only_split(made, split)
    if path.is_dir():
        made = Spec("dataset", "imagefolder", {"root": str(path)}).build()()
        return _only_split(made, split)
    raise InputError(
        f"there is no data set and no folder {str(data)!r}",
        help=nearest(str(data), known, listing=False) or f"give {_TAKEN}",
    )


def _only_split(data: Data, split: str) -> Data:
    """Where there is a single split, it is the one that is meant."""
    (only, *more) = data.sizes
    if more or only == split:
        return data
    return dataclasses.replace(data, sizes={split: data.sizes[only]}, read=lambda name: _plain(data.split(only), name))


def _plain(found: Any, name: str) -> Any:
    return found if name == "train" else found.plain()


# -- tensors -------------------------------------------------------------------------------------------------------------


def _single(name: str, split: Any, called: str, classes: Sequence[str] | None) -> Data:
    """Data of one split."""
    if not len(split):
        raise InputError("there are no images")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0:
        raise InputError(f"labels are classes from 0, these go down to {low}", help="leave out images without a class")
    names = tuple(map(str, range(high + 1) if classes is None else classes))
    x, _ = next(iter(split.batches([torch.arange(1)])))
    channels, height, width = x.shape[1:]
    return Data(name, (channels, height, width), names, {called: len(split)}, lambda _: split)


def _pair(pair: Sequence[Any]) -> Split:
    if len(pair) != 2:
        raise InputError(f"data as a tuple are (images, labels), this has {len(pair)} parts")
    x, y = images_of(pair[0]), checked_labels(pair[1]).cpu()
    if len(x) != len(y):
        raise InputError(f"there are {len(x)} images but {len(y)} labels")
    return Split(x.cpu(), y)


def images_of(images: Any) -> Tensor:
    """Images (N, C, H, W), uint8 or floating in [0,1], as a tensor. Raises `InputError`, which says what was seen and the remedy, for others."""
    found = as_tensor(images, "images")
    if found.dim() != 4:
        help = "a batch of one image: x[None]" if found.dim() == 3 else "images.view(-1, channels, height, width)"
        if found.dim() == 3 and found.shape[0] not in (1, 3):
            help = "grey images: x[:, None]"
        raise InputError(f"images are (N, C, H, W), these are {tuple(found.shape)}", help=help)
    if found.shape[-1] in (1, 3) and found.shape[1] not in (1, 3) and found.shape[1] == found.shape[2]:
        raise InputError(
            f"images are (N, C, H, W), these are {tuple(found.shape)}: their channels are last",
            help="x.permute(0, 3, 1, 2)",
        )
    if found.is_floating_point() and found.numel():
        low, high = float(found.min()), float(found.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"images must lie in [0,1], these span {low:.3g} to {high:.3g}", help=_remedy(low, high))
    return checked_images(found)


def _remedy(low: float, high: float) -> str:
    if low >= 0 and high <= 255:
        return "they look like grey levels: x / 255"
    if low < 0:
        return (
            "they look normalised: give them in [0,1] and let the model normalise, "
            "torch.nn.Sequential(torchvision.transforms.Normalize(mean, std), model)"
        )
    return "something in them is no image"


# -- torch's data sets and loaders ---------------------------------------------------------------------------------------


def _of_torch(data: Any, split: str, classes: Sequence[str] | None, limit: int | None) -> Data:
    dataset = dataset_of(data)
    name = type(data.dataset if isinstance(data, DataLoader) else data).__name__
    if classes is None and isinstance(named := getattr(dataset, "classes", None), (list, tuple)):
        classes = [str(one) for one in named]
    if dataset is None:
        return _single(name, _read_through(data), split, classes)
    if isinstance(dataset, torch.utils.data.TensorDataset) and len(dataset.tensors) == 2:
        return _single(name, _pair(dataset.tensors), split, classes)
    try:
        size = len(dataset)
    except TypeError as error:
        raise InputError(f"{name} does not say how many examples it has", help="give it a __len__") from error
    if not size:
        raise InputError(f"{name} has no examples")
    if split == "train":
        return _single(name, DatasetSplit(dataset, labels_of(dataset)), split, classes)
    some = torch.arange(size)
    if limit is not None and limit < size:
        some = DatasetSplit(dataset, some).order(0, 0)[:limit].sort().values
    found = DatasetSplit(dataset, labels_of(dataset, some), ids=some)
    return _single(name, _held(found), split, classes)


def _held(split: DatasetSplit) -> Labelled:
    """The split in memory, where it fits: an examination looks at each image many times."""
    x, _ = next(split.batches([torch.arange(1)]))
    if len(split) * x.numel() * 4 > _HELD:
        return split
    parts = [x for x, _ in split.batches(torch.arange(len(split)).split(256))]
    return Split(torch.cat(parts), split.labels, ids=split.ids)


def _read_through(loader: DataLoader[Any]) -> Split:
    """What a loader gives in one pass: of one with a sampler or batches of its own, which a data set alone does not tell."""
    images, labels = [], []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError("the loader's batches are no pairs (images, labels)")
        images.append(images_of(batch[0]).cpu())
        labels.append(checked_labels(batch[1]).cpu())
    if not images:
        raise InputError("the loader gives no batch")
    return Split(torch.cat(images), torch.cat(labels))


def assert_trainable(data: Any) -> None:
    """Raise `InputError` for data that can only be read through once: a training draws them anew in each epoch."""
    if isinstance(data, IterableDataset) or (isinstance(data, DataLoader) and dataset_of(data) is None):
        raise InputError(
            "a training draws its examples in an order of its own, and this loader has a sampler, batches or a stream of its own",
            help="give the Dataset itself, or a tuple (x, y)",
        )


def as_images(x: Any, like: torch.device) -> Tensor:
    """Images for an attack: fp32 in [0,1] on a device, a copy of the caller's."""
    found = images_of(x).to(like)
    return found.float() / 255 if found.dtype == torch.uint8 else found.float().clone()


def as_labels(y: Any, count: int, classes: int, what: str = "labels") -> Tensor:
    """Labels (N,) int64 on the CPU, for as many images and classes. Raises `InputError` for others; a single number serves all."""
    if isinstance(y, (int, np.integer)) and not isinstance(y, bool):
        y = torch.full((count,), int(y))
    found = checked_labels(y).cpu()
    if len(found) != count:
        raise InputError(f"there are {count} images but {len(found)} {what}")
    if len(found) and not (int(found.min()) >= 0 and int(found.max()) < classes):
        wrong = int(found.min()) if int(found.min()) < 0 else int(found.max())
        raise InputError(f"{what}: {wrong} is none of the model's {classes} classes", help=f"0 to {classes - 1}")
    return found

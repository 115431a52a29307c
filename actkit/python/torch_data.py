"""torch's map-style data sets as splits: each example is read when it is asked for, its random transforms a function of (seed, epoch, example)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from actkit.datasets.checks import checked_images, checked_labels
from actkit.datasets.splits import Batches, Examples
from actkit.display import tell
from actkit.errors import InputError
from actkit.noise import seed_for
from actkit.python.surroundings import private_randomness


def dataset_of(data: Any) -> Any | None:
    """The map-style data set behind a loader, or the data set itself; None where only iterating tells what the loader gives."""
    if not isinstance(data, DataLoader):
        return None if isinstance(data, IterableDataset) else data
    plain = isinstance(data.sampler, SequentialSampler) or (
        isinstance(data.sampler, RandomSampler) and not data.sampler.replacement and data.sampler._num_samples is None
    )
    usual = data.collate_fn is default_collate and type(data.batch_sampler) in (BatchSampler, type(None))
    return data.dataset if plain and usual and not isinstance(data.dataset, IterableDataset) else None


@dataclass(frozen=True)
class DatasetSplit(Examples):
    """Examples of a torch data set. What its transforms draw is decided by (seed, epoch, example): the same whatever is read before, and for each epoch another.

    Args:
        labels: of these examples, (N,) int64.
        ids: which examples of the data set they are; all of them by default.
    """

    dataset: Any
    labels: Tensor
    ids: Tensor | None = None

    def take(self, places: Tensor) -> DatasetSplit:
        return dataclasses.replace(self, labels=self.labels[places], ids=self.names(places))

    def plain(self) -> DatasetSplit:
        return self

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x and y of each group of places. Raises `InputError` for an example that is no pair of an image in [0,1] and a class."""
        for places in groups:
            images = [item(self.dataset, place, key)[0] for place in self.names(places).tolist()]
            try:
                x = checked_images(torch.stack(images))
            except RuntimeError as error:
                sizes = sorted({"x".join(map(str, image.shape)) for image in images})
                raise InputError(
                    f"images of one size are wanted, the data set gives {' and '.join(sizes[:3])}",
                    help="resize them in its transform",
                ) from error
            x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
            yield x.to(device), self.labels[places].to(device)

    def fingerprint(self) -> str:
        """A short hash of the labels and of sixteen images among them."""
        digest = hashlib.sha256(self.labels.contiguous().numpy().tobytes())
        some = torch.linspace(0, len(self) - 1, min(16, len(self))).long()
        for x, _ in self.batches([some]):
            digest.update(x.contiguous().numpy().tobytes())
        return "sample-" + digest.hexdigest()[:12]


def item(dataset: Any, place: int, key: tuple[int, ...] | None = None) -> tuple[Tensor, Any]:
    """An image (C, H, W) and its label. Raises `InputError` for an example that is no such pair."""
    with private_randomness(seed_for(*(key or (0,)), place), torch.device("cpu")):
        example = dataset[place]
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        raise InputError(f"example {place} of {type(dataset).__name__} is no pair (image, label)")
    image, label = example
    if hasattr(image, "getbands"):
        raise InputError(
            f"{type(dataset).__name__} gives PIL images",
            help="give it a transform that ends in torchvision.transforms.ToTensor()",
        )
    image = torch.as_tensor(image)
    if image.dim() != 3:
        raise InputError(
            f"example {place} of {type(dataset).__name__} has the shape {tuple(image.shape)}; an image is (C, H, W)"
        )
    if image.is_floating_point() and not (float(image.min()) >= 0 and float(image.max()) <= 1):
        low, high = float(image.min()), float(image.max())
        raise InputError(
            f"images must lie in [0,1], example {place} of {type(dataset).__name__} spans {low:.3g} to {high:.3g}",
            help="it looks normalised: take Normalize out of its transform and let the model normalise"
            if low < 0
            else "end its transform in torchvision.transforms.ToTensor()",
        )
    return image, label


def labels_of(dataset: Any, places: Tensor | None = None) -> Tensor:
    """The classes of a data set's examples, without reading images where it says them (`targets`)."""
    places = torch.arange(len(dataset)) if places is None else places
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset, torch.as_tensor(dataset.indices)[places])
    if isinstance(dataset, TensorDataset):
        return checked_labels(dataset.tensors[1][places])
    said = getattr(dataset, "targets", None)
    if said is not None and getattr(dataset, "target_transform", None) is None and len(said) == len(dataset):
        return checked_labels(torch.as_tensor(said)[places])
    found = []
    for i, place in enumerate(places.tolist()):
        tell("labels", i + 1, len(places))
        found.append(torch.as_tensor(item(dataset, place)[1]))
    return checked_labels(torch.stack(found))

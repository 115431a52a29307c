"""A validation split, or a test split, out of the training images."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from actkit.config.registry import Dataset, register
from actkit.datasets.splits import Data, Labelled
from actkit.errors import InputError


@register("dataset")
def holdout(
    *,
    data: Dataset,
    size: float = 1000,
    split: Literal["val", "test"] | None = None,
    stratified: bool = False,
    split_seed: int = 0,
) -> Data:
    """Another data set, with `size` of its training images held out as the split 'val': what a model may be chosen by, as the test set may not.

    Which ones is a fixed shuffle by `split_seed`, whatever the run's own seed. The images that stay keep their random numbers.

    Args:
        size: how many; below 1, which share of them.
        split: what the images become; by default 'test' where the data set has none, and else 'val'.
        stratified: take the same share of each class, at least one image of each.
    """
    whole: Data = data()
    name = split or ("val" if "test" in whole.sizes else "test")
    if name in whole.sizes:
        raise InputError(f"{whole.name} has a split {name!r} already", help="use it without dataset.holdout")
    total = whole.sizes["train"]
    count = round(size * total) if 0 < size < 1 else size
    if not 0 < count < total or count != int(count):
        raise InputError(
            f"dataset.holdout.size must lie between 1 and {total - 1:,}, the training images of {whole.name} less 1, or be a share below 1, got {size:g}"
        )

    def read(asked: str) -> Labelled:
        if asked not in ("train", name):
            return whole.split(asked)
        train = whole.split("train")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(split_seed))
        if stratified:
            order = _by_class_first(order, train.labels, int(count))
        part = train.take(order[: int(count)].sort().values if asked == name else order[int(count) :].sort().values)
        return part if asked == "train" else part.plain()

    sizes = {**whole.sizes, "train": total - int(count), name: int(count)}
    return dataclasses.replace(whole, sizes=sizes, read=read)


def _by_class_first(order: Tensor, labels: Tensor, count: int) -> Tensor:
    """The order, with `count` places in front whose classes are shared as all are: each class's own share, rounded by the largest remainders.

    Raises `InputError` where a class would be on one side alone.
    """
    classes, sizes = labels.unique(return_counts=True)
    shares = sizes.double() * count / len(labels)
    taken = shares.floor().long().clamp(min=1)
    # What is still to be taken goes where most of an image is missing, what is too many where most is over.
    while (missing := count - int(taken.sum())) != 0:
        gap = (shares - taken) * (1 if missing > 0 else -1)
        open_ = taken < sizes - 1 if missing > 0 else taken > 1
        if not open_.any():
            break
        taken[gap.masked_fill(~open_, float("-inf")).argmax()] += 1 if missing > 0 else -1
    if int(taken.sum()) != count or (taken >= sizes).any():
        raise InputError(
            f"{count:,} of {len(labels):,} images cannot be held out so that each of {len(classes)} classes is on both sides",
            help="each class needs two images, and dataset.holdout.size at least one for each",
        )
    front = [order[labels[order] == cls][:n] for cls, n in zip(classes, taken.tolist(), strict=True)]
    held = torch.cat(front)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[held] = False
    return torch.cat([held, order[rest[order]]])

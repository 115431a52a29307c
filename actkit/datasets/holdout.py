"""A validation split."""

from __future__ import annotations

import torch

from actkit.config.registry import Dataset, register
from actkit.datasets.splits import Data, Labelled
from actkit.errors import InputError


@register("dataset")
def holdout(*, data: Dataset, size: int = 1000, split_seed: int = 0) -> Data:
    """Another data set, with `size` of its training images held out as the split 'val': what a model may be chosen by, as the test set may not.

    Which ones is a fixed shuffle by `split_seed`, whatever the run's own seed. The images that stay keep their random numbers.
    """
    whole: Data = data()
    if "val" in whole.sizes:
        raise InputError(f"{whole.name} has a split 'val' already", help="use it without dataset.holdout")
    if not 0 < size < whole.sizes["train"]:
        raise InputError(
            f"dataset.holdout.size must lie between 1 and {whole.sizes['train'] - 1:,}, the training images of {whole.name} less 1, got {size}"
        )

    def read(name: str) -> Labelled:
        if name not in ("train", "val"):
            return whole.split(name)
        split = whole.split("train")
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(split_seed))
        part = split.take(order[:size].sort().values if name == "val" else order[size:].sort().values)
        return part if name == "train" else part.plain()

    sizes = {**whole.sizes, "train": whole.sizes["train"] - size, "val": size}
    return Data(whole.name, whole.shape, whole.classes, sizes, read)

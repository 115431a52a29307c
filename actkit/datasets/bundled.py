"""Data sets that need no file of the user's: scikit-learn's digits, and its moons."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actkit.config.registry import register
from actkit.datasets.splits import Data, Split, augmentation, with_augmentation
from actkit.errors import InputError


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
        images, labels = _packaged_digits()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(split_seed))
        ids = order[:test_size] if name == "test" else order[test_size:]
        return Split(images[ids], labels[ids])

    shape = (1, 8, 8)
    sizes = {"train": total - test_size, "test": test_size}
    return Data("digits", shape, tuple("0123456789"), sizes, with_augmentation(read, augmentation(crop, flip, shape)))


def _packaged_digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) fp32 in [0,1] and labels (1797,): the file that scikit-learn's `load_digits` reads.

    It is found without importing scikit-learn, which takes a second. Raises `InputError` where it is not there.
    """
    package = importlib.util.find_spec("sklearn")
    folder = Path(package.origin).parent if package and package.origin else Path("sklearn")
    file = folder / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt") as lines:
            table = np.loadtxt(lines, np.uint8, delimiter=",")
    except (OSError, ValueError) as error:
        raise InputError(
            "scikit-learn's digits cannot be read"
            if package
            else "the digits come with scikit-learn, which is not installed",
            where=str(file),
            help="pip install --force-reinstall scikit-learn",
        ) from error
    pixels, labels = torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, -1])
    return pixels.float().view(-1, 1, 8, 8) / 16, labels.long()


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

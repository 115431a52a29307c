"""Data sets: labelled images in [0,1], NCHW. A data set says its shape and classes at once and reads pixels when a split is asked for."""

from __future__ import annotations

from actkit.datasets.arrays import npz
from actkit.datasets.bundled import digits, moons
from actkit.datasets.corruptions import corruptions
from actkit.datasets.decoding import FileSplit, worker_error
from actkit.datasets.folders import imagefolder, imagenet
from actkit.datasets.holdout import holdout
from actkit.datasets.mixtures import cutmix, mixed, mixup, noisy_labels
from actkit.datasets.parquet import parquet
from actkit.datasets.published import CLASSES, cifar10, cifar100, torchvision
from actkit.datasets.splits import Data, Labelled, Split, crop_and_flip, random_batch

__all__ = [
    "CLASSES",
    "Data",
    "FileSplit",
    "Labelled",
    "Split",
    "cifar10",
    "cifar100",
    "corruptions",
    "crop_and_flip",
    "cutmix",
    "digits",
    "holdout",
    "imagefolder",
    "imagenet",
    "mixed",
    "mixup",
    "moons",
    "noisy_labels",
    "npz",
    "parquet",
    "random_batch",
    "torchvision",
    "worker_error",
]

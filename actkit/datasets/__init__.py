"""Data sets: labelled images in [0,1], NCHW. A data set says its shape and classes at once and reads pixels when a split is asked for."""

from __future__ import annotations

from actkit.datasets.folders import imagefolder, imagenet
from actkit.datasets.holdout import holdout
from actkit.datasets.offline import digits, moons
from actkit.datasets.published import CLASSES, cifar10, cifar100, torchvision
from actkit.datasets.splits import Data, FileSplit, Labelled, Split, crop_and_flip, made_up, worker_error
from actkit.datasets.working import cache_folder, cores, telling

__all__ = [
    "CLASSES",
    "Data",
    "FileSplit",
    "Labelled",
    "Split",
    "cache_folder",
    "cifar10",
    "cifar100",
    "cores",
    "crop_and_flip",
    "digits",
    "holdout",
    "imagefolder",
    "imagenet",
    "made_up",
    "moons",
    "telling",
    "torchvision",
    "worker_error",
]  # fmt: skip

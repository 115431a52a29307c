"""Folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def folder(root: Path, *, size=(6, 5), per_class=3, classes=("cat", "dog")) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for cls in classes:
            (root / split / cls).mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
                    root / split / cls / f"{i}.png"
                )
    return root


def photographs(root: Path, per_class: int = 6) -> Path:
    """JPEGs of several sizes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for cls in ("cat", "dog"):
            (root / split / cls).mkdir(parents=True)
            for i in range(per_class):
                height, width = rng.integers(20, 40, 2)
                Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
                    root / split / cls / f"{i}.jpg"
                )
    return root

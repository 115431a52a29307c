from __future__ import annotations

import torch

from actkit import Data, Split, register


# It gives Data: sizes by split, and how each is read, which happens when it is first asked for. Images are float in [0,1], NCHW, or uint8.
@register("dataset")
def NAME(*, count: int = 200, seed: int = 0) -> Data:
    """Made-up squares on a dark ground: two classes, bright on the left or on the right."""

    def read(split: str) -> Split:
        generator = torch.Generator().manual_seed(seed + (split == "test"))
        labels = torch.randint(2, (count,), generator=generator)
        images = 0.2 * torch.rand(count, 1, 8, 8, generator=generator)
        for image, label in zip(images, labels, strict=True):
            image[:, 2:6, 4 * int(label) : 4 * int(label) + 4] += 0.6
        return Split(images, labels)

    return Data("NAME", (1, 8, 8), ("left", "right"), {"train": count, "test": count}, read)

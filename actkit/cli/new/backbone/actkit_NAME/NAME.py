from __future__ import annotations

from torch import nn

from actkit import register


# It gives logits for x in [0,1], NCHW. num_classes and in_chans come from the data set; the other keyword parameters are what a recipe can set.
@register("backbone")
def NAME(num_classes: int, *, in_chans: int = 3, width: int = 32) -> nn.Module:
    """Two convolutions and a classifier."""
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )

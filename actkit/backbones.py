"""Backbones: classifiers from timm's parts. `(num_classes, *, in_chans)` -> a module that gives logits for x in [0,1], NCHW."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from actkit.errors import InputError
from actkit.registry import Backbone, register


def _resnet(num_classes: int, in_chans: int, layers: tuple[int, ...], channels: tuple[int, ...]) -> nn.Module:
    """timm's ResNet of basic blocks with the stem for small images: 3x3, stride 1, no pooling."""
    from timm.models.resnet import BasicBlock, ResNet

    model = ResNet(
        BasicBlock, layers, num_classes=num_classes, in_chans=in_chans, stem_width=channels[0], channels=channels,
        zero_init_last=False,
    )  # fmt: skip
    model.conv1 = nn.Conv2d(in_chans, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    for missing in range(len(layers) + 1, 5):  # timm's forward names four stages
        setattr(model, f"layer{missing}", nn.Identity())
    return model


@register("backbone")
def resnet18(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    """ResNet-18 (He et al. 2016) with the CIFAR stem, from timm: 11,173,962 parameters for 10 classes."""
    return _resnet(num_classes, in_chans, (2, 2, 2, 2), (64, 128, 256, 512))


@register("backbone")
def resnet(num_classes: int, *, in_chans: int = 3, width: int = 16, layers: list[int] | None = None) -> nn.Module:
    """A narrow ResNet for small images from the same parts: `layers` blocks a stage, `width` channels, doubled at each stage."""
    layers = layers or [1, 1, 1]
    if not 1 <= len(layers) <= 4 or min(layers) < 1 or sum(layers) < 2 or width < 1:
        raise InputError(
            f"resnet needs 1 to 4 stages of at least 1 block, at least 2 blocks in all, and a positive width, got {layers} and {width}"
        )
    return _resnet(num_classes, in_chans, tuple(layers), tuple(width * 2**i for i in range(len(layers))))


@register("backbone")
def timm(
    num_classes: int, *, in_chans: int = 3, model: str, pretrained: bool = False, options: dict[str, Any] | None = None
) -> nn.Module:
    """Any of timm's models by its name; `options` go to `timm.create_model`. It sees x in [0,1]: wrap it in `normalized` if it must."""
    import timm as library

    if not library.is_model(model):
        close = library.list_models(f"*{model[:6]}*")[:5]
        raise InputError(f"timm has no model {model!r}", help=f"did you mean {' or '.join(close)}?" if close else None)
    try:
        return library.create_model(
            model, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **options or {}
        )
    except TypeError as error:
        raise InputError(f"timm's {model} does not take these options: {error}") from error


@register("backbone")
def mlp(num_classes: int, *, in_chans: int = 3, width: int = 64, depth: int = 2) -> nn.Module:
    """A multi-layer perceptron on `in_chans` features: for points in the plane, given as images of one pixel."""
    sizes = [in_chans, *[width] * depth]
    hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], num_classes))


class Normalize(nn.Module):
    """(x - mean) / std by channel, as a layer: attacks and eps stay in [0,1] pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@register("backbone")
def normalized(num_classes: int, *, in_chans: int = 3, net: Backbone, mean: list[float], std: list[float]) -> nn.Module:
    """Another backbone with normalisation as its first layer."""
    if len(mean) != in_chans or len(std) != in_chans or min(std) <= 0:
        raise InputError(f"normalized needs {in_chans} means and {in_chans} positive deviations, got {mean} and {std}")
    return nn.Sequential(Normalize(mean, std), net(num_classes, in_chans=in_chans))

"""Backbones: classifiers from timm's parts. `(num_classes, *, in_chans)` -> a module that gives logits for x in [0,1], NCHW."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actkit.config.registry import Backbone, entries, register
from actkit.config.spec import Spec
from actkit.errors import InputError, first_line, nearest
from actkit.networks.building import build

Stem = Literal["cifar", "imagenet"]


def _resnet(
    num_classes: int,
    in_chans: int,
    layers: tuple[int, ...],
    channels: tuple[int, ...],
    *,
    block: str = "BasicBlock",
    stem: Stem = "cifar",
) -> nn.Module:
    """timm's ResNet; the stem for small images is one 3x3 convolution of stride 1 and no pooling."""
    from timm.models import resnet as parts

    model = parts.ResNet(
        getattr(parts, block),
        layers,
        num_classes=num_classes,
        in_chans=in_chans,
        stem_width=channels[0],
        channels=channels,
        zero_init_last=False,
    )
    if stem == "cifar":
        model.conv1 = nn.Conv2d(in_chans, model.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    # timm's forward names four stages.
    for missing in range(len(layers) + 1, 5):
        setattr(model, f"layer{missing}", nn.Identity())
    return model


_WIDTHS = (64, 128, 256, 512)


@register("backbone")
def resnet18(num_classes: int, *, in_chans: int = 3, stem: Stem = "cifar") -> nn.Module:
    """ResNet-18 (He et al. 2016): 11,173,962 parameters for 10 classes with the CIFAR stem, 11,689,512 for 1,000 with ImageNet's."""
    return _resnet(num_classes, in_chans, (2, 2, 2, 2), _WIDTHS, stem=stem)


@register("backbone")
def resnet34(num_classes: int, *, in_chans: int = 3, stem: Stem = "cifar") -> nn.Module:
    """ResNet-34 (He et al. 2016): 21,282,122 parameters for 10 classes with the CIFAR stem."""
    return _resnet(num_classes, in_chans, (3, 4, 6, 3), _WIDTHS, stem=stem)


@register("backbone")
def resnet50(num_classes: int, *, in_chans: int = 3, stem: Stem = "cifar") -> nn.Module:
    """ResNet-50 (He et al. 2016): 23,520,842 parameters for 10 classes with the CIFAR stem, 25,557,032 for 1,000 with ImageNet's."""
    return _resnet(num_classes, in_chans, (3, 4, 6, 3), _WIDTHS, block="Bottleneck", stem=stem)


def _resnet_problems(*, width: int, layers: list[int] | None) -> Iterator[tuple[str, InputError]]:
    if layers and not (len(layers) <= 4 and min(layers) >= 1 and 2 <= sum(layers) <= 1000):
        yield (
            "layers",
            InputError(f"resnet needs 1 to 4 stages of at least 1 block and 2 to 1,000 blocks in all, got {layers}"),
        )
    if width < 1:
        yield "width", InputError(f"resnet needs a positive width, got {width}")


@register("backbone", check=_resnet_problems)
def resnet(num_classes: int, *, in_chans: int = 3, width: int = 16, layers: list[int] | None = None) -> nn.Module:
    """A narrow ResNet for small images from the same parts: `layers` blocks a stage, `width` channels, doubled at each stage."""
    layers = layers or [1, 1, 1]
    for _, problem in _resnet_problems(width=width, layers=layers):
        raise problem
    return _resnet(num_classes, in_chans, tuple(layers), tuple(width * 2**i for i in range(len(layers))))


def _preact(
    num_classes: int, in_chans: int, layers: tuple[int, ...], channels: tuple[int, ...], stem: int
) -> nn.Module:
    """timm's pre-activation ResNet of basic blocks with BatchNorm, one 3x3 convolution of stride 1 as its stem and no pooling."""
    from timm.layers import BatchNormAct2d
    from timm.models.resnetv2 import ResNetV2

    if "basic" not in inspect.signature(ResNetV2).parameters:
        raise InputError(
            "this timm has no pre-activation basic blocks", help="pip install --upgrade timm (1.0.14 has them)"
        )
    plain = functools.partial(nn.Conv2d, bias=False)

    def convolution(into: int, out: int, kernel_size: int, stride: int = 1, **rest: Any) -> nn.Module:
        return plain(into, out, kernel_size, stride=stride, padding=kernel_size // 2, **rest)

    model = ResNetV2(
        layers,
        channels,
        num_classes=num_classes,
        in_chans=in_chans,
        stem_chs=stem,
        basic=True,
        bottle_ratio=1.0,
        norm_layer=BatchNormAct2d,
        conv_layer=convolution,
    )
    model.stem = nn.Sequential()
    model.stem.add_module("conv", convolution(in_chans, stem, 3))
    nn.init.kaiming_normal_(model.stem.conv.weight, mode="fan_out", nonlinearity="relu")
    return model


def _wrn_problems(*, depth: int, width: int) -> Iterator[tuple[str, InputError]]:
    if depth % 6 != 4 or not 10 <= depth <= 1000:
        near = max(10, 6 * round((depth - 4) / 6) + 4)
        yield (
            "depth",
            InputError(
                f"a WideResNet's depth is 6 n + 4 (10, 16, 22, 28, 34, ...), got {depth}",
                help=f"the nearest is {near}" if depth < 1000 else None,
            ),
        )
    if width < 1:
        yield "width", InputError(f"a WideResNet's width must be at least 1, got {width}")


@register("backbone", check=_wrn_problems)
def wrn(num_classes: int, *, in_chans: int = 3, depth: int = 28, width: int = 10) -> nn.Module:
    """WideResNet (Zagoruyko and Komodakis 2016) without dropout, of any depth 6 n + 4 and any width."""
    for _, problem in _wrn_problems(depth=depth, width=width):
        raise problem
    blocks = (depth - 4) // 6
    return _preact(num_classes, in_chans, (blocks,) * 3, (16 * width, 32 * width, 64 * width), 16)


@register("backbone")
def wrn_28_10(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    """WideResNet-28-10: 36,479,194 parameters for 10 classes."""
    return wrn(num_classes, in_chans=in_chans, depth=28, width=10)


@register("backbone")
def wrn_34_10(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    """WideResNet-34-10: 46,160,474 parameters for 10 classes."""
    return wrn(num_classes, in_chans=in_chans, depth=34, width=10)


@register("backbone")
def wrn_16_2(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    """WideResNet-16-2: 691,674 parameters for 10 classes."""
    return wrn(num_classes, in_chans=in_chans, depth=16, width=2)


@register("backbone")
def preactresnet18(num_classes: int, *, in_chans: int = 3) -> nn.Module:
    """Pre-activation ResNet-18 (He et al. 2016b) with BatchNorm before the classifier, as Rice et al. 2020 and much of RobustBench train it."""
    return _preact(num_classes, in_chans, (2, 2, 2, 2), _WIDTHS, 64)


@register("backbone")
def timm(
    num_classes: int,
    *,
    in_chans: int = 3,
    image_size: tuple[int, int] | None = None,
    model: str,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """Any of timm's models by its name; `options` go to `timm.create_model`. It sees x in [0,1]: wrap it in `normalized` if it must.

    One that is made for images of one size (ViT, Mixer, Swin) is given the data's as `img_size`, unless `options` has one.
    """
    import timm as library

    if not library.is_model(model):
        close = library.list_models(f"*{model[:6]}*")[:5]
        raise InputError(f"timm has no model {model!r}", help=f"did you mean {' or '.join(close)}?" if close else None)
    given = dict(options or {})
    if _needs_image_size(model, image_size, given):
        given["img_size"] = image_size
    try:
        made: nn.Module = library.create_model(
            model, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **given
        )
        _assert_patches_fit(made, model, given.get("img_size"))
        return made
    except TypeError as error:
        if "img_size" in given and "img_size" not in (options or {}) and "img_size" in str(error):
            return timm(num_classes, in_chans=in_chans, model=model, pretrained=pretrained, options=options)
        raise InputError(f"timm's {model} does not take these options: {error}") from error
    except (AssertionError, ValueError, ZeroDivisionError, IndexError) as error:
        if "img_size" not in given or isinstance(error, InputError):
            raise
        size = given["img_size"]
        raise InputError(
            f"timm's {model} cannot be made for images of img_size = {size}: {first_line(error)}",
            help="larger images, or smaller patches: backbone.timm.options = {'patch_size': 2} (a ViT or Mixer cuts images into patches)",
        ) from error
    except Exception as error:
        if not pretrained or not _is_of_fetching(model, error):
            raise
        raise _without_weights(model, error) from error


def _assert_patches_fit(network: nn.Module, model: str, image_size: Any) -> None:
    """Raise `InputError` for images that patches do not cover: timm would make no patch, or leave a border out without a word."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if image_size is None or not isinstance(patch, (int, tuple)):
        return
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    patches = patch if isinstance(patch, tuple) else (patch, patch)
    if any(side % size for side, size in zip(sides, patches, strict=True)):
        shown = "x".join(map(str, patches))
        raise InputError(
            f"timm's {model} cuts images into patches of {shown}, and img_size = {'x'.join(map(str, sides))} is no multiple of that",
            help="give it patches that fit, backbone.timm.options = {'patch_size': 2}, or images of another size",
        )


def _is_of_fetching(model: str, error: Exception) -> bool:
    """Whether weights could not be had: a disk or a network failed, or there are none."""
    from timm.models import get_pretrained_cfg

    about = get_pretrained_cfg(model)
    library = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, OSError)
        or library in ("httpx", "huggingface_hub", "requests", "urllib3")
        or about is None
        or not about.has_weights
    )


def _needs_image_size(model: str, image_size: tuple[int, int] | None, options: dict[str, Any]) -> bool:
    """Whether timm's model is made for one size of images, another than these have, and the options say nothing of it."""
    from timm.models import get_pretrained_cfg

    if image_size is None or "img_size" in options:
        return False
    about = get_pretrained_cfg(model)
    return about is not None and about.fixed_input_size and tuple(about.input_size[1:]) != tuple(image_size)


def _without_weights(model: str, error: Exception) -> InputError:
    """Pretrained weights that cannot be had, and where they can be given."""
    from timm.models import get_pretrained_cfg

    about = get_pretrained_cfg(model)
    if about is None or not about.has_weights:
        return InputError(
            f"timm has no pretrained weights for {model}",
            help="backbone.timm.pretrained = False trains it from the beginning",
        )
    source = about.hf_hub_id or about.url
    return InputError(
        f"the pretrained weights of timm's {model} cannot be fetched from {source}: {first_line(error)}",
        help=(
            "without a network they are taken from the Hugging Face cache (the folder that HF_HOME or HF_HUB_CACHE names; copy it from a machine that "
            "fetched them), or from a file: backbone.timm.options = {'pretrained_cfg_overlay': {'file': 'PATH'}}; "
            "or make them a checkpoint, actkit import PATH --arch "
            f"{model}, and start from it: role.weights = 'FILE'"
        ),
    )


def spec_of(name: str) -> Spec:
    """The backbone that a name means: one of actkit's or a plugin's, or else one of timm's. Raises `InputError` for a name that neither knows."""
    known = {entry.name for entry in entries("backbone")}
    if name in known:
        return Spec("backbone", name)
    import timm as library

    if not library.is_model(name):
        raise InputError(
            f"there is no architecture {name!r}",
            help=nearest(name, [*known, *library.list_models()], listing=False) or nearest(name, known),
        )
    return Spec("backbone", "timm", {"model": name})


def _mlp_problems(*, width: int, depth: int) -> Iterator[tuple[str, InputError]]:
    if width < 1:
        yield "width", InputError(f"mlp needs a positive width, got {width}")
    if not 0 <= depth <= 1000:
        yield "depth", InputError(f"mlp needs 0 to 1,000 hidden layers, got {depth}")


@register("backbone", check=_mlp_problems)
def mlp(num_classes: int, *, in_chans: int = 3, width: int = 64, depth: int = 2) -> nn.Module:
    """A multi-layer perceptron on `in_chans` features: for points in the plane, given as images of one pixel."""
    for _, problem in _mlp_problems(width=width, depth=depth):
        raise problem
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
def normalized(
    num_classes: int,
    *,
    in_chans: int = 3,
    image_size: tuple[int, int] | None = None,
    net: Backbone,
    mean: list[float],
    std: list[float],
) -> nn.Module:
    """Another backbone with normalisation as its first layer."""
    if len(mean) != in_chans or len(std) != in_chans or min(std) <= 0:
        raise InputError(f"normalized needs {in_chans} means and {in_chans} positive deviations, got {mean} and {std}")
    return nn.Sequential(Normalize(mean, std), build(net, num_classes, in_chans=in_chans, image_size=image_size))

"""Building: a backbone called with the sizes that the data give, and first weights that depend on the seed alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from actkit.errors import InputError


def _image_size_parameter(backbone: Callable[..., nn.Module]) -> inspect.Parameter | None:
    target = getattr(backbone, "func", backbone)
    try:
        return inspect.signature(target).parameters.get("image_size")
    except (TypeError, ValueError):
        return None


def asks_for_image_size(backbone: Callable[..., nn.Module]) -> bool:
    """Whether a backbone is given the image's size: its signature names `image_size`, also where it wraps one that does."""
    if _image_size_parameter(backbone) is None:
        return False
    inner = getattr(backbone, "keywords", {}).get("net")
    return inner is None or asks_for_image_size(inner)


def build(
    backbone: Callable[..., nn.Module], num_classes: int, *, in_chans: int, image_size: tuple[int, int] | None
) -> nn.Module:
    """Call a backbone with the number of classes and of channels, and with the image's size (height, width) where it asks for `image_size`.

    A parameter that is annotated `int`, or whose default is one, is given the side of a square image. Raises `InputError` for images that are none.
    """
    parameter = _image_size_parameter(backbone)
    supplied: dict[str, Any] = {}
    if parameter is not None and image_size is not None:
        supplied["image_size"] = _side(image_size) if _is_one_number(parameter) else tuple(image_size)
    return backbone(num_classes, in_chans=in_chans, **supplied)


def _is_one_number(parameter: inspect.Parameter) -> bool:
    annotation = getattr(parameter.annotation, "__name__", str(parameter.annotation))
    return annotation in ("int", "int | None", "Optional[int]") or isinstance(parameter.default, int)


def _side(image_size: tuple[int, int]) -> int:
    height, width = image_size
    if height != width:
        raise InputError(f"this network takes square images, these are {height}x{width}")
    return height


def initialise(
    backbone: Callable[..., nn.Module],
    *,
    num_classes: int,
    in_chans: int,
    seed: int,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """A backbone with random weights that depend on the seed alone; the global generator is left as it was.

    Raises `InputError` for a network with lazy layers: it cannot be copied before it has seen data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(backbone, num_classes, in_chans=in_chans, image_size=image_size)
    lazy = [name for name, module in model.named_modules() if isinstance(module, nn.modules.lazy.LazyModuleMixin)]
    if lazy:
        named = getattr(getattr(backbone, "spec", None), "selector", type(model).__name__)
        raise InputError(
            f"{named} has lazy layers ({', '.join(lazy[:3])}{', ...' if len(lazy) > 3 else ''}), whose sizes are not known before they see data",
            help="give them their sizes: nn.Linear(in_features, num_classes) in place of nn.LazyLinear(num_classes)",
        )
    return model

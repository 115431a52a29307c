"""actkit's networks and exported models in timm's registry, where timm, RobustBench and whatever builds on them find them.

    import actkit.models
    timm.create_model("local-dir:exports/act_resnet18", pretrained=True)                          # an export, by its folder

    name = actkit.models.register("exports/act_resnet18")                                         # or by a name, as RobustBench asks for it
    robustbench.load_model("act_resnet18", dataset="cifar10", threat_model="Linf")

It needs torch, timm and safetensors alone, also timm 1.0.9, which RobustBench pins.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks.building import build

default_cfgs: dict[str, Any] = {}  # where timm looks for what it knows of a model


def _network(
    *,
    backbone: Any,
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: tuple[int, int] | None = None,
    **ignored: Any,
) -> nn.Module:
    """A backbone from its Spec as JSON. timm's own options that say nothing about it (global_pool, ...) are ignored."""
    return build(Spec.from_json(backbone).build(), num_classes, in_chans=in_chans, image_size=image_size)


@register_model
def actkit(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Any of actkit's backbones: `timm.create_model("actkit", backbone={...}, num_classes=10)`, a Spec as JSON. Exports name it as their architecture."""
    made: nn.Module = build_model_with_cfg(_network, "actkit", pretrained, **kwargs)
    return made


def register(folder: str | Path) -> str:
    """Make an export known to timm by its own name, and give that name. Raises `InputError` for a folder that is no export."""
    folder = Path(folder).resolve()
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name, backbone, weights = about["actkit"]["timm_name"], about["model_args"]["backbone"], about["pretrained_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"this is no export of actkit's: {error}", where=str(folder), help="`actkit export CKPT` makes one"
        ) from error
    default_cfgs.update(generate_default_cfgs({name: {**weights, "file": str(folder / "model.safetensors")}}))

    def model(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        own = {"num_classes": about["num_classes"], "in_chans": weights["input_size"][0]}
        told = {**own, "image_size": about["model_args"].get("image_size"), **kwargs}
        made: nn.Module = build_model_with_cfg(_network, name, pretrained, **{**told, "backbone": backbone})
        return made

    model.__name__, model.__module__ = name, __name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same export again, or a newer one
        register_model(model)
    return str(name)

"""Real layouts, made small: each imported by the command line, its logits those of its own code."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models.resnet import Bottleneck, ResNet

from actkit.networks import model_files
from helpers import references
from helpers.references import Normalised, lively

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)


class Constants(nn.Module):
    """Normalisation whose constants are no buffers, so that no file has them."""

    def forward(self, x):
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in IMAGENET)
        return (x - mean) / std


def kuangliu() -> nn.Module:
    return lively(references.ResNet(references.BasicBlock, [2, 2, 2, 2], 10))


def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, depth=2).eval()


def mixer() -> nn.Module:
    made = timm.create_model("mixer_s32_224", num_classes=10, img_size=32).eval()
    # timm begins it at zero.
    nn.init.normal_(made.head.weight)
    return made


def torchvision_resnet() -> nn.Module:
    return lively(ResNet(Bottleneck, [2, 2, 2, 2], num_classes=10))


def robustbench() -> nn.Module:
    return Normalised(lively(references.WideResNet(10, 1, 10)), *IMAGENET, ("mu", "sigma")).eval()


def averaged() -> nn.Module:
    model = references.WideResNet(10, 1, 10)
    made = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    made.update_parameters(model)
    return made.eval()


WRN = ["--arch", "wrn", "-s", "backbone.wrn.depth=10", "-s", "backbone.wrn.width=1"]
VIT = ["--arch", "vit_tiny_patch16_224", "-s", "backbone.timm.options={'depth': 2}", "--normalise", "half"]
MIXER = ["--arch", "mixer_s32_224", "--normalise", "half"]

LAYOUTS = {
    "a kuangliu ResNet": (kuangliu, lambda net: net, None, ["--arch", "resnet18", "--normalise", "none"]),
    "a timm ViT": (vit, lambda net: net, HALF, VIT),
    "a timm Mixer": (mixer, lambda net: net, HALF, MIXER),
    "torchvision's with ImageNet's constants": (
        torchvision_resnet,
        lambda net: net,
        IMAGENET,
        ["--arch", "resnet26", "--normalise", "imagenet"],
    ),
    "behind constants, in DataParallel": (
        torchvision_resnet,
        lambda net: nn.DataParallel(nn.Sequential(Constants(), net)),
        IMAGENET,
        ["--arch", "resnet26", "--normalise", "imagenet"],
    ),
    "a RobustBench wrapper": (robustbench, lambda net: net, None, WRN),
    "an averaged one": (averaged, lambda net: net, None, [*WRN, "--normalise", "none"]),
    "in DataParallel": (
        lambda: lively(references.WideResNet(10, 1, 10)),
        nn.DataParallel,
        None,
        [*WRN, "--normalise", "none"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_logits_are_those_of_its_own_code(layout, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    make, wrap, constants, args = LAYOUTS[layout]
    net = make()
    torch.save(wrap(net).state_dict(), "theirs.pt")
    said = actkit("import", "theirs.pt", *args)
    assert said.code == 0, said.err
    x = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in constants or ([0.0] * 3, [1.0] * 3))
    with torch.no_grad(), model_files.load_role(Path("theirs.safetensors"))[0].frozen() as ours:
        theirs = net((x - mean) / std)
        assert theirs.std() > 1e-3
        assert (ours(x) - theirs).abs().max() < 1e-4

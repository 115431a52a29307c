"""Networks from timm's parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.config.spec import Spec


def build(name, num_classes=10, in_chans=3, **kwargs):
    return Spec("backbone", name, kwargs).build()(num_classes, in_chans=in_chans)


def test_resnet18_has_the_published_number_of_parameters_and_keeps_32_by_32():
    model = build("resnet18")
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    seen = []
    model.layer1.register_forward_hook(lambda m, i, out: seen.append(tuple(out.shape)))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 64, 32, 32)]


@pytest.mark.parametrize(
    ("name", "classes", "settings", "count"),
    [
        ("resnet18", 10, {}, 11_173_962),
        ("resnet18", 100, {}, 11_220_132),
        ("resnet34", 10, {}, 21_282_122),
        ("resnet50", 10, {}, 23_520_842),
        ("resnet50", 1000, {"stem": "imagenet"}, 25_557_032),
        ("wrn_28_10", 10, {}, 36_479_194),
        ("wrn_28_10", 100, {}, 36_536_884),
        ("wrn_34_10", 10, {}, 46_160_474),
        ("wrn_16_2", 10, {}, 691_674),
        ("preactresnet18", 10, {}, 11_172_170),
    ],
)
def test_every_network_has_the_published_number_of_parameters(name, classes, settings, count):
    with torch.device("meta"):
        model = build(name, classes, **settings)
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_stem_of_imagenet_is_torchvisions_network():
    from torchvision.models import resnet50

    theirs = resnet50()
    ours = build("resnet50", 1000, stem="imagenet")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


def test_a_wide_resnet_has_any_depth_and_width_and_keeps_32_by_32():
    model = build("wrn", depth=10, width=1)
    seen = []
    model.stages[0].register_forward_hook(lambda m, i, out: seen.append(tuple(out.shape)))
    model.stages[2].register_forward_hook(lambda m, i, out: seen.append(tuple(out.shape)))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 16, 32, 32), (2, 64, 8, 8)]


def test_the_narrow_resnet_takes_small_images_and_any_number_of_stages():
    for layers in ([2], [1, 1], [1, 1, 1], [1, 2, 1, 1]):
        assert build("resnet", in_chans=1, layers=layers, width=4)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_any_timm_model_by_its_name():
    assert build("timm", model="resnet10t", num_classes=3)(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_normalisation_is_a_layer():
    model = build(
        "normalized",
        net=Spec("backbone", "mlp", {"depth": 0}),
        num_classes=2,
        in_chans=2,
        mean=[0.5, 0.25],
        std=[2.0, 4.0],
    )
    linear = model[1][1]
    x = torch.rand(3, 2, 1, 1)
    by_hand = linear((x.flatten(1) - torch.tensor([0.5, 0.25])) / torch.tensor([2.0, 4.0]))
    assert torch.allclose(model(x), by_hand)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("timm", {"model": "resnet18x"}, "timm has no model 'resnet18x'"),
        ("timm", {"model": "resnet18", "options": {"no_such": 1}}, "does not take these options"),
        ("resnet", {"layers": []}, None),
        ("resnet", {"layers": [0]}, "at least 1 block"),
        ("resnet", {"layers": [1]}, "2 to 1,000 blocks in all"),
        ("normalized", {"net": Spec("backbone", "mlp"), "mean": [0.5], "std": [1.0]}, "needs 3 means"),
        ("wrn", {"depth": 29}, r"depth is 6 n \+ 4 .*, got 29"),
        ("wrn", {"width": 0}, "width must be at least 1"),
        ("mlp", {"depth": -1}, "0 to 1,000 hidden layers"),
    ],
)
def test_bad_settings_are_told(name, kwargs, message):
    if message is None:
        assert isinstance(build(name, **kwargs), nn.Module)  # an empty list means the default
    else:
        with pytest.raises(ValueError, match=message):
            build(name, **kwargs)

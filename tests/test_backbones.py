"""Networks from timm's parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.spec import Spec


def build(name, num_classes=10, in_chans=3, **kwargs):
    return Spec("backbone", name, kwargs).build()(num_classes, in_chans=in_chans)


def test_resnet18_has_the_published_number_of_parameters_and_keeps_32_by_32():
    model = build("resnet18")
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    seen = []
    model.layer1.register_forward_hook(lambda m, i, out: seen.append(tuple(out.shape)))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 64, 32, 32)]


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
    ],
)
def test_bad_settings_are_told(name, kwargs, message):
    if message is None:
        assert isinstance(build(name, **kwargs), nn.Module)  # an empty list means the default
    else:
        with pytest.raises(ValueError, match=message):
            build(name, **kwargs)

"""The network's size, its activations, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import actkit_wrn_silu  # noqa: F401  registers it
from actkit import InputError, Spec


def test_it_has_the_size_of_a_wrn_28_10_and_no_relu():
    with torch.device("meta"):
        model = Spec("backbone", "wrn_silu", {}).build()(10, in_chans=3)
    # As with ReLU: the activation has no weights.
    assert sum(p.numel() for p in model.parameters()) == 36_479_194
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_logits_of_any_image_size_and_channels():
    model = Spec("backbone", "wrn_silu", {"depth": 10, "width": 1}).build()(7, in_chans=1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(("settings", "message"), [({"depth": 11}, "6 n"), ({"width": 0}, "at least 1")])
def test_sizes_that_cannot_be_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        Spec("backbone", "wrn_silu", settings).build()

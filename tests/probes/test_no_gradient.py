"""Networks without a gradient, or whose gradient is zero everywhere: every probe that follows one says so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.attacks.goals import NoGradient
from actkit.datasets import Data, Split
from actkit.networks.roles import Role
from actkit.probes import fgsm_k, gallery, surface


class Steps(nn.Module):
    """Right on every image, through thresholds: its gradient is zero; detached, there is none."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.scale = how, nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = x.detach() if self.how == "detached" else x
        dark = x.flatten(1).mean(1, keepdim=True).mul(2).round()
        return torch.cat([1 - dark, dark, dark * 0 - 1], 1) * self.scale


IMAGES = torch.cat([torch.full((4, 1, 4, 4), 0.1), torch.full((4, 1, 4, 4), 0.9)])
DATA = Data("steps", (1, 4, 4), ("a", "b", "c"), {"test": 8}, lambda name: Split(IMAGES, torch.arange(8) // 4))

PROBES = {
    "surface": lambda model: surface(model, DATA, eps=0.01, points=3),
    "fgsm_k": lambda model: fgsm_k(model, DATA, eps=0.01, steps=2, tries=2),
    "gallery": lambda model: gallery(model, DATA, eps=0.01, steps=2, tries=2),
}


@pytest.mark.parametrize("probe", PROBES)
def test_no_gradient_is_refused(probe):
    with pytest.raises(NoGradient, match="no gradient with respect to the images"):
        PROBES[probe](Role("robust", Steps("detached")))


@pytest.mark.parametrize("probe", PROBES)
def test_a_gradient_that_is_zero_everywhere_is_a_red_flag(probe):
    (flag,) = PROBES[probe](Role("robust", Steps("rounded"))).flags
    assert (flag.check, flag.level) == ("zero gradients", "red")


@pytest.mark.parametrize("probe", PROBES)
def test_a_network_with_a_gradient_has_no_such_flag(probe):
    torch.manual_seed(0)
    assert PROBES[probe](Role("robust", nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))).flags == ()

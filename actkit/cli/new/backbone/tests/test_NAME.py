"""The backbone does what it says."""

from __future__ import annotations

import torch

import actkit_NAME  # noqa: F401  registers it
from actkit import Spec


def test_it_gives_logits():
    model = Spec("backbone", "NAME", {"width": 8}).build()(10, in_chans=1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)

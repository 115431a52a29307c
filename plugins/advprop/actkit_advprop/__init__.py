"""AdvProp (Xie et al. 2020) as an actkit plugin."""

from __future__ import annotations

from actkit_advprop.advprop import advprop
from actkit_advprop.two_norms import two_norms

__all__ = ["advprop", "two_norms"]

"""AWP (Wu et al. 2020) as an actkit plugin."""

from __future__ import annotations

from actkit_awp.awp import awp

__all__ = ["awp"]

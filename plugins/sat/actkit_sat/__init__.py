"""Self-adaptive training (Huang et al. 2020) as an actkit plugin."""

from __future__ import annotations

from actkit_sat.sat import sat

__all__ = ["sat"]

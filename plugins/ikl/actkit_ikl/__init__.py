"""IKL-AT (Cui et al. 2024) as an actkit plugin."""

from __future__ import annotations

from actkit_ikl.ikl import ikl

__all__ = ["ikl"]

"""FMN (Pintor et al. 2021) as an actkit plugin."""

from __future__ import annotations

from actkit_fmn.fmn import fmn

__all__ = ["fmn"]

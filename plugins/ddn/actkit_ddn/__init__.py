"""DDN (Rony et al. 2019) as an actkit plugin."""

from __future__ import annotations

from actkit_ddn.ddn import ddn

__all__ = ["ddn"]

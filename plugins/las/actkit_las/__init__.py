"""LAS-AT (Jia et al. 2022) as an actkit plugin."""

from __future__ import annotations

from actkit_las.las import las
from actkit_las.strategy import strategy

__all__ = ["las", "strategy"]

"""MART (Wang et al. 2020) as an actkit plugin."""

from __future__ import annotations

from actkit_mart.mart import mart

__all__ = ["mart"]

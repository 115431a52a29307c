"""LBGAT (Cui et al. 2021) as an actkit plugin."""

from __future__ import annotations

from actkit_lbgat.lbgat import lbgat

__all__ = ["lbgat"]

"""SCORE (Pang et al. 2022) as an actkit plugin."""

from __future__ import annotations

from actkit_score.score import score

__all__ = ["score"]

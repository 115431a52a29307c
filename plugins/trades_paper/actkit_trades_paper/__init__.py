"""The paper of TRADES (Zhang et al. 2019) as an actkit plugin."""

from __future__ import annotations

from actkit_trades_paper.trades import trades

__all__ = ["trades"]

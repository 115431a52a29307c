"""WideResNets with SiLU as an actkit plugin."""

from __future__ import annotations

from actkit_wrn_silu.wrn import wrn_silu

__all__ = ["wrn_silu"]

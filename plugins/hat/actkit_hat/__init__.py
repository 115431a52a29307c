"""HAT (Rade and Moosavi-Dezfooli 2022) as an actkit plugin."""

from __future__ import annotations

from actkit_hat.hat import hat

__all__ = ["hat"]

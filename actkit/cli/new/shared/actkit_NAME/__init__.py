"""NAME: KIND for actkit."""

from __future__ import annotations

from actkit_NAME.NAME import NAME

__all__ = ["NAME"]

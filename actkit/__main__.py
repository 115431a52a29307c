from __future__ import annotations

from actkit.cli import main

main()

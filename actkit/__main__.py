"""`python -m actkit`."""

from __future__ import annotations

from actkit.cli.group import main

main()

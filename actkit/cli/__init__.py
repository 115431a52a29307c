"""The command line: a file a command group. Results on stdout, progress and errors on stderr."""

from __future__ import annotations

from actkit.cli import completion, components, exchange, probe, recipes, report, reproduce, train  # noqa: F401  each registers its commands
from actkit.cli.group import main

__all__ = ["main"]

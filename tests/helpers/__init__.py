"""What several tests need: made-up models, runs, images; networks written down independently."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository

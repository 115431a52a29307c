"""Its recipe runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).parents[1] / "actkit_NAME"


def test_its_recipe_runs(tmp_path):
    recipe = PLUGIN / "gin/NAME_digits.gin"
    command = [
        sys.executable,
        "-m",
        "actkit",
        "run",
        str(recipe),
        "--plugins",
        str(PLUGIN),
        "--out",
        str(tmp_path / "run"),
    ]
    quick = ["-s", "run.steps=1", "-s", "run.monitor=[]", "-s", "run.evaluation=[@probe.accuracy(), @probe.NAME()]"]
    done = subprocess.run([*command, *quick], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/summary.json").is_file()

"""docs/data.md: every row has its test."""

from __future__ import annotations

import re

from helpers import ROOT

ROWS = [
    line
    for line in (ROOT / "docs/data.md").read_text().splitlines()
    if line.startswith("| ") and "what comes of it" not in line
]


def test_every_row_names_a_test_that_is_there():
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    named = [re.findall(r"`(test_\w+)` \|$", row) for row in ROWS]
    assert len(ROWS) > 40
    assert [row for row, names in zip(ROWS, named) if len(names) != 1 or names[0] not in there] == []

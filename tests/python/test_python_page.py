"""docs/python.md: its blocks run, one after the other, and what it says of them is so."""

from __future__ import annotations

import re

import pytest

from actkit.config import registry
from helpers import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)


@pytest.fixture(scope="module")
def names():
    """What the page's names stand for after its last block."""
    known = set(registry.registered)
    found: dict = {"__name__": "notebook"}
    for i, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/python.md, block {i + 1}", "exec"), found)
    yield found
    # What a page registers is not the package's.
    for selector in set(registry.registered) - known:
        if registry.registered[selector].target.__module__ == "notebook":
            del registry.registered[selector]


def test_every_block_runs(names):
    assert len(BLOCKS) > 5
    assert names["result"].examples["pgd20"].shape == (60,)


def test_the_trained_model_of_the_page_is_the_one_that_was_handed_in(names):
    assert names["made"].model is names["model"]


def test_the_page_says_what_a_verdict_is(names):
    assert re.fullmatch(
        r"at most \d+ of 60 images stay right under linf 8/255; strongest: PGD-20; no audit ran: whether gradients mislead was not checked",
        names["result"].verdict,
    )

"""docs/reference.md: every public name, with what its docstring says."""

from __future__ import annotations

import inspect
import re

import pytest
import reference

import actkit


def test_the_page_is_what_the_docstrings_say():
    assert reference.page() == reference.PAGE.read_text(encoding="utf-8"), "python docs/reference.py writes it"


def test_every_public_name_stands_on_the_page():
    there = set(re.findall(r"^### (\w+)$", reference.PAGE.read_text(encoding="utf-8"), re.M))
    assert there == {name for name in actkit.__all__ if not name.startswith("_")}


@pytest.mark.parametrize("name", [name for name in actkit.__all__ if not name.startswith("_")])
def test_a_public_name_says_what_its_arguments_are(name):
    thing = getattr(actkit, name)
    if not inspect.isroutine(thing) and not inspect.isclass(thing):
        return
    said = inspect.getdoc(thing) or ""
    parameters = [p for p in inspect.signature(thing).parameters if p not in ("self", "args", "kwargs")]
    missing = [p for p in parameters if not re.search(rf"\b{p}\b", said)]
    assert not missing

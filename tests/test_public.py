"""What `from actkit import ...` gives, to those who run it and to those who check types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import actkit

SOURCE = ast.parse(Path(actkit.__file__).read_text())


def imported_for_type_checkers() -> dict[str, str]:
    """The public names under `if TYPE_CHECKING`, with the object that each stands for."""
    found = {}
    for block in SOURCE.body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for line in block.body:
                assert isinstance(line, ast.ImportFrom)
                found |= {a.asname or a.name: f"{line.module}.{a.name}" for a in line.names}
    return found


def test_type_checkers_and_the_interpreter_see_the_same_names():
    assert sorted({*imported_for_type_checkers(), "__version__"}) == sorted(actkit.__all__) == dir(actkit)


@pytest.mark.parametrize(("name", "target"), sorted(imported_for_type_checkers().items()))
def test_a_public_name_is_what_type_checkers_take_it_for(name, target):
    module, _, attribute = target.rpartition(".")
    assert getattr(actkit, name) is getattr(__import__(module, fromlist=[attribute]), attribute)


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        actkit.nonsense  # noqa: B018

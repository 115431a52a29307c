"""The architecture: who may import whom, and who alone imports a library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "actkit"

# Each line may import from itself only what stands to its left, and anything from the lines above it.
LAYERS = [
    ["errors"],
    ["registry", "spec", "noise"],
    ["losses", "attacks", "backbones", "datasets", "objectives", "probes"],
    ["roles"],
    ["loop", "checkpoint"],
    ["config", "report", "run", "plan"],
    ["cli"],
    ["__main__"],
]
RANK = {module: (i, j) for i, layer in enumerate(LAYERS) for j, module in enumerate(layer)}
MODULES = sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__")


def imports(module: str) -> list[tuple[str, str | None]]:
    """(top-level package, actkit module) of every import in the source, also inside functions."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found += [(a.name.split(".")[0], None) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "actkit":
            found += [("actkit", a.name) for a in node.names if a.name != "__version__"]
        elif isinstance(node, ast.ImportFrom) and node.module:
            top, _, rest = node.module.partition(".")
            found.append((top, rest or None))
    return found


def test_every_module_has_its_place():
    assert MODULES == sorted(RANK)


@pytest.mark.parametrize("module", MODULES)
def test_layers_import_only_downwards(module):
    for top, other in imports(module):
        if top == "actkit" and other is not None:
            assert RANK[other] < RANK[module], f"{module} imports {other}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("gin", {"config"}),
        ("click", {"cli"}),
        ("rich", {"cli", "report"}),
        ("safetensors", {"checkpoint"}),
        ("timm", {"backbones"}),
        ("torchvision", {"datasets"}),
        ("sklearn", {"datasets"}),
        ("pickle", set()),
    ],
)
def test_a_library_has_one_home(library, homes):
    assert {m for m in MODULES if library in {top for top, _ in imports(m)}} == homes


def test_nothing_is_unpickled():
    for module in MODULES:
        source = (PACKAGE / f"{module}.py").read_text()
        assert "torch.load" not in source
        assert "weights_only=False" not in source


def test_every_module_postpones_annotations():
    """Python 3.14 evaluates them lazily, and gin's way of reading signatures trips over that."""
    for module in MODULES:
        assert "from __future__ import annotations" in (PACKAGE / f"{module}.py").read_text(), module

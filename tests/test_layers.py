"""The architecture: who may import whom, and who alone imports a library."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "actkit"

# Each line may import from itself only what stands to its left, and anything from the lines above it.
LAYERS = [
    ["errors"],
    ["new"],
    ["registry", "spec", "noise", "pictures"],
    ["losses", "attacks", "backbones", "datasets", "objectives", "probes"],
    ["models"],
    ["roles"],
    ["loop", "checkpoint", "signals"],
    [
        "config",
        "report",
        "foreign",
        "examine",
        "run",
        "plan",
        "export",
        "tables",
        "study",
        "paper",
        "reproduce",
        "page",
    ],
    ["cli"],
    ["__main__"],
]
RANK = {module: (i, j) for i, layer in enumerate(LAYERS) for j, module in enumerate(layer)}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def part(path: Path) -> str:
    """The module or the package that a file belongs to: attacks/pgd.py is `attacks`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


PARTS = sorted({part(p) for p in FILES})


def imports(path: Path) -> list[tuple[str, str | None]]:
    """(top-level package, actkit's module or package) of every import in the source, also inside functions."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(a.name.split(".")[0], None) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "actkit":
            found += [("actkit", a.name) for a in node.names if a.name != "__version__"]
        elif isinstance(node, ast.ImportFrom) and node.module:
            top, _, rest = node.module.partition(".")
            found.append((top, rest.partition(".")[0] or None))
    return found


def test_every_module_has_its_place():
    assert sorted(RANK) == PARTS


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers_import_only_downwards(path):
    for top, other in imports(path):
        if top == "actkit" and other is not None and other != part(path):
            assert RANK[other] < RANK[part(path)], f"{path.name} imports {other}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("gin", {"config"}),
        ("click", {"cli"}),
        ("rich", {"cli", "report"}),
        ("safetensors", {"checkpoint"}),
        ("timm", {"backbones", "models"}),
        ("torchvision", {"datasets"}),
        ("sklearn", {"datasets"}),
        ("matplotlib", {"pictures"}),
        ("jinja2", {"page"}),
        ("packaging", {"registry"}),
        ("pyautoattack", {"probes"}),
        ("pickle", {"foreign"}),
    ],
)
def test_a_library_has_one_home(library, homes):
    assert {part(p) for p in FILES if library in {top for top, _ in imports(p)}} == homes


def test_nothing_is_unpickled_but_weights():
    for path in FILES:
        source = path.read_text()
        calls = [
            n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"
        ]
        assert not calls or path.name == "foreign.py"
        for call in calls:
            assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True"
        assert "weights_only=False" not in source
        assert not {"load", "loads", "Unpickler"} & {
            n.attr
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pickle"
        }


def test_every_module_postpones_annotations():
    """Python 3.14 evaluates them lazily, and gin's way of reading signatures trips over that."""
    for path in FILES:
        if path.name != "__init__.py":
            assert "from __future__ import annotations" in path.read_text(), path


def test_every_package_is_named_in_pyproject():
    named = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {f"actkit.{p.parent.relative_to(PACKAGE)}" for p in FILES if p.parent != PACKAGE}
    assert set(named) == {"actkit", "actkit.gin", *there}

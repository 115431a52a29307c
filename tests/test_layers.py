"""The architecture: who may import whom, and who alone imports a library."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import layers
import pytest

import actkit
from actkit.config import registry

PACKAGE = Path(__file__).parent.parent / "actkit"

# A file may import from its own room and from the floors below; rooms of one floor know nothing of each other.
FLOORS = layers.FLOORS[::-1]
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor}
# What `actkit new` writes is no part of actkit: other people's plugins begin as that.
TEMPLATES = PACKAGE / "cli/new"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py" and not p.is_relative_to(TEMPLATES))


def room(path: Path) -> str:
    """The folder, or the file at the top, that a file belongs to: attacks/pgd.py is in `attacks`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(["actkit", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module(p) for p in FILES}


def imports(path: Path) -> set[str]:
    """Every module that the source imports, also inside functions; of actkit's, the file itself."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "actkit":
            found |= {f"actkit.{a.name}" for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{a.name}" for a in node.names}
            found |= (inner & MODULES) | ({node.module} if inner - MODULES else set())
    return found


def test_every_room_has_its_floor():
    assert sorted(FLOOR) == sorted({room(p) for p in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    for name in imports(path) & MODULES:
        other = name.split(".")[1]
        if other != room(path):
            assert FLOOR[other] < FLOOR[room(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_names_a_room_above_it_in_a_string(path):
    """Such as a registry that knows where components lie: that is said in actkit/__init__.py, the table of contents."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"actkit(\.\w+)+", node.value)
        ):
            other = node.value.split(".")[1]
            assert FLOOR.get(other, -1) <= FLOOR[room(path)], f"{path.name} names {node.value}"


def test_the_registry_alone_reaches_up_by_the_table_of_contents():
    """A name such as attack.pgd is looked up below and defined above. So actkit/__init__.py, the one file on no floor, says where, and the
    registry imports that: the one way up that there is."""
    users = [p.relative_to(PACKAGE).as_posix() for p in FILES if "actkit.COMPONENTS" in imports(p)]
    assert users == ["config/registry.py"]


@pytest.mark.parametrize("kind", actkit.COMPONENTS)
def test_the_table_of_contents_names_whatever_registers_a_kind(kind):
    """Also the components that no other module would import on the way."""
    homes = {f"actkit.{home}" for home in actkit.COMPONENTS[kind]}
    assert homes <= {*MODULES, *(name.rpartition(".")[0] for name in MODULES)}
    for one in registry.entries(kind):
        written = one.target.__module__
        if written.startswith("actkit."):
            assert any(written == home or written.startswith(f"{home}.") for home in homes), one.selector


def test_there_is_no_circle():
    seen: dict[str, bool] = {}  # a module, and whether its imports are still being followed
    graph = {module(p): imports(p) & MODULES for p in FILES}

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert not seen.get(name), " -> ".join((*way, name))
        if name in seen:
            return
        seen[name] = True
        for other in graph[name]:
            follow(other, (*way, name))
        seen[name] = False

    for name in graph:
        follow(name, ())


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("gin", {"config/reader.py"}),
        ("click", {"cli"}),
        ("rich", {"cli"}),
        ("safetensors", {"networks/model_files.py", "networks/headers.py"}),
        ("timm", {"networks/backbones.py", "models.py"}),
        ("torchvision", {"datasets"}),
        ("pyarrow", {"datasets/parquet.py"}),
        ("sklearn", {"datasets/bundled.py"}),
        ("matplotlib", {"probes/pictures.py", "probes/lettering.py"}),
        ("jinja2", {"reports/html_page.py"}),
        ("packaging", {"config/plugins.py"}),
        ("pyautoattack", {"probes/autoattack.py"}),
        ("pickle", {"networks/foreign_files.py"}),
    ],
)
def test_a_library_has_one_home(library, homes):
    users = {p for p in FILES if library in {name.partition(".")[0] for name in imports(p)}}
    assert {home for p in users for home in {room(p), str(p.relative_to(PACKAGE))} if home in homes} == homes
    assert all(room(p) in homes or str(p.relative_to(PACKAGE)) in homes for p in users)


def test_nothing_is_unpickled_but_weights():
    for path in FILES:
        source = path.read_text()
        calls = [
            n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"
        ]
        assert not calls or path.name == "foreign_files.py"
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
    there = {module(p.parent / "__init__.py") for p in FILES if p.parent != PACKAGE}
    assert set(named) == {"actkit", "actkit.gin", *there}


def test_the_picture_in_the_architectures_page_is_the_codes():
    assert layers.PAGE.read_text() == layers.page(), "run  python docs/layers.py"

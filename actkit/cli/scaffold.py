"""What `actkit new KIND NAME` writes: a plugin that works, with a recipe and tests, ready to edit and to publish.

The files are in `new/`: those of every plugin in `new/shared`, those of a kind in `new/<kind>`. In their names and their text NAME, KIND and VERSION
are filled in; as they stand they are valid Python. What is not valid as it stands ends in `.template`.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator
from pathlib import Path

from actkit import __version__
from actkit.errors import InputError, nearest

TEMPLATES = Path(__file__).with_name("new")
KINDS = ("objective", "attack", "backbone", "probe", "dataset")

# Modules that what is written imports; a plugin of that name would hide them from itself.
_MODULES = ("actkit", "torch", "problems", "pytest", "sys", "subprocess")


def new(kind: str, name: str, place: Path) -> Path:
    """Write the plugin into `place/name` and give that folder. Raises `InputError` for a kind or name that cannot be, or a folder that is there."""
    if kind not in KINDS:
        raise InputError(
            f"a plugin cannot be begun for {kind!r}", help=nearest(kind, KINDS) or f"one of {', '.join(KINDS)}"
        )
    _assert_usable(name)
    folder = place / name
    if folder.exists():
        raise InputError(
            "the folder is there already", where=str(folder), help="choose another name, or another --into"
        )
    filled = {"NAME": name, "KIND": kind, "VERSION": __version__}
    for file, template in templates(kind).items():
        path = folder / _fill(file, filled)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_fill(template.read_text(encoding="utf-8"), filled), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"the plugin cannot be written: {error.strerror}", where=str(path), help="choose another --into"
            ) from error
    return folder


def templates(kind: str) -> dict[str, Path]:
    """What a plugin of this kind is made of, by the path in its folder; a kind's own file replaces the shared one."""
    roots = (TEMPLATES / "shared", TEMPLATES / kind)
    return {
        path.relative_to(root).as_posix().removesuffix(".template"): path
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def _fill(text: str, values: dict[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def _assert_usable(name: str) -> None:
    usable = name.isidentifier() and not keyword.iskeyword(name) and name == name.lower() and name.strip("_") == name
    if usable and name not in _MODULES:
        return
    suggested = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")
    raise InputError(
        f"a component's name must be a Python identifier in lower case that begins and ends with no underscore and is no module's, got {name!r}",
        help=f"did you mean {suggested!r}?" if suggested.isidentifier() and not keyword.iskeyword(suggested) else None,
    )


def builtin_components(kind: str) -> Iterator[tuple[str, str]]:
    """Name and place of actkit's own components of a kind, read from the source: importing them would cost the seconds that torch takes."""
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        if path.is_relative_to(TEMPLATES):
            continue
        text = path.read_text(encoding="utf-8")
        if f'@register("{kind}"' not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator).startswith(f"register('{kind}'"):
                        yield node.name, f"{path}:{decorator.lineno}"

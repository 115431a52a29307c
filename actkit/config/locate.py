"""Where recipes lie: as a path says, beside the file that includes them, in actkit itself, or in a plugin."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Literal

from actkit.config.plugins import plugin_folders
from actkit.errors import InputError, nearest


def recipe_roots() -> list[Path]:
    """Where a `gin/` with recipes may lie: inside an installed wheel, beside the package in a checkout, and in plugins."""
    package = Path(__file__).resolve().parents[1]
    return [package, package.parent, *plugin_folders()]


def locate_recipe(file: str, beside: Path | None = None) -> Path | None:
    """A recipe's path: as given (or beside the including file), else in the package."""
    near = beside / file if beside else Path(file)
    # Asking what is installed takes longer than looking.
    if near.is_file():
        return near
    packaged = (root / part for root in recipe_roots() for part in (file, f"gin/{file}"))
    return next((p for p in packaged if p.is_file()), None)


def find_recipe(file: str) -> Path:
    """The path of the recipe that a user named. Raises `InputError`, with the nearest names, where there is none."""
    path = locate_recipe(file)
    if path is not None:
        return path
    folder = Path(file).parent
    near = [*map(str, folder.glob("*.gin") if folder.is_dir() else []), *packaged_recipes()]
    raise InputError(
        f"config file not found: {file}",
        help=nearest(file, near, listing=False) or "`actkit list recipes` shows the packaged ones",
    )


def packaged_recipes() -> dict[str, Path]:
    """The recipes that come with actkit and its plugins: where each lies, by the name that `actkit run` takes."""
    found: dict[str, Path] = {}
    for root in recipe_roots():
        for path in (root / "gin").rglob("*.gin"):
            found.setdefault(f"gin/{path.relative_to(root / 'gin')}", path)
    return dict(sorted(found.items()))


def recipe_use(recipe: Path) -> Literal["run", "evaluation", "part"]:
    """What a recipe is for: to be run, to examine models by (`--evaluation`), or to be included. By its text and that of its includes."""
    text = _text_with_includes(recipe, set())
    if re.search(r"^(run\.|\s+)objective\s*=", text, re.MULTILINE) and re.search(
        r"^(run\.|\s+)data\s*=", text, re.MULTILINE
    ):
        return "run"
    own = recipe.read_text(encoding="utf-8")
    return "evaluation" if re.search(r"^(run\.|\s+)evaluation\s*=", own, re.MULTILINE) else "part"


def _text_with_includes(recipe: Path, seen: set[Path]) -> str:
    """A recipe's text with that of what it includes before it, each file once; what is not found is left out."""
    seen.add(recipe)
    text = recipe.read_text(encoding="utf-8", errors="replace")
    named = re.findall(r"^include\s+['\"](.+?)['\"]", text, re.MULTILINE)
    found = (locate_recipe(name, beside=recipe.parent) for name in named)
    return "\n".join([*(_text_with_includes(path, seen) for path in found if path and path not in seen), text])


def portable_name(path: Path) -> str:
    """A recipe's path for a result file: a packaged one by the name that it has on every machine."""
    # A plugin's folder lies in site-packages, which is a root too: the longer root is the nearer one.
    for root in sorted(recipe_roots(), key=lambda root: -len(root.parts)):
        if path.is_absolute() and path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def first_sentence(recipe: Path) -> str:
    """The first sentence of a recipe's opening comment."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = [line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return re.split(r"(?<=[.:]) ", " ".join(comment))[0].rstrip(":")

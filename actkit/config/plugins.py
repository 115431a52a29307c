"""Plugins: by entry point, by folder, by a recipe's `import` lines; what each brings, and why one failed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from actkit import __version__
from actkit.config import registry
from actkit.config.spec import Spec
from actkit.errors import InputError, nearest, raise_all

# Installed plugins that were loaded or could not be, by name and distribution; and why not, '' where it is loaded.
attempted: dict[str, str] = {}

# The folders that `--plugins` gave.
given: list[Path] = []


@dataclass(frozen=True)
class Plugin:
    """An installed plugin: an entry point in the group `actkit.plugins`.

    `origin`: its distribution and version. `error`: why it could not be loaded, '' where it is.
    """

    name: str
    origin: str
    module: str
    error: str = ""

    @property
    def components(self) -> list[str]:
        return sorted(entry.selector for entry in registry.entries() if entry.origin == self.origin)


def installed_plugins() -> list[Plugin]:
    """The installed plugins, loaded, each with why it could not be."""
    points = sorted(importlib.metadata.entry_points(group="actkit.plugins"), key=lambda p: p.name)
    # Then nothing is imported: torch takes seconds.
    if not points:
        return []
    # First, so that nothing of actkit's own is taken for a plugin's.
    registry.load_builtins()
    found = []
    for point in points:
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.name
        module = point.value.partition(":")[0] if hasattr(point, "value") else point.module
        key = f"{point.name} ({origin})"
        if key not in attempted:
            try:
                attempted[key] = _too_new(point) or _load_failure(point, origin, module)
            except Exception as error:
                # Its metadata cannot be read.
                attempted[key] = f"{type(error).__name__}: {error}"
        if attempted[key]:
            registry.failures[point.name] = attempted[key]
        found.append(Plugin(point.name, origin, module, attempted[key]))
    return found


def load_installed_plugins() -> list[str]:
    """Load the installed plugins. Returns a warning for each that failed."""
    return [f"plugin {p.name} ({p.origin}) could not be loaded: {p.error}" for p in installed_plugins() if p.error]


def _load_failure(point: importlib.metadata.EntryPoint, origin: str, module: str) -> str:
    own = module.partition(".")[0]
    try:
        with registry.registering_for(origin):
            point.load()
    except (Exception, SystemExit) as error:
        # A broken plugin must not stop the commands that do not need it, nor leave half of itself; what it imported of others stays theirs.
        registry.forget(own)
        for name in [n for n in sys.modules if n.partition(".")[0] == own]:
            del sys.modules[name]
        return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return ""


def _too_new(point: importlib.metadata.EntryPoint) -> str:
    """Why a plugin that asks for another actkit is not even imported; '' where it asks for this one."""
    for text in point.dist.requires or [] if point.dist else []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        if needed.name == "actkit" and not needed.specifier.contains(__version__, prereleases=True):
            return f"it is built for actkit {needed.specifier}, this is {__version__}; upgrade actkit, or install another release of it"
    return ""


def plugin_folders() -> list[Path]:
    """Where plugins lie, installed or given with `--plugins`, for the recipes that they bring in `gin/`; nothing is imported."""
    found = list(given)
    for module in sorted(installed_plugin_modules()):
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(module)
            found += [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return found


def load_plugin_folder(folder: Path) -> None:
    """Import every module of a `--plugins` folder, as `<folder>.<module>`. Raises `InputError` when one fails."""
    if not folder.is_dir():
        near = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        close = nearest(folder.name, near, listing=False)
        raise InputError(
            "--plugins: it is a file" if folder.is_file() else "--plugins: no such folder",
            where=str(folder),
            help=close
            or "give the folder that holds the plugin's .py files; an installed plugin (`actkit list plugins`) needs no --plugins",
        )
    parent = str(folder.resolve().parent)
    # Appended: a plugin folder must not shadow installed packages.
    if parent not in sys.path:
        sys.path.append(parent)
    found = importlib.util.find_spec(folder.resolve().name)
    if found is None or str(folder.resolve()) not in list(found.submodule_search_locations or []):
        raise InputError(
            f"--plugins: the folder {folder.name!r} has the name of an installed module",
            where=str(folder),
            help="rename the folder",
        )
    if folder.resolve() not in given:
        given.append(folder.resolve())
    # First, so that a plugin that takes a name of actkit's own is refused, and not actkit.
    registry.load_builtins()
    for path in sorted(folder.resolve().glob("*.py")):
        if not path.stem.startswith("_"):
            load_plugin_module(f"{folder.resolve().name}.{path.stem}", where=str(path), origin=str(path))


def load_plugin_module(module: str, *, where: str, origin: str | None = None) -> None:
    """Import a plugin that was asked for by name. Raises `InputError`, with the plugin's own error, when it fails."""
    try:
        with registry.registering_for(origin or module):
            importlib.import_module(module)
    except InputError:
        raise
    except Exception as error:
        help = "install it, or give its folder with --plugins" if isinstance(error, ModuleNotFoundError) else None
        raise InputError(
            f"plugin {module!r} could not be imported: {type(error).__name__}: {error}", where=where, help=help
        ) from error


def installed_plugin_modules() -> set[str]:
    """Top-level modules of installed plugins: what a recipe may import without --trust."""
    if os.environ.get("ACTKIT_DISABLE_PLUGINS"):
        return set()
    points = importlib.metadata.entry_points(group="actkit.plugins")
    return {(p.value if hasattr(p, "value") else p.module).partition(":")[0].partition(".")[0] for p in points}


# -- whose the components of a file are ----------------------------------------------------------------------------------


def plugins_of(value: Any) -> dict[str, str]:
    """Whose the components in Specs are that are not actkit's own: by distribution its version.

    A folder that was given with `--plugins` goes by its name and a slash, and has no version.
    """
    found = {}
    for spec in _specs_in(value):
        if not registry.has(spec.selector):
            continue
        origin = spec.entry.origin
        # The optimizers and schedules are torch's.
        if origin in ("actkit", "torch"):
            continue
        if os.sep in origin:
            found[f"{Path(origin).parent.name}/"] = ""
        else:
            name, _, version = origin.partition(" ")
            found[name] = version
    return dict(sorted(found.items()))


def plugins_beside(recipe: Path) -> dict[str, str]:
    """Whose the components of a recipe are, as far as its folder says: beside a run's `config.gin` its `config.json`; a plugin's own `gin/` lies in it."""
    folder = recipe.resolve().parent
    # actkit's own recipes, in an installed wheel, are no plugin's.
    own = folder.parent == Path(__file__).resolve().parents[1]
    if folder.name == "gin" and (folder.parent / "__init__.py").is_file() and not own:
        return {f"{folder.parent}/": ""}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("plugins", {})
        return {name: version for name, version in saved.items() if isinstance(version, str)}
    return {}


def assert_there(value: Any, saved: Mapping[str, str], *, where: str) -> None:
    """Raise `InputError`, which says what to install, where a component in Specs is not here.

    Args:
        saved: whose the file's components are, as `plugins_of` told when it was written; nothing of older files.
    """
    missing = dict.fromkeys(spec.selector for spec in _specs_in(value) if not registry.has(spec.selector))
    raise_all([not_here(name, saved, where=where) for name in missing])


# What may stand on a command line that a message proposes, since a file may say anything: one word that is no option, without letters that only look
# like ours. A release has a name and no path, so that pip is never led to a folder.
_PLAIN = re.compile(r"([A-Za-z0-9_./][A-Za-z0-9_.+!/-]{0,199})?", re.ASCII)


def not_here(selector: str, saved: Mapping[str, str], *, where: str) -> InputError:
    """That a component's plugin is not here, and which it is: of those that a file was saved with, the ones that are not here, or not in that version."""
    known = {
        n: v for n, v in saved.items() if n and _PLAIN.fullmatch(n) and _PLAIN.fullmatch(v) and not (v and "/" in n)
    }
    known = {name: version for name, version in known.items() if _version_here(name) != version} or known
    releases = {name: version for name, version in known.items() if version}
    folders = [name.rstrip("/") for name, version in known.items() if not version]
    said = []
    if releases:
        listed = " and ".join(f"{name} {version}" for name, version in releases.items())
        wanted = " ".join(f"{name}=={version}" for name, version in releases.items())
        said.append(
            f"it was saved with {listed}: pip install {wanted} if you trust it, or give its folder with --plugins"
        )
    if folders:
        said.append(f"it is of a folder: --plugins {' --plugins '.join(folders)}")
    said = said or ["a plugin has it, and nothing here says which: install it, or give its folder with --plugins"]
    said += [f"{name} {version} is installed" for name in releases if (version := _version_here(name))]
    said += [f"plugin {name} could not be loaded: {why}" for name, why in registry.failures.items()]
    return InputError(f"{selector!r} is not here", where=where, help="; ".join(said))


def _version_here(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _specs_in(value: Any) -> Iterator[Spec]:
    """Every Spec in a value, however deep; of a Spec, itself too."""
    if isinstance(value, Spec):
        yield value
        value = value.kwargs
    inside: Iterable[Any] = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    )
    for inner in inside:
        yield from _specs_in(inner)

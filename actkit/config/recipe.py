"""Recipes: gin files in, Specs out. The only module that knows gin.

gin is the language and its parser reads it; what a binding means is worked out here, in one walk from `run`, by gin's own rules
(scopes, references, macros; `tests/test_config.py` compares the two). gin's engine is left out because it keeps one global store, stops at
the first mistake, forgets where a value came from, and imports and calls things while a file is read. Here all mistakes of a
recipe are told at once, with file and line, and nothing is called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actkit.config import registry
from actkit.config.plugins import installed_plugin_modules, load_plugin_folder, load_plugin_module
from actkit.config.reader import Macro, Place, Reader, Ref, locate_recipe, packaged_recipes, recipe_roots
from actkit.config.resolver import ROLE, ROOT, STUDY, Resolver, long_steps, resolve_root, unused
from actkit.config.spec import Spec
from actkit.errors import InputError, InputErrors, nearest


@dataclass
class Recipe:
    """A recipe that was read: its Spec, and what a user may want to know of the reading.

    `text` is one gin file that says the same: what was used, in complete selectors.
    """

    spec: Spec
    source: str
    text: str
    warnings: list[str] = field(default_factory=list)
    origins: dict[str, Place] = field(default_factory=dict)


def load_recipe(
    file: str,
    overrides: Iterable[str] = (),
    *,
    plugins: Iterable[str] = (),
    trust: bool = False,
) -> Recipe:
    """Read a recipe.

    Args:
        file: a path, or the name of a packaged recipe such as 'gin/act_cifar10.gin'.
        overrides: 'KEY=VALUE', applied after the file, the last one winning.
        plugins: folders whose modules are loaded, and may be imported by the recipe.
        trust: allow the recipe to import any module.

    Raises `InputError`, or `InputErrors` with everything that is wrong with the recipe.
    """
    resolver, imports = _read(file, overrides, plugins, trust)
    spec = resolve_root(resolver, Place(file))
    warnings = [*unused(resolver), *long_steps(spec)] if spec else []
    if resolver.problems or spec is None:
        raise combined(resolver.problems)
    text, origins = _dump(resolver, imports)
    return Recipe(spec, _called(locate_recipe(file)), text, warnings, origins)


def _called(path: Path | None) -> str:
    """A recipe's path for a result file: a packaged one by the name that it has on every machine."""
    for root in sorted(
        recipe_roots(), key=lambda root: -len(root.parts)
    ):  # a plugin's folder lies in site-packages, which is a root too
        if path is not None and path.is_absolute() and path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def _read(
    file: str, overrides: Iterable[str], plugins: Iterable[str], trust: bool
) -> tuple[Resolver, list[tuple[str, Place]]]:
    """A recipe's bindings, plugins loaded; and its imports."""
    path = locate_recipe(file)
    if path is None:
        near = [
            str(p) for p in (Path(file).parent.glob("*.gin") if Path(file).parent.is_dir() else [])
        ] + packaged_recipes()
        raise InputError(
            f"config file not found: {file}",
            help=nearest(file, near, listing=False) or "`actkit list recipes` shows the packaged ones",
        )
    reader = Reader()
    reader.read(path.resolve(), file)
    for setting in overrides:
        reader.override(setting)
    _import(reader.imports, [Path(p) for p in plugins], trust)
    resolver = Resolver(reader.bindings)
    resolver.problems[:0] = reader.problems
    if reader.problems:  # what follows would be guesses about half a recipe
        raise combined(resolver.problems)
    return resolver, reader.imports


def combined(problems: list[InputError]) -> InputError:
    """One error of several, each told once."""
    unique = list({str(problem): problem for problem in problems}.values())
    return unique[0] if len(unique) == 1 else InputErrors(unique)


def _import(imports: list[tuple[str, Place]], plugins: list[Path], trust: bool) -> None:
    """Check all imports of a recipe against the allow-list, then do them: plugin folders first."""
    folders = {folder.resolve().name for folder in plugins}
    allowed = installed_plugin_modules() | folders | {"actkit"}
    problems = []
    for module, place in imports:
        if module.startswith("__gin__"):
            problems.append(
                InputError(
                    "gin's dynamic registration is not used here",
                    where=str(place),
                    help="register components with @register",
                )
            )
        elif not trust and module.partition(".")[0] not in allowed:
            problems.append(
                InputError(
                    f"this recipe would import {module!r}, which can run any code, and it is no installed plugin",
                    where=str(place), help="look at it; then --trust allows it, or give its folder with --plugins",
                )
            )  # fmt: skip
    if problems:
        raise combined(problems)
    registry.load_builtins()
    for folder in plugins:
        load_plugin_folder(folder)
    for module, place in imports:
        load_plugin_module(module, where=str(place))


def _dump(resolver: Resolver, imports: list[tuple[str, Place]]) -> tuple[str, dict[str, Place]]:
    """One gin file that says the same, what nothing uses left out; and where each line came from."""
    used = [b for key, b in resolver.table.items() if key in resolver.used]
    macros = [b for name, b in resolver.macros.items() if ("", name, "") in resolver.used]
    used.sort(key=lambda b: (b.selector != ROOT, b.selector != ROLE, b.selector, b.scope, b.parameter))
    lines, origins = [f"import {module}" for module, _ in imports], {}
    for binding in [*macros, *used]:
        line = f"{binding.key} = {_gin(binding.value)}"
        lines.append(line)
        origins[line] = binding.place
    return "\n".join(lines) + "\n", origins


def _gin(value: Any) -> str:
    if isinstance(value, (Ref, Macro)):
        return repr(Ref(value.scope, registry.get(value.selector).selector) if isinstance(value, Ref) else value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_gin, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_gin, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_gin(v)}" for k, v in value.items()) + "}"
    assert ast.literal_eval(repr(value)) == value
    return repr(value)


def load_evaluation(
    file: str, overrides: Iterable[str] = (), *, plugins: Iterable[str] = (), trust: bool = False
) -> list[Spec]:
    """The probes in a recipe's `run.evaluation`, the rest of it left aside. Raises `InputError` as `load` does."""
    return list(_parts(file, overrides, plugins, trust, {"evaluation": "probe"}, {})["evaluation"])


def load_setting(
    file: str, overrides: Iterable[str] = (), *, backbone: str, plugins: Iterable[str] = (), trust: bool = False
) -> dict[str, Any]:
    """'data' and 'evaluation' of a recipe, and as 'backbone' the component of that name with the settings it has there.

    For a model that no recipe trained. Raises `InputError` as `load` does.
    """
    wanted = {"data": "dataset", "evaluation": "probe"}
    return _parts(file, overrides, plugins, trust, wanted, {"backbone": Ref("", f"backbone.{backbone}")})


def load_study(
    file: str, overrides: Iterable[str] = (), *, plugins: Iterable[str] = (), trust: bool = False
) -> Spec | None:
    """What a recipe binds of `study`, or None when it binds nothing. Raises `InputError` as `load` does."""
    resolver, _ = _read(file, overrides, plugins, trust)
    if not any(selector == STUDY for _, selector, _ in resolver.table):
        return None
    spec = resolver.spec(STUDY, "", Place(file))
    if resolver.problems or spec is None:
        raise combined(resolver.problems)
    return spec


def _parts(
    file: str,
    overrides: Iterable[str],
    plugins: Iterable[str],
    trust: bool,
    wanted: Mapping[str, str],
    named: Mapping[str, Ref],
) -> dict[str, Any]:
    """Some parameters of a recipe's `run`, by name and kind, and other components resolved in it; the rest is left aside."""
    resolver, _ = _read(file, overrides, plugins, trust)
    found = {}
    for name, kind in wanted.items():
        binding = resolver.table.get(("", ROOT, name))
        if binding is None:
            raise combined([*resolver.problems, InputError(f"the recipe has no run.{name}", where=file)])
        found[name] = resolver.value(binding.value, "", binding.place, (kind,), "")
    for name, ref in named.items():
        found[name] = resolver.spec(ref.selector, ref.scope, None)
    if resolver.problems:
        raise combined(resolver.problems)
    return found

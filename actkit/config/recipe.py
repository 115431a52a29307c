"""Recipes: gin files in, Specs out, by way of `reader` (what is written), `bindings` (what is bound) and `resolver` (what it means).

gin is the language and its parser reads it; what a binding means, `resolver` works out in one walk from `run`, by gin's own rules
(scopes, references, macros; `tests/config/test_recipe.py` compares the two). gin's engine is left out because it keeps one global store, stops at
the first mistake, forgets where a value came from, and imports and calls things while a file is read. Here all mistakes of a
recipe are reported at once, with file and line, and nothing is called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actkit.config import registry
from actkit.config.bindings import Table
from actkit.config.locate import packaged_recipes, portable_name, recipe_use
from actkit.config.plugins import (
    installed_plugin_modules,
    load_plugin_folder,
    load_plugin_module,
    not_here,
    plugins_beside,
)
from actkit.config.reader import Binding, Document, Import, Macro, Place, Ref, read_document
from actkit.config.resolver import ROLE, ROOT, STUDY, Resolver, Slot, long_steps, resolve_root, unused, unused_warning
from actkit.config.spec import Spec
from actkit.errors import InputError, raise_all


@dataclass
class Recipe:
    """A recipe that was read: its Spec, and what a user may want to know of the reading.

    `text` is one gin file that says the same: what was used, in complete selectors. `unused` are lines that nothing uses; a warning says each.
    """

    spec: Spec
    source: str
    text: str
    warnings: list[str] = field(default_factory=list)
    origins: dict[str, Place] = field(default_factory=dict)
    unused: list[Binding] = field(default_factory=list)


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that is read, its plugins loaded: what it says of a run, of a study, and of an evaluation are all resolved from this one reading."""

    document: Document
    table: Table

    @property
    def file(self) -> str:
        """What the user called it."""
        return self.document.file

    @property
    def is_recipe(self) -> bool:
        """Whether it declares a run, whole or not."""
        return ("", ROOT, "objective") in self.table.bindings

    def recipe(self) -> Recipe:
        """The run that it declares. Raises `InputError`, or `InputErrors` with everything that is wrong with it."""
        if not self.is_recipe and ("", STUDY, "recipes") in self.table.bindings:
            raise InputError(
                "this file is a study of other recipes and no recipe itself",
                where=self.file,
                help="give one of its study.recipes",
            )
        self._assert_no_part()
        resolver = Resolver(self.table)
        spec = resolve_root(resolver, Place(self.file))
        idle = unused(resolver) if spec else []
        raise_all([*resolver.problems, *self.table.unknown_macros()])
        assert spec is not None
        text, origins = _dump(resolver, self.document.imports)
        warnings = [*map(unused_warning, idle), *long_steps(spec)]
        return Recipe(spec, portable_name(self.document.path), text, warnings, origins, idle)

    def _assert_no_part(self) -> None:
        """Raise `InputError` for a packaged file that recipes include: what a run needs is missing there on purpose."""
        path = self.document.path.resolve()
        if not self.is_recipe and path in map(Path.resolve, packaged_recipes().values()):
            kind = "an evaluation" if recipe_use(path) == "evaluation" else "a part that recipes include"
            raise InputError(
                f"{self.file} is {kind}, and cannot be run: it says nothing of run.objective",
                help="`actkit list recipes` shows what can be; with -s run.objective=... it is one",
            )

    def study(self) -> Spec | None:
        """What it binds of `study`, or None when it binds nothing. Raises `InputError` as `recipe` does."""
        if not any(selector == STUDY for _, selector, _ in self.table.bindings):
            return None
        resolver = Resolver(self.table)
        spec = resolver.spec(STUDY, Slot("", Place(self.file)))
        raise_all(resolver.problems)
        return spec

    def evaluation(self) -> list[Spec]:
        """The probes in its `run.evaluation`, the rest of it left aside. Raises `InputError` as `recipe` does."""
        resolver = Resolver(self.table)
        probes = self._of_run(resolver, "evaluation", "probe")
        raise_all([*resolver.problems, *self.table.unknown_macros()])
        return list(probes)

    def setting(self, backbone: str) -> dict[str, Any]:
        """Its 'data' and 'evaluation', and as 'backbone' the component of that name with the settings it has here.

        For a model that no recipe trained. Raises `InputError` as `recipe` does.
        """
        resolver = Resolver(self.table)
        made = {
            "data": self._of_run(resolver, "data", "dataset"),
            "evaluation": self._of_run(resolver, "evaluation", "probe"),
            "backbone": resolver.spec(f"backbone.{backbone}", Slot("", None)),
        }
        raise_all(resolver.problems)
        return made

    def _of_run(self, resolver: Resolver, parameter: str, kind: str) -> Any:
        """What one parameter of `run` is bound to, the others left aside; where it is not bound, that is a problem."""
        binding = self.table.bindings.get(("", ROOT, parameter))
        if binding is None:
            resolver.problem(f"the recipe has no run.{parameter}", Place(self.file))
            return None
        return resolver.value(binding.value, Slot("", binding.place, (kind,)))


def open_recipe(
    file: str, overrides: Iterable[str | Binding] = (), *, plugins: Iterable[str] = (), trust: bool | None = False
) -> RecipeFile:
    """Read a recipe's files once, and load what they import.

    Args:
        file: a path, or the name of a packaged recipe such as 'gin/act_cifar10.gin'.
        overrides: 'KEY=VALUE', or bindings of a study's file; applied after the file, the last one winning.
        plugins: folders whose modules are loaded, and may be imported by the recipe.
        trust: allow the recipe to import any module; None where nobody could ask for that.

    Raises `InputError` for what cannot be read or imported.
    """
    document = read_document(file, overrides)
    _load_imports(document.imports, [Path(p) for p in plugins], trust)
    _assert_plugins(document)
    table = Table(document.bindings)
    # What follows would be guesses about half a recipe.
    if document.problems:
        raise_all([*document.problems, *table.problems])
    return RecipeFile(document, table)


def load_recipe(
    file: str, overrides: Iterable[str | Binding] = (), *, plugins: Iterable[str] = (), trust: bool = False
) -> Recipe:
    """Read the run that a recipe declares. Nothing is built and no data are read: `load("gin/act_digits.gin").spec` is its Spec.

    Args:
        file: a path, or the name of a packaged recipe such as 'gin/act_cifar10.gin'.
        overrides: 'KEY=VALUE' each, applied after the file, the last one winning: `["run.epochs=5"]`.
        plugins: folders whose modules are loaded, as by `--plugins`.
        trust: allow the recipe to import any module.

    Returns a `Recipe`: its `spec`, its `text` as one gin file, and `warnings`.

    Raises `InputError`, or `InputErrors` with everything that is wrong with the recipe.
    """
    return open_recipe(file, overrides, plugins=plugins, trust=trust).recipe()


def load_evaluation(file: str, overrides: Iterable[str] = (), *, plugins: Iterable[str] = ()) -> list[Spec]:
    """The probes in a recipe's `run.evaluation`, the rest of it left aside. Raises `InputError` as `load_recipe` does."""
    return open_recipe(file, overrides, plugins=plugins, trust=None).evaluation()


def _assert_plugins(document: Document) -> None:
    """Raise `InputError`, which says what to install, where the recipe of a run, or of a plugin, names components that are not here."""
    saved = plugins_beside(document.path)
    if not saved:
        return
    missing: dict[str, Place] = {}
    for binding in document.bindings:
        for name in [binding.selector, *_refs_in(binding.value)]:
            kind, _, own = name.partition(".")
            if kind in registry.KINDS and own and not registry.has(name):
                missing.setdefault(name, binding.place)
    raise_all([not_here(name, saved, where=str(place)) for name, place in missing.items()])


def _refs_in(value: Any) -> list[str]:
    """The components that a value names."""
    if isinstance(value, Ref):
        return [value.selector]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [name for item in inner for name in _refs_in(item)]


def _load_imports(imports: Iterable[Import], plugins: list[Path], trust: bool | None) -> None:
    """Check all imports of a recipe against the allow-list, then do them: plugin folders first."""
    folders = {folder.resolve().name for folder in plugins}
    allowed = installed_plugin_modules() | folders | {"actkit"}
    by_trust = "" if trust is None else "--trust allows it, or "
    problems = []
    for one in imports:
        if one.module.startswith("__gin__"):
            problems.append(
                InputError(
                    "gin's dynamic registration is not used here",
                    where=str(one.place),
                    help="register components with @register",
                )
            )
        elif not trust and one.module.partition(".")[0] not in allowed:
            problems.append(
                InputError(
                    f"this recipe would import {one.module!r}, which can run any code, and it is no installed plugin",
                    where=str(one.place),
                    help=f"look at it; then {by_trust}give its folder with --plugins",
                )
            )
    raise_all(problems)
    registry.load_builtins()
    for folder in plugins:
        load_plugin_folder(folder)
    for one in imports:
        load_plugin_module(one.module, where=str(one.place))


def _dump(resolver: Resolver, imports: Iterable[Import]) -> tuple[str, dict[str, Place]]:
    """One gin file that says the same, what nothing uses left out; and where each line came from."""
    table = resolver.table
    used = [b for key, b in table.bindings.items() if key in resolver.used]
    macros = [b for name, b in table.macros.items() if ("", name, "") in resolver.used]
    used.sort(key=lambda b: (b.selector != ROOT, b.selector != ROLE, b.selector, b.scope, b.parameter))
    lines, origins = [f"import {one.module}" for one in imports], {}
    for binding in [*macros, *used]:
        line = f"{binding.key} = {as_gin(binding.value)}"
        lines.append(line)
        origins[line] = binding.place
    return "\n".join(lines) + "\n", origins


def as_gin(value: Any) -> str:
    """A value as gin reads it, references in complete selectors."""
    if isinstance(value, (Ref, Macro)):
        return repr(Ref(value.scope, registry.get(value.selector).selector) if isinstance(value, Ref) else value)
    if isinstance(value, list):
        return "[" + ", ".join(map(as_gin, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(as_gin, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {as_gin(v)}" for k, v in value.items()) + "}"
    assert ast.literal_eval(repr(value)) == value
    return repr(value)

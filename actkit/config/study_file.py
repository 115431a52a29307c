"""A study's file: which recipes it names, and its own lines, which apply to each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actkit.config.bindings import macros_in
from actkit.config.compare import flat
from actkit.config.locate import locate_recipe, packaged_recipes
from actkit.config.reader import Binding
from actkit.config.recipe import Recipe, RecipeFile, as_gin, load_recipe
from actkit.config.resolver import STUDY
from actkit.config.spec import Spec
from actkit.errors import InputError, nearest, raise_all


@dataclass(frozen=True)
class StudyFile:
    """A recipe file that binds something of `study`.

    Args:
        declared: that, as a Spec.
        recipes: those that it names, as `actkit run` takes them; none where the file is the recipe itself.
        lines: what it binds of anything else, which applies to each of these recipes, after the recipe's own and before `-s`.
    """

    file: RecipeFile
    declared: Spec
    recipes: tuple[str, ...]
    lines: tuple[Binding, ...]

    def lines_for(self, recipe: str) -> tuple[Binding, ...]:
        """Those that apply to one of its recipes: where the file names itself, they are its own already."""
        located = locate_recipe(recipe)
        itself = located is not None and located.resolve() == self.file.document.path.resolve()
        return () if itself else self.lines

    def resolved(
        self, settings: Sequence[str] = (), *, plugins: Iterable[str] = (), trust: bool = False
    ) -> dict[str, Recipe]:
        """Each of the recipes that it names, as its cells are run but for seeds and sweep. Raises `InputError`."""
        found, problems = {}, []
        for name in self.recipes:
            try:
                found[name] = load_applied(name, self.lines_for(name), settings, plugins=plugins, trust=trust)
            except InputError as error:
                problems += error.problems
        raise_all(problems)
        return found

    @property
    def text(self) -> str:
        """What it binds of `study`, as gin."""
        return "".join(f"study.{name} = {as_gin(value)}\n" for name, value in self.declared.kwargs.items())


def read_study(file: RecipeFile) -> StudyFile | None:
    """The study that a file declares, or None. Raises `InputError` for a recipe that is not there, or what cannot reach the recipes."""
    declared = file.study()
    if declared is None:
        return None
    # What is wrong with its values is said here too.
    declared.build()
    named = declared.kwargs.get("recipes")
    if named is None:
        return StudyFile(file, declared, (), ())
    recipes = tuple(_beside(file.file, recipe) for recipe in named)
    _assert_reaches(file)
    own = [one for one in file.document.bindings if not one.included and not one.override]
    lines = [one for one in own if _ordinary(one)]
    # A macro that only `study.seeds` or its like names is none of the recipes'.
    of_the_study = {name for one in own if not _ordinary(one) for name in macros_in(one.value)}
    used = {name for one in lines for name in macros_in(one.value)}
    kept = [one for one in lines if one.parameter or one.selector in used or one.selector not in of_the_study]
    return StudyFile(file, declared, recipes, tuple(kept))


def _ordinary(binding: Binding) -> bool:
    return binding.selector != STUDY or not binding.parameter


def _assert_reaches(file: RecipeFile) -> None:
    """An `include` or an `import` beside `study.recipes` reaches none of them. In a recipe of its own, it is what `--single` runs."""
    if file.is_recipe:
        return
    included = any(one.included for one in file.document.bindings)
    if included or file.document.imports:
        what, remedy = ("include", "write these lines here") if included else ("import", "give --plugins")
        raise InputError(
            f"study.recipes: an {what} in this file does not reach the recipes that it names",
            where=file.file,
            help=f"{remedy}, or let the recipes {what} it",
        )


def _beside(file: str, recipe: str) -> str:
    """Where a recipe that a study names lies: beside the study's file, as with `include`, or among the packaged."""
    folder = Path(file).parent
    if locate_recipe(recipe, beside=folder) is None:
        near = [*(p.name for p in folder.glob("*.gin")), *packaged_recipes()]
        raise InputError(f"study.recipes: there is no recipe {recipe!r}", where=file, help=nearest(recipe, near))
    own = folder / recipe
    return str(own) if own.is_file() else recipe


def load_applied(
    name: str, lines: Sequence[Binding], settings: Sequence[str], *, plugins: Iterable[str] = (), trust: bool = False
) -> Recipe:
    """A recipe with a study's lines after its own, and settings after these.

    Raises `InputError`, also where a line does nothing in this recipe: the study's runs would not be compared on equal terms.
    """
    recipe = load_recipe(name, [*lines, *settings], plugins=plugins, trust=trust)
    idle = _idle(recipe, lines)
    if idle and settings:
        # A line may do nothing because `-s` replaces what uses it.
        with contextlib.suppress(InputError):
            idle = _idle(load_recipe(name, lines, plugins=plugins, trust=trust), lines)
    raise_all(_refused(recipe, binding, name) for binding in idle)
    return recipe


def _idle(recipe: Recipe, lines: Sequence[Binding]) -> list[Binding]:
    ours = {line.place for line in lines}
    return [binding for binding in recipe.unused if binding.place in ours]


def _refused(recipe: Recipe, binding: Binding, name: str) -> InputError:
    what = binding.key if binding.parameter else f"the macro {binding.key}"
    has = f", and this one has {' and '.join(there)}" if (there := _kin(recipe, binding)) else ""
    said = f"a study's own lines apply to each of its recipes{has}: bind it in those that use it"
    return InputError(f"nothing in {name} uses {what}", help=said).at(binding.place)


def _kin(recipe: Recipe, binding: Binding) -> list[str]:
    """What the recipe uses of the kind of component that a line is about, where it does not use this one."""
    kind, dot, _ = binding.selector.partition(".")
    there = {str(value) for value in flat(recipe.spec).values() if str(value).startswith(kind + dot)} if dot else set()
    return [] if binding.selector in there else sorted(there)


def as_settings(lines: Sequence[Binding]) -> tuple[str, ...]:
    """'KEY=VALUE' of each, as `-s` takes it."""
    return tuple(f"{line.key}={as_gin(line.value)}" for line in lines)

"""`actkit config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli import completion
from actkit.cli.components import aligned
from actkit.cli.group import main
from actkit.cli.options import RecipeOptions, json_option, recipe_options, resolve, warn_of
from actkit.cli.studies import declared_in
from actkit.errors import InputError, nearest, raise_all

if TYPE_CHECKING:
    from actkit.config.recipe import Recipe
    from actkit.config.spec import Spec


class _Showing(click.Group):
    """`actkit config FILE` is `actkit config show FILE`."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # A misspelt command stays one.
        named = args[0] not in self.commands and not nearest(args[0], self.commands, listing=False)
        return super().resolve_command(context, ["show", *args] if named else args)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[Any]:
        found = completion.any_recipe(context, self.commands["show"].params[0], incomplete)
        return [*super().shell_complete(context, incomplete), *found]


@main.group("config", cls=_Showing, subcommand_metavar="FILE | COMMAND [ARGS]...")
def config_() -> None:
    """Look at recipes without running them.

    \b
    actkit config gin/act_digits.gin                     the whole recipe, as `actkit config show` prints it
    actkit config check mine.gin                         everything that is wrong with it
    actkit config diff gin/act_cifar10.gin runs/mine     the settings in which a recipe and a run differ
    """


@config_.command("show")
@click.argument("file", shell_complete=completion.any_recipe)
@recipe_options
@click.option("--origin", is_flag=True, help="Say where each line comes from.")
@json_option
def config_show(file: str, reading: RecipeOptions, origin: bool, as_json: bool) -> None:
    """Print the whole recipe, includes and overrides resolved, as one gin file. FILE may also be a run; of a study of recipes, each of them is
    printed as the study runs it.

    \b
    actkit config show gin/act_digits.gin
    actkit config show gin/act_digits.gin -s run.epochs=5 --origin    with the file and line of each setting
    """
    if (own := Path(file) / "config.gin").is_file():
        file = str(own)
    from actkit.config.study_file import read_study

    opened = reading.open(file)
    study = read_study(opened)
    if study is None or not study.recipes:
        recipe = resolve(opened)
        if as_json:
            click.echo(json.dumps(recipe.spec.to_json()))
        else:
            click.echo((study.text if study else "") + _text(recipe, origin))
        return
    recipes = study.resolved(reading.settings, plugins=reading.plugins, trust=reading.trust)
    warn_of(recipes.values())
    if as_json:
        shown = {name: recipe.spec.to_json() for name, recipe in recipes.items()}
        click.echo(json.dumps({"study": study.declared.to_json(), "recipes": shown}))
        return
    click.echo(study.text.rstrip())
    for name, recipe in recipes.items():
        click.echo(f"\n# {name}, as this study runs it\n{_text(recipe, origin)}")


def _text(recipe: Recipe, origin: bool) -> str:
    """The recipe as one gin file; with `origin`, each line says where it comes from."""
    lines = []
    for line in recipe.text.splitlines():
        place = recipe.origins.get(line)
        lines.append(f"{line}  # {place.file}{f':{place.line}' if place.line else ''}" if origin and place else line)
    return "\n".join(lines)


@config_.command("check")
@click.argument("files", nargs=-1, required=True, shell_complete=completion.any_recipe)
@recipe_options
def config_check(files: tuple[str, ...], reading: RecipeOptions) -> None:
    """Check recipes: everything that is wrong with them, with file and line. Exit code 2 when something is. Of a study, every
    cell is checked.

    \b
    actkit config check mine.gin
    actkit config check gin/*.gin -s run.precision=bf16
    """
    problems: list[InputError] = []
    for file in files:
        try:
            click.echo(f"ok  {file}{_checked(file, reading)}")
        except InputError as error:
            problems += error.problems
    raise_all(problems)


@config_.command("diff")
@click.argument("a", shell_complete=completion.any_recipe)
@click.argument("b", shell_complete=completion.any_recipe)
@recipe_options
@json_option
def config_diff(a: str, b: str, reading: RecipeOptions, as_json: bool) -> None:
    """Print the settings in which recipes A and B differ, defaults included. A and B may also be runs, or studies:
    each recipe of a study is compared with the one of its name.

    \b
    actkit config diff gin/act_cifar10.gin gin/act_cifar10_released.gin
    actkit config diff gin/act_digits.gin runs/act_digits/seed0-0123abcd
    """
    from actkit.config.compare import diff

    changes = []
    for name, (left, right) in _pairs(a, _specs(a, reading), b, _specs(b, reading)).items():
        changes += [(f"{name}{path}".strip(), one, other) for path, one, other in diff(left, right)]
    if as_json:
        click.echo(json.dumps([{"setting": path, "a": left, "b": right} for path, left, right in changes]))
    elif not changes:
        click.echo("they say the same")
    else:
        click.echo(aligned([[path, repr(left), repr(right)] for path, left, right in changes], ["SETTING", a, b]))


def _checked(file: str, reading: RecipeOptions) -> str:
    """What a file that is right declares beside one run; its warnings are printed. Raises `InputError`."""
    opened = reading.open(file)
    if opened.is_recipe or opened.study() is None:
        resolve(opened)
    declared = declared_in(opened, reading)
    if declared is None:
        return ""
    if len(declared.recipes) > 1 or not opened.is_recipe:
        warn_of(declared.cells)
    count = len(declared.recipes)
    return f"  (a study: {len(declared.cells)} cells of {count} recipe{'s' * (count > 1)})"


def _specs(path: str, reading: RecipeOptions) -> dict[str, Spec]:
    """What a recipe or a run says, by its recipe's name; of a study of recipes, what each says; what a study declares, by no name."""
    if (Path(path) / "config.json").is_file():
        # This one imports torch, which recipes alone do not need.
        from actkit.evaluation.run_files import spec_of_run

        return {Path(path).resolve().parent.name: spec_of_run(Path(path))}
    from actkit.config.spec import Spec
    from actkit.config.study_file import read_study

    opened = reading.open(path)
    study = read_study(opened)
    declared = {} if study is None else {"": Spec.from_json(study.declared.to_json())}
    if study is None or not study.recipes:
        return {**declared, Path(path).stem: Spec.from_json(resolve(opened).spec.to_json())}
    recipes = study.resolved(reading.settings, plugins=reading.plugins, trust=reading.trust)
    warn_of(recipes.values())
    return declared | {Path(name).stem: Spec.from_json(recipe.spec.to_json()) for name, recipe in recipes.items()}


def _pairs(a: str, left: Mapping[str, Spec], b: str, right: Mapping[str, Spec]) -> dict[str, tuple[Spec, Spec]]:
    """What is compared with what: two recipes, or of studies the recipes of one name. Raises `InputError` where a study has none of that name."""
    declared = {"": (left[""], right[""])} if "" in left and "" in right else {}
    (one, *more), (other, *others) = ([name for name in side if name] for side in (left, right))
    if not more and not others:
        return declared | {" ": (left[one], right[other])}
    shared = [name for name in (one, *more) if name in (other, *others)]
    if not shared:
        names = f"{', '.join((one, *more))} and {', '.join((other, *others))}"
        raise InputError(f"{a} and {b} have no recipe of one name: {names}", help="compare two of these")
    return declared | {f"{name}: ": (left[name], right[name]) for name in shared}

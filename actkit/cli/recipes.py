"""`actkit config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from actkit.cli import completion
from actkit.cli.components import aligned
from actkit.cli.group import main
from actkit.cli.options import RecipeOptions, json_option, recipe_options, resolve
from actkit.errors import InputError, nearest, raise_all


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
    """Print the whole recipe, includes and overrides resolved, as one gin file. FILE may also be a run.

    \b
    actkit config show gin/act_digits.gin
    actkit config show gin/act_digits.gin -s run.epochs=5 --origin    with the file and line of each setting
    """
    if (own := Path(file) / "config.gin").is_file():
        file = str(own)
    recipe = resolve(reading.open(file))
    if as_json:
        click.echo(json.dumps(recipe.spec.to_json()))
        return
    for line in recipe.text.splitlines():
        place = recipe.origins.get(line)
        click.echo(f"{line}  # {place.file}{f':{place.line}' if place.line else ''}" if origin and place else line)


@config_.command("check")
@click.argument("files", nargs=-1, required=True, shell_complete=completion.any_recipe)
@recipe_options
def config_check(files: tuple[str, ...], reading: RecipeOptions) -> None:
    """Check recipes: everything that is wrong with them, with file and line. Exit code 2 when something is.

    \b
    actkit config check mine.gin
    actkit config check gin/*.gin -s run.precision=bf16
    """
    problems: list[InputError] = []
    for file in files:
        try:
            resolve(reading.open(file))
            click.echo(f"ok  {file}")
        except InputError as error:
            problems += error.problems
    raise_all(problems)


@config_.command("diff")
@click.argument("a", shell_complete=completion.any_recipe)
@click.argument("b", shell_complete=completion.any_recipe)
@recipe_options
@json_option
def config_diff(a: str, b: str, reading: RecipeOptions, as_json: bool) -> None:
    """Print the settings in which recipes A and B differ, defaults included. A and B may also be runs.

    \b
    actkit config diff gin/act_cifar10.gin gin/act_cifar10_released.gin
    actkit config diff gin/act_digits.gin runs/act_digits/seed0-0123abcd
    """
    from actkit.config.compare import diff
    from actkit.config.spec import Spec

    def spec(path: str) -> Spec:
        if (Path(path) / "config.json").is_file():
            # This one imports torch, which recipes alone do not need.
            from actkit.evaluation.run_files import spec_of_run

            return spec_of_run(Path(path))
        return Spec.from_json(resolve(reading.open(path)).spec.to_json())

    changes = diff(spec(a), spec(b))
    if as_json:
        click.echo(json.dumps([{"setting": path, "a": left, "b": right} for path, left, right in changes]))
    elif not changes:
        click.echo("they say the same")
    else:
        click.echo(aligned([[path, repr(left), repr(right)] for path, left, right in changes], ["SETTING", a, b]))

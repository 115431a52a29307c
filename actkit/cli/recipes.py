"""`actkit config`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from actkit.cli.components import aligned
from actkit.cli.group import main
from actkit.cli.options import RecipeOptions, json_option, recipe_options, resolve
from actkit.errors import InputError, raise_all


@main.group("config")
def config_() -> None:
    """Look at recipes without running them."""


@config_.command("show")
@click.argument("file")
@recipe_options
@click.option("--origin", is_flag=True, help="Say where each line comes from.")
@json_option
def config_show(file: str, reading: RecipeOptions, origin: bool, as_json: bool) -> None:
    """Print the whole recipe, includes and overrides resolved, as one gin file."""
    recipe = resolve(reading.open(file))
    if as_json:
        click.echo(json.dumps(recipe.spec.to_json()))
        return
    for line in recipe.text.splitlines():
        place = recipe.origins.get(line)
        click.echo(f"{line}  # {place.file}{f':{place.line}' if place.line else ''}" if origin and place else line)


@config_.command("check")
@click.argument("files", nargs=-1, required=True)
@recipe_options
def config_check(files: tuple[str, ...], reading: RecipeOptions) -> None:
    """Check recipes: everything that is wrong with them, with file and line. Exit code 2 when something is."""
    problems: list[InputError] = []
    for file in files:
        try:
            resolve(reading.open(file))
            click.echo(f"ok  {file}")
        except InputError as error:
            problems += error.problems
    raise_all(problems)


@config_.command("diff")
@click.argument("a")
@click.argument("b")
@recipe_options
@json_option
def config_diff(a: str, b: str, reading: RecipeOptions, as_json: bool) -> None:
    """Print the settings in which recipes A and B differ, defaults included. A and B may also be runs."""
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

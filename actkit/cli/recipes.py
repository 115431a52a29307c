"""`actkit config`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from actkit import errors
from actkit.cli.components import aligned
from actkit.cli.group import main
from actkit.cli.options import common, json_option, load
from actkit.errors import InputError


@main.group("config")
def config_() -> None:
    """Look at recipes without running them."""


@config_.command("show")
@click.argument("file")
@common
@click.option("--origin", is_flag=True, help="Say where each line comes from.")
@json_option
def config_show(
    file: str, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool, origin: bool, as_json: bool
) -> None:
    """Print the whole recipe, includes and overrides resolved, as one gin file."""
    recipe = load(file, settings, plugins, trust)
    if as_json:
        click.echo(json.dumps(recipe.spec.to_json()))
        return
    for line in recipe.text.splitlines():
        place = recipe.origins.get(line)
        click.echo(f"{line}  # {place.file}{f':{place.line}' if place.line else ''}" if origin and place else line)


@config_.command("check")
@click.argument("files", nargs=-1, required=True)
@common
def config_check(files: tuple[str, ...], settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool) -> None:
    """Check recipes: everything that is wrong with them, with file and line. Exit code 2 when something is."""
    problems: list[InputError] = []
    for file in files:
        try:
            load(file, settings, plugins, trust)
            click.echo(f"ok  {file}")
        except InputError as error:
            problems += getattr(error, "problems", [error])
    if problems:
        raise problems[0] if len(problems) == 1 else errors.InputErrors(problems)


@config_.command("diff")
@click.argument("a")
@click.argument("b")
@common
@json_option
def config_diff(
    a: str, b: str, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool, as_json: bool
) -> None:
    """Print the settings in which recipes A and B differ, defaults included. A and B may also be runs."""
    from actkit.config.compare import diff
    from actkit.config.spec import Spec

    def spec(path: str) -> Spec:
        kept = Path(path) / "config.json"
        if kept.is_file():
            return Spec.from_json(json.loads(kept.read_text(encoding="utf-8")))
        return Spec.from_json(load(path, settings, plugins, trust).spec.to_json())

    changes = diff(spec(a), spec(b))
    if as_json:
        click.echo(json.dumps([{"setting": path, "a": left, "b": right} for path, left, right in changes]))
    elif not changes:
        click.echo("they say the same")
    else:
        click.echo(aligned([[path, repr(left), repr(right)] for path, left, right in changes], ["SETTING", a, b]))

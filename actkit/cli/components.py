"""`actkit list` and `actkit new`."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit import errors
from actkit.cli.group import main
from actkit.cli.options import json_option, load_plugins, plugins_option
from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.config.plugins import Plugin
    from actkit.config.registry import Entry, Parameter


@main.command("new")
@click.argument("kind", metavar="KIND")
@click.argument("name", metavar="NAME")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where its folder goes. Default: here.",
)
def new_(kind: str, name: str, into: Path) -> None:
    """Begin a plugin: a working component of this KIND (objective, attack, backbone, probe, dataset), its recipe, its test, ready to install and to publish."""
    from actkit.cli.scaffold import KINDS, new

    if kind in KINDS and name.isidentifier():
        _assert_free(kind, name)
    folder = new(kind, name, into)
    click.echo(f"{folder}")
    click.echo(f"next  cd {shlex.quote(str(folder))} && python -m pytest -q     its own test", err=True)
    click.echo(f"      actkit run actkit_{name}/gin/{name}_digits.gin --plugins actkit_{name}", err=True)
    click.echo(f"      pip install -e .     then it is there in any folder: actkit run {name}_digits.gin", err=True)


def _assert_free(kind: str, name: str) -> None:
    """Raise `InputError` where actkit or an installed plugin has a component of that name."""
    from actkit.cli.scaffold import builtin_components
    from actkit.config import registry

    load_plugins()
    places = dict(builtin_components(kind))
    origin, place = "actkit", places.get(name)
    if entry := registry.registered.get(f"{kind}.{name}"):
        origin, place = entry.origin, entry.location
    if place is not None:
        raise InputError(f"there is {kind}.{name} already, from {origin}", where=place, help="choose another name")


@main.command("list")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@plugins_option(load=False)
@json_option
def list_(kind: str | None, name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List components (of a KIND), one of them with its parameters (KIND NAME), the recipes (KIND = recipes), or the installed plugins (KIND = plugins)."""
    if kind == "recipes":
        return _list_recipes(as_json)
    if kind == "plugins":
        return _list_plugins(as_json)
    from actkit.config import registry

    kinds = [*filter(None, registry.KINDS), "recipes", "plugins"]
    if kind is not None and kind not in kinds:
        raise InputError(f"there is no kind of component {kind!r}", help=errors.nearest(kind, kinds))
    load_plugins(plugins)
    if name is not None:
        entry = registry.get(f"{kind}.{name}")
        click.echo(json.dumps(_described(entry)) if as_json else _detail(entry))
        return
    entries = [e for e in registry.entries(kind) if e.kind]
    if as_json:
        click.echo(json.dumps([_described(e) for e in entries]))
    else:
        rows = [[e.kind, e.name, e.origin, e.description] for e in entries]
        click.echo(aligned(rows, ["KIND", "NAME", "FROM", "ABOUT"]))


def _list_recipes(as_json: bool) -> None:
    from actkit.config.locate import first_sentence, packaged_recipes

    found = [(recipe, first_sentence(path)) for recipe, path in packaged_recipes().items()]
    if as_json:
        click.echo(json.dumps([{"recipe": recipe, "about": said} for recipe, said in found]))
    else:
        click.echo(aligned([list(row) for row in found], ["RECIPE", "ABOUT"]))


def _list_plugins(as_json: bool) -> None:
    """Where each came from, what it brings, and why one failed."""
    from actkit.config.plugins import installed_plugins

    found = installed_plugins() if not os.environ.get("ACTKIT_DISABLE_PLUGINS") else []
    if as_json:
        click.echo(json.dumps([{**vars(p), "components": p.components} for p in found]))
    elif not found:
        click.echo("no plugin is installed; `actkit new objective NAME` begins one", err=True)
    else:
        rows = [[p.name, p.origin, p.module, _outcome(p)] for p in found]
        click.echo(aligned(rows, ["PLUGIN", "FROM", "MODULE", "COMPONENTS"]))


def _outcome(plugin: Plugin) -> str:
    """What it brings, or why it failed."""
    return f"failed: {plugin.error.splitlines()[0]}" if plugin.error else ", ".join(plugin.components)


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "from": entry.origin,
        "at": entry.location,
        "about": entry.description,
        "parameters": {p.name: None if p.required else repr(p.default) for p in entry.parameters.values()},
    }


def _detail(entry: Entry) -> str:
    """One component on a page: what it is, its parameters, its contract, and a line for a recipe."""
    import inspect

    from actkit.config import registry

    rows = [_row(parameter) for parameter in entry.parameters.values()]
    lines = [
        f"{entry.selector}  (from {entry.origin}, {entry.location})",
        "",
        inspect.getdoc(entry.target) or "",
        "",
        "parameters",
        aligned(rows) if rows else "  none",
    ]
    roles = entry.positional[2:] if entry.kind == "objective" else ()
    if roles:
        lines += ["", "roles", "  " + ", ".join(roles)]
    lines += ["", "contract", f"  {registry.KINDS[entry.kind].contract}"]
    first = next(iter(entry.parameters), None)
    if first:
        scope = "train/" if entry.kind == "attack" else ""
        lines += ["", "in a recipe", f"  {scope}{entry.selector}.{first} = ..."]
    return "\n".join(lines)


def _row(parameter: Parameter) -> list[str]:
    """A parameter's name, type, and default."""
    import inspect

    from actkit.config.spec import shown

    kind = "" if parameter.annotation is inspect.Parameter.empty else shown(parameter.annotation)
    return [f"  {parameter.name}", kind, "required" if parameter.required else f"default {parameter.default!r}"]


def aligned(rows: list[list[str]], titles: list[str] | None = None) -> str:
    table = [titles, *rows] if titles else rows
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )

"""`actkit list` and `actkit new`."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from actkit import errors
from actkit.cli.group import main
from actkit.cli.options import json_option, load_plugins
from actkit.errors import InputError


@main.command("new")
@click.argument("kind", metavar="KIND")
@click.argument("name", metavar="NAME")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Where its folder goes. Default: here.")  # fmt: skip
def new_(kind: str, name: str, into: Path) -> None:
    """Begin a plugin: a working component of this KIND (objective, attack, backbone, probe, dataset), its recipe, its test, ready to install and to publish."""
    from actkit.cli.scaffold import KINDS, new
    from actkit.config import registry

    if kind in KINDS and name.isidentifier():
        load_plugins()
        registry.load_builtins()
        taken = next((e for e in registry.entries(kind) if e.name == name), None)
        if taken is not None:
            raise InputError(
                f"there is {kind}.{name} already, from {taken.origin}", where=taken.location, help="choose another name"
            )
    folder = new(kind, name, into)
    click.echo(f"{folder}")
    click.echo(f"next  cd {shlex.quote(str(folder))} && python -m pytest -q     its own test", err=True)
    click.echo(f"      actkit run actkit_{name}/gin/{name}_digits.gin --plugins actkit_{name}", err=True)
    click.echo(f"      pip install -e .     then it is there in any folder: actkit run {name}_digits.gin", err=True)


@main.command("list")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--plugins", multiple=True, metavar="DIR", help="Load the plugins in this folder (repeatable).")
@json_option
def list_(kind: str | None, name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List components (of a KIND), one of them with its parameters (KIND NAME), the recipes (KIND = recipes), or the installed plugins (KIND = plugins)."""
    from actkit.config import registry
    from actkit.config.plugins import load_plugin_folder
    from actkit.config.reader import first_sentence, packaged_recipes

    if kind == "recipes":
        recipes = [{"recipe": r, "about": first_sentence(r)} for r in packaged_recipes()]
        click.echo(
            json.dumps(recipes) if as_json else aligned([list(r.values()) for r in recipes], ["RECIPE", "ABOUT"])
        )
        return
    if kind == "plugins":
        return _list_plugins(as_json)
    kinds = [*filter(None, registry.KINDS), "recipes", "plugins"]
    if kind is not None and kind not in kinds:
        raise InputError(f"there is no kind of component {kind!r}", help=errors.nearest(kind, kinds))
    load_plugins()
    for folder in plugins:
        load_plugin_folder(Path(folder))
    if name is not None:
        entry = registry.get(f"{kind}.{name}")
        click.echo(json.dumps(_described(entry)) if as_json else _detail(entry))
        return
    entries = [e for e in registry.entries(kind) if e.kind]
    if as_json:
        click.echo(json.dumps([_described(e) for e in entries]))
    else:
        click.echo(aligned([[e.kind, e.name, e.origin, e.about] for e in entries], ["KIND", "NAME", "FROM", "ABOUT"]))


def _list_plugins(as_json: bool) -> None:
    """Where each came from, what it brings, and why one failed."""
    from actkit.config.plugins import installed_plugins

    found = installed_plugins() if not os.environ.get("ACTKIT_DISABLE_PLUGINS") else []
    if as_json:
        click.echo(json.dumps([{**vars(p), "components": p.components} for p in found]))
    elif not found:
        click.echo("no plugin is installed; `actkit new objective NAME` begins one", err=True)
    else:
        body = [
            [p.name, p.origin, p.module, p.error.splitlines()[0] if p.error else ", ".join(p.components)] for p in found
        ]
        body = [[*row[:3], f"failed: {row[3]}" if p.error else row[3]] for row, p in zip(body, found, strict=True)]
        click.echo(aligned(body, ["PLUGIN", "FROM", "MODULE", "COMPONENTS"]))


def _described(entry: Any) -> dict[str, Any]:
    return {
        "kind": entry.kind, "name": entry.name, "from": entry.origin, "at": entry.location, "about": entry.about,
        "parameters": {p.name: None if p.required else repr(p.default) for p in entry.parameters.values()},
    }  # fmt: skip


def _detail(entry: Any) -> str:
    import inspect

    from actkit.config import registry
    from actkit.config.spec import shown

    lines = [
        f"{entry.selector}  (from {entry.origin}, {entry.location})",
        "",
        inspect.getdoc(entry.target) or "",
        "",
        "parameters",
    ]
    empty = inspect.Parameter.empty
    rows = [
        [
            f"  {p.name}",
            "" if p.annotation is empty else shown(p.annotation),
            "required" if p.required else f"default {p.default!r}",
        ]
        for p in entry.parameters.values()
    ]
    lines.append(aligned(rows) if rows else "  none")
    roles = entry.positional[2:] if entry.kind == "objective" else ()
    if roles:
        lines += ["", "roles", "  " + ", ".join(roles)]
    lines += ["", "contract", f"  {registry.KINDS[entry.kind].contract}"]
    first = next(iter(entry.parameters), None)
    if first:
        scope = "train/" if entry.kind == "attack" else ""
        lines += ["", "in a recipe", f"  {scope}{entry.selector}.{first} = ..."]
    return "\n".join(lines)


def aligned(rows: list[list[str]], titles: list[str] | None = None) -> str:
    table = [titles, *rows] if titles else rows
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )

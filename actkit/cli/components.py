"""`actkit list` and `actkit new`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit import errors
from actkit.cli import completion
from actkit.cli.group import main
from actkit.cli.options import json_option, load_plugins, plugins_option
from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.config.plugins import Plugin
    from actkit.config.registry import Entry, Parameter


@main.command("new")
@click.argument("kind", metavar="KIND", shell_complete=completion.begun)
@click.argument("name", metavar="NAME")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where its folder goes. Default: here.",
)
def new_(kind: str, name: str, into: Path) -> None:
    """Begin a plugin: a working component of this KIND (objective, attack, backbone, probe, dataset), its recipe, its test, ready to install and to publish.

    \b
    actkit new objective mine           a defence: the folder mine/
    actkit new attack mine --into src   an attack: the folder src/mine/
    """
    from actkit.cli.scaffold import KINDS, new

    kind = _singular(kind)
    if kind in KINDS and name.isidentifier():
        _assert_free(kind, name)
    folder = new(kind, name, into)
    click.echo(f"{folder}")
    click.echo(f"next  cd {shlex.quote(str(folder))} && python -m pytest -q     its own test", err=True)
    click.echo(f"      actkit run actkit_{name}/gin/{name}_digits.gin --plugins actkit_{name}", err=True)
    click.echo(f"      pip install -e .     then it is there in any folder: actkit run {name}_digits.gin", err=True)


def _assert_free(kind: str, name: str) -> None:
    """Raise `InputError` where actkit or an installed plugin has a component of that name."""
    from actkit.cli.sources import PACKAGE, components_in
    from actkit.config import registry

    load_plugins()
    places = {one.name: one.place for one in components_in(PACKAGE, kind)}
    origin, place = "actkit", places.get(name)
    if entry := registry.registered.get(f"{kind}.{name}"):
        origin, place = entry.origin, entry.location
    if place is not None:
        raise InputError(f"there is {kind}.{name} already, from {origin}", where=place, help="choose another name")


# What `actkit list` takes beside the kinds of components: what a recipe fills in, and what is not registered.
SETTINGS = ("run", "role", "study")
OTHERS = ("recipes", "plugins")


@main.command("list")
@click.argument("kind", required=False, shell_complete=completion.listed)
@click.argument("name", required=False, shell_complete=completion.named)
@plugins_option(load=False)
@json_option
def list_(kind: str | None, name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List components: all, those of a KIND, or one of them with its parameters.

    \b
    actkit list                      every component: what it is, and whose
    actkit list attacks              those of a kind (`attack` does as well)
    actkit list attack pgd           one of them with its parameters (`actkit list pgd` does as well)
    actkit list run                  the settings of a run itself (also: role, study)
    actkit list recipes              what `actkit run` and `actkit probe --evaluation` take by name
    actkit list papers               papers and their tables and figures, for `actkit reproduce`
    actkit list plugins              installed plugins: what each brings, and why one failed
    """
    kind = None if kind is None else _singular(kind)
    if kind == "recipes":
        return _list_recipes(as_json)
    if kind == "plugins":
        return _list_plugins(as_json)
    from actkit.config import registry

    load_plugins(plugins)
    if kind in SETTINGS or kind not in (None, *registry.KINDS):
        kind, name = "", _selector(kind, name)
    if name is not None:
        entry = registry.get(f"{kind}.{name}" if kind else name)
        click.echo(json.dumps(_described(entry)) if as_json else _detail(entry))
        return None
    if kind == "paper":
        return _list_papers(as_json)
    entries = [e for e in registry.entries(kind) if e.kind]
    if as_json:
        click.echo(json.dumps([_described(e) for e in entries]))
    else:
        rows = [[e.kind, e.name, e.origin, e.description] for e in entries]
        click.echo(aligned(rows, ["KIND", "NAME", "FROM", "ABOUT"]))
    return None


def _singular(word: str) -> str:
    """A kind as it is registered: 'attacks' and 'Attack' are 'attack'; recipes and plugins are many by name."""
    from actkit.config import registry

    known = {f"{kind}s": kind for kind in filter(None, registry.KINDS)} | {f"{other}"[:-1]: other for other in OTHERS}
    return known.get(word.lower(), word.lower() if word.lower() in registry.KINDS else word)


def _selector(word: str | None, name: str | None) -> str:
    """What stands in place of a kind: `run` and its like, or a component by its own name. Raises `InputError` where there is neither."""
    from actkit.config import registry

    known = [*filter(None, registry.KINDS), *OTHERS, *SETTINGS]
    assert word is not None
    if name is None:
        with contextlib.suppress(InputError):
            return registry.get(word).selector
    elif word in SETTINGS:
        raise InputError(f"{word!r} has settings, and no components", help=f"`actkit list {word}` shows them")
    names = [entry.name for entry in registry.entries() if entry.kind] if name is None else []
    raise InputError(
        f"there is no kind of component {word!r}",
        help=errors.nearest(word, [*known, *names], listing=False) or errors.nearest(word, known),
    )


def _list_recipes(as_json: bool) -> None:
    """What can be run, then what examines models, then what the others include."""
    from actkit.config.locate import first_sentence, packaged_recipes, recipe_use

    found = [(recipe, first_sentence(path), recipe_use(path)) for recipe, path in packaged_recipes().items()]
    if as_json:
        click.echo(json.dumps([{"recipe": recipe, "about": said, "use": use} for recipe, said, use in found]))
        return
    titles = {
        "run": ("RECIPE", "ABOUT"),
        "evaluation": ("EVALUATION", "ABOUT (actkit probe --ckpt RUN --evaluation NAME)"),
        "part": ("PART", "ABOUT (what recipes include; it cannot be run)"),
    }
    width = max(len(recipe) for recipe, _, _ in found)
    tables = []
    for use, (title, about) in titles.items():
        rows = [[recipe.ljust(width), said] for recipe, said, own in found if own == use]
        tables.append(aligned(rows, [title, about]))
    click.echo("\n\n".join(tables))


def _list_papers(as_json: bool) -> None:
    """Each paper, whose it is, and its items as `actkit reproduce` takes them."""
    from actkit.config import registry
    from actkit.reports.paper.papers import papers

    whose = {entry.name: entry for entry in registry.entries("paper")}
    if as_json:
        click.echo(json.dumps([_described(whose[name]) for name in papers()]))
        return
    rows = []
    for name, paper in papers().items():
        first = [name, ", ".join(paper.scales), whose[name].origin, whose[name].description]
        for i, (item, title) in enumerate(_items_of(name)):
            rows.append([*(first if i == 0 else [""] * 4), item, title])
    click.echo(aligned(rows, ["PAPER", "SCALES", "FROM", "ABOUT", "ITEM", "WHAT IT IS"]))


def _items_of(paper: str) -> list[tuple[str, str]]:
    """A paper's items as `actkit reproduce` takes them, each with its title."""
    from actkit.reports.paper.papers import called, paper_named

    # Each title at the first scale that has the item.
    titles = {item.name: item.title for item in reversed(paper_named(paper).items)}
    return [(called(paper, name), titles[name]) for name in paper_named(paper).names]


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
        **({"items": dict(_items_of(entry.name))} if entry.kind == "paper" else {}),
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
        *(["parameters", aligned(rows) if rows else "  none"] if entry.kind != "paper" else []),
    ]
    if entry.kind == "paper":
        lines += ["items (actkit reproduce)", aligned([[f"  {item}", title] for item, title in _items_of(entry.name)])]
    roles = entry.positional[2:] if entry.kind == "objective" else ()
    if roles:
        lines += ["", "roles", "  " + ", ".join(roles)]
    if entry.kind:
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
    default = repr(parameter.default)
    # What a dataclass makes anew each time: a list, a dict.
    default = "none" if default == "<factory>" else default
    return [f"  {parameter.name}", kind, "required" if parameter.required else f"default {default}"]


def aligned(rows: list[list[str]], titles: list[str] | None = None) -> str:
    table = [titles, *rows] if titles else rows
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )

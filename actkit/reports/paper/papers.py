"""The registered papers, and their items by name: 'table2' of ACT's, which stands for itself, 'trades:table5' of another's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from actkit.config import registry
from actkit.errors import InputError, nearest
from actkit.reports.paper.terms import Item, Paper

# Whose items go by their names alone.
DEFAULT = "act"


@dataclass(frozen=True)
class Chosen:
    """Items of one paper, and the name under which that is registered."""

    name: str
    paper: Paper
    items: tuple[Item, ...]


def papers() -> dict[str, Paper]:
    """All papers by name, actkit's own first. Raises `InputError` where one cannot be made."""
    names = [entry.name for entry in registry.entries("paper")]
    return {name: paper_named(name) for name in sorted(names, key=lambda name: (name != DEFAULT, name))}


def paper_named(name: str) -> Paper:
    """What a paper's function returns. Raises `InputError` where there is none of that name, or where its function fails."""
    if not registry.has(f"paper.{name}"):
        known = [entry.name for entry in registry.entries("paper")]
        plugin = "a plugin's is there once that is installed, or its folder is given with --plugins"
        raise InputError(f"there is no paper {name!r}", help=f"{nearest(name, known)}  ({plugin})")
    entry = registry.get(f"paper.{name}")
    try:
        made = entry.target()
    except InputError as error:
        raise InputError(f"paper {name!r}: {error.message}", where=entry.location, help=error.help) from error
    except Exception as error:
        raise InputError(f"paper {name!r} fails: {type(error).__name__}: {error}", where=entry.location) from error
    if not isinstance(made, Paper):
        raise InputError(
            f"paper {name!r} returns {type(made).__name__}, not Paper",
            where=entry.location,
            help="return actkit.Paper(...)",
        )
    return made


def chosen(names: Iterable[str], scale: str) -> Chosen:
    """Items by their names, 'all' or 'trades:all' being every one of a paper. Raises `InputError` for a name that is none, and for items of several papers."""
    parted = [_parts(name) for name in names]
    whose = list(dict.fromkeys(paper for paper, _ in parted))
    if len(whose) > 1:
        raise InputError(f"these are items of several papers: {', '.join(whose)}", help="a command for each")
    paper = paper_named(whose[0])
    wanted = [name for _, own in parted for name in (_at(paper, scale) if own == "all" else [own])]
    found = [_item(whose[0], paper, name, scale) for name in wanted]
    return Chosen(whose[0], paper, tuple({item.name: item for item in found}.values()))


def _at(paper: Paper, scale: str) -> list[str]:
    """The items that there are at a scale; all names where it has no such scale, so that it is told."""
    return [item.name for item in paper.items if item.scale.name == scale] or list(paper.names)


def item(name: str, scale: str = "full") -> Item:
    """An item by its name, 'table1', 'figure2' or 'trades:table5'. Raises `InputError` for one that is not there."""
    whose, own = _parts(name)
    return _item(whose, paper_named(whose), own, scale)


def called(paper: str, item: str) -> str:
    """What an item is called on the command line."""
    return item if paper == DEFAULT else f"{paper}:{item}"


def _parts(name: str) -> tuple[str, str]:
    paper, colon, own = name.partition(":")
    return (paper.strip().lower(), own) if colon else (DEFAULT, name)


def _item(whose: str, paper: Paper, name: str, scale: str) -> Item:
    if scale not in paper.scales:
        raise InputError(f"there is no scale {scale!r}", help=nearest(scale, paper.scales))
    key = re.sub(r"[\s._-]", "", name.lower())
    if key in paper.elsewhere:
        what, how = paper.elsewhere[key]
        raise InputError(f"{key} {what}", help=how)
    there = {one.scale.name: one for one in paper.items if one.name == key}
    if scale in there:
        return there[scale]
    if there:
        raise InputError(f"there is no {called(whose, key)} at the scale {scale!r}", help=nearest(scale, there))
    if whose == DEFAULT and registry.has(f"paper.{key}"):
        raise InputError(f"{key!r} is a paper", help=f"{key}:all is all of it, `actkit list papers` shows its items")
    close = nearest(called(whose, key), [called(whose, one) for one in paper.names])
    raise InputError(f"the paper has no {called(whose, name)!r} that can be reproduced", help=close)

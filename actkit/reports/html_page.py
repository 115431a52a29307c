"""A page as HTML: one file that needs no network and no script. Whatever stands on it is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actkit import __version__
from actkit.errors import InputError
from actkit.files import write_text
from actkit.probes.pictures import OWN, Picture, image_uri
from actkit.probes.triples import DIVERGING, triples_of
from actkit.reports.grids import Grid
from actkit.reports.rows import UNVERIFIED


@dataclass(frozen=True)
class Remark:
    """A line with a colour: 'red', 'yellow' or 'green'; or 'verdict', which stands above those."""

    level: str
    text: str
    where: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of a page: under each group, where its first column names one, the rows that follow.

    Args:
        aside: what rows of other people's numbers say in their last column of text.
        stacked: whether a row becomes a list on a narrow screen; a table of many columns scrolls there. Of a cell, or a title, what stands below its
            first line is smaller.
    """

    title: str
    grid: Grid
    grouped: bool = False
    aside: frozenset[str] = frozenset()
    stacked: bool = False


@dataclass(frozen=True)
class Tile:
    """A number in large type, its interval, and what it was measured under."""

    title: str
    value: str
    interval: str = ""
    under: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    texts: Sequence[str] = ()
    verdicts: Sequence[Remark] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    folded: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """`data` are all numbers, as JSON, within the page."""

    title: str
    lead: str
    findings: Sequence[Remark]
    sections: Sequence[Section]
    data: Any
    tiles: Sequence[Tile] = ()


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("actkit.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    # Whatever stands in a script element must not end it.
    data = json.dumps(page.data, allow_nan=False).replace("<", r"\u003c")
    template = environment.get_template("page.html")
    return template.render(
        page=page,
        data=data,
        version=__version__,
        unverified=UNVERIFIED,
        numbers_of=numbers_of,
        image_uri=image_uri,
        triples_of=triples_of,
        diverging=DIVERGING,
    )


def write(page: Page, file: Path) -> None:
    """Raises `InputError` where the file cannot be written, its folder not being there for one."""
    assert_writable(file)
    text = render(page)
    try:
        write_text(file, text)
    except OSError as error:
        raise InputError(
            f"the page cannot be written: {error.strerror}", where=str(file), help="choose another place"
        ) from error


def assert_writable(file: Path) -> None:
    """Raise `InputError` where there is no folder for this file: a misspelt path must not become folders."""
    if not file.parent.is_dir():
        raise InputError(
            f"the page cannot be written: there is no folder {str(file.parent)!r}",
            where=str(file),
            help="make that folder first, or choose another place",
        )
    if file.is_dir():
        raise InputError(
            "the page cannot be written: this is a folder",
            where=str(file),
            help="give the name of a file in it, such as report.html",
        )


def numbers_of(picture: Picture) -> PageTable | None:
    """The numbers that a picture was drawn from, as a table, where they are not too many to read."""
    data = picture.data
    if picture.kind not in ("lines", "bars") or not data["series"]:
        return None
    series = data["series"]
    named = {name or picture.title: one for name, one in series.items() if name != OWN or len(series) == 1}
    points = data["groups"] if picture.kind == "bars" else sorted({x for one in named.values() for x in one["x"]})
    if len(points) > 60:
        return None
    unit = (lambda v: f"{100 * v:.2f} %") if data.get("percent") else (lambda v: f"{v:.4g}")
    body = []
    for point in points:
        cells = []
        for one in named.values():
            at = dict(zip(points if picture.kind == "bars" else one["x"], one["y"], strict=True)).get(point)
            cells.append("-" if at is None else unit(at))
        body.append([point if isinstance(point, str) else f"{point:g}", *cells])
    return PageTable(picture.title, Grid([data.get("x_label", ""), *named], body, [], left=1))

"""`actkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from actkit.cli import completion
from actkit.cli.group import main
from actkit.cli.options import format_option, json_option, load_plugins, plugins_option
from actkit.errors import raise_all

if TYPE_CHECKING:
    from actkit.reports.overview import Overview


@main.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=completion.checkpoints)
@click.option("--list", "as_list", is_flag=True, help="A line a run: how far it is, what it trains, its one number.")
@format_option
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Draw what compares the runs, the sweep, each training, and what each evaluation showed: SVG, PNG, and the numbers as JSON.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write everything into one page that needs no network and no script.",
)
@plugins_option(load=False)
@json_option
def report(
    runs: tuple[Path, ...],
    as_list: bool,
    how: str,
    pictures: Path | None,
    html: Path | None,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """A table of the RUNS (or of those in folders) that belong together: grouped by what they differ in, mean and standard deviation over seeds.

    \b
    actkit report runs                     a table for each data set and evaluation; what is not finished, and why
    actkit report runs --list              a line a run: state, seed, objective, data, epochs, headline number
    actkit report runs/act_digits --html report.html

    Only files are read: plugins need not be installed here.
    """
    from actkit.files import make_folder
    from actkit.reports.grids import assert_format
    from actkit.reports.overview import formatted, formatted_list, overview
    from actkit.reports.runs import find

    assert_format(how)
    if html is not None:
        from actkit.reports import html_page

        html_page.assert_writable(html)
    if pictures is not None:
        make_folder(pictures)
    if plugins:
        # Asked for by name: what a recipe of theirs leaves out has their defaults.
        load_plugins(plugins)
    found = find(runs)
    if as_list:
        click.echo(formatted_list(found, "json" if as_json else how))
        return
    if found.damaged and not found.finished and not found.unfinished:
        raise_all(one.error for one in found.damaged)
    made = overview(found)
    click.echo(formatted(made, "json" if as_json else how))
    if pictures is not None:
        _draw(made, pictures)
    if html is not None:
        _write_page(made, html)


def _draw(made: Overview, folder: Path) -> None:
    from actkit.reports import comparison

    drawn = [p for one, group in zip(made.tables, made.groups, strict=True) for p in comparison.pictures(one, group)]
    for picture in drawn:
        picture.save(folder)
    click.echo(f"pictures   {folder}: {', '.join(p.name for p in drawn) or 'there is nothing to see'}", err=True)


def _write_page(made: Overview, file: Path) -> None:
    from actkit.reports import page

    page.write(page.of_overview(made), file)
    click.echo(f"page       {file}", err=True)

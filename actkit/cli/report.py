"""`actkit report`."""

from __future__ import annotations

from pathlib import Path

import click

from actkit.cli import completion
from actkit.cli.group import main
from actkit.cli.options import format_option, json_option, plugins_option


@main.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=completion.checkpoints)
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
@plugins_option()
@json_option
def report(
    runs: tuple[Path, ...], how: str, pictures: Path | None, html: Path | None, plugins: tuple[str, ...], as_json: bool
) -> None:
    """One table of several RUNS (or folders that hold them): grouped by what they differ in, mean and standard deviation over seeds.

    \b
    actkit report runs/act_digits                         mean and deviation over its seeds
    actkit report runs/act_digits runs/madry_digits --format latex
    actkit report runs --html report.html --pictures pictures
    """
    from actkit.files import make_folder
    from actkit.reports import comparison
    from actkit.reports.grids import assert_format
    from actkit.reports.tables import find, formatted, table

    assert_format(how)
    if html is not None:
        from actkit.reports import html_page

        html_page.assert_writable(html)
    if pictures is not None:
        make_folder(pictures)
    finished, unfinished = find(runs)
    made = table(finished, unfinished)
    click.echo(formatted(made, "json" if as_json else how))
    if pictures is not None:
        drawn = comparison.pictures(made, finished)
        for picture in drawn:
            picture.save(pictures)
        click.echo(f"pictures   {pictures}: {', '.join(p.name for p in drawn) or 'there is nothing to see'}", err=True)
    if html is not None:
        from actkit.reports import page
        from actkit.reports.page import of_runs

        page.write(of_runs(finished, unfinished), html)
        click.echo(f"page       {html}", err=True)

"""`actkit reproduce`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from actkit import errors
from actkit.cli.group import main
from actkit.cli.options import consoles, device_option, executor_named, json_option, load_plugins, seeds_in


@main.command("reproduce")
@click.argument("names", nargs=-1, required=True, metavar="ITEM...")
@click.option(
    "--scale", default="full", show_default=True, metavar="NAME", help="full: the paper's settings; small: digits, in minutes on two cores."
)  # fmt: skip
@click.option("--seeds", metavar="N,N,...", help="Other seeds than the item's own.")
@click.option(
    "-s", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a binding of every training (repeatable)."
)  # fmt: skip
@click.option("--plugins", multiple=True, metavar="DIR", help="Load the plugins in this folder (repeatable).")
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="How many runs at a time.")
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where the runs go."
)
@click.option(
    "--runs", metavar="DIR", default="runs", show_default=True, help="Where the trainings are, shared by all items."
)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Where the item goes. Default: reproduced/<scale>.")  # fmt: skip
@device_option
@click.option("--dry-run", is_flag=True, help="Print the study behind the item, and what is left of it; run nothing.")
@click.option("--show", is_flag=True, help="Run nothing; print what there is.")
@click.option("--format", "how", default="table", show_default=True, metavar="NAME", help="table, markdown, csv, latex or json.")  # fmt: skip
@json_option
def reproduce_(
    names: tuple[str, ...], scale: str, seeds: str | None, settings: tuple[str, ...], plugins: tuple[str, ...], jobs: int, executor: str,
    runs: str, out: Path | None, device: str, dry_run: bool, show: bool, how: str, as_json: bool,
) -> int:  # fmt: skip
    """Reproduce tables and figures of the paper: run the study behind each ITEM, print ours beside the paper's.

    \b
    actkit reproduce table2 --dry-run             the trainings and examinations, and what they cost
    actkit reproduce table1 --scale small -j 2    the same study on digits
    actkit reproduce all --show                   what there is of all items

    ITEM is table1 to table5, figure2 to figure4, or all. Items share trainings; the same command again does what is left.
    """
    from actkit.cli.display import Terminal
    from actkit.config.plugins import load_plugin_folder
    from actkit.machine import pick_device
    from actkit.reports import page
    from actkit.reports.grids import assert_format, printed
    from actkit.reports.paper.outcome import all_here, outcome
    from actkit.reports.paper.page import of_items
    from actkit.reports.paper.printed import as_csv, grid, to_json, write
    from actkit.reports.paper.study import items_named, place_of, study
    from actkit.training.study import dry_run_study, run_tasks

    assert_format(how)
    wanted = items_named(names, scale)
    load_plugins()
    for folder in plugins:
        load_plugin_folder(Path(folder))
    place = out or place_of(scale, settings)
    made = study(
        wanted,
        seeds=None if seeds is None else seeds_in(seeds),
        settings=settings,
        plugins=plugins,
        out=place,
        runs=runs,
    )
    wanted = list(made.items)
    display = Terminal(consoles()[1], quiet=as_json)
    if dry_run:
        lines, seconds = dry_run_study(
            made.trainings, plugins=plugins, device=pick_device(device), jobs=jobs, examined=made.probes()
        )
        examinations = [
            f"{e.title}  {'done' if e.done else 'to do'}{'' if e.possible else ', once its models are trained'}" for e in made.examinations(possible=False)
        ]  # fmt: skip
        if as_json:
            cells = [{"title": c.title, "state": c.state, "folder": str(c.folder)} for c in made.trainings]
            click.echo(json.dumps({"cells": cells, "seconds": seconds}))
        else:
            click.echo("\n".join([*lines, *examinations]))
        return errors.OK
    given = [*names, "--scale", scale, *(("--seeds", seeds) if seeds else ()), *(part for s in settings for part in ("-s", s))]  # fmt: skip
    command = shlex.join(["actkit", "reproduce", *given, *(part for p in plugins for part in ("--plugins", p))])
    code, failed = errors.OK, []
    if not show:
        extra = [*(part for p in plugins for part in ("--plugins", p)), "--device", device]
        runner = executor_named(executor, jobs, device)
        stages: list[Callable[[], Sequence[Any]]] = [lambda: made.trainings, made.examinations]
        for stage in stages:
            ended, now = run_tasks(stage(), runner, say=display.say, extra=extra)
            if now in (errors.RESUMABLE, errors.INTERRUPTED):
                display.say("stopped; the same command goes on from there")
                return now
            failed += [one for one in ended if one.failed]
            code = errors.FAILED if errors.FAILED in (code, now) else now or code
    found = [outcome(made, item, command) for item in wanted]
    if not show or out is not None:
        write(place, found)
        # The page has every item that is here, whichever was asked for now.
        page.write(
            of_items(all_here(found, place, scale, settings=settings, plugins=plugins, runs=runs, command=command)),
            place / "report.html",
        )
    if as_json or how == "json":
        click.echo(json.dumps([to_json(one) for one in found]))
    elif how == "csv":
        click.echo(as_csv(found))
    else:
        click.echo("\n\n".join(printed(grid(one), how) for one in found))
    for one in failed:
        display.say(f"failed     {one.task.title}: {one.error} ({one.task.folder}.log)", style="red")
    if not show or out is not None:
        display.say(f"files      {place}")
    return code

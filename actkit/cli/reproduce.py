"""`actkit reproduce`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit import errors
from actkit.cli import completion, studies
from actkit.cli.group import main
from actkit.cli.options import (
    Given,
    arguments,
    command_line,
    consoles,
    device_option,
    format_option,
    json_option,
    plugins_option,
    settings_option,
    threads_given,
    threads_option,
)

if TYPE_CHECKING:
    from actkit.cli.display import Terminal
    from actkit.reports.paper.outcome import ItemOutcome
    from actkit.reports.paper.study import PaperStudy
    from actkit.reports.paper.terms import Paper
    from actkit.training.tasks import Task, TaskResult


@dataclass(frozen=True)
class ReproduceOptions:
    """What `actkit reproduce` was given."""

    names: tuple[str, ...]
    scale: str
    seeds: str | None
    settings: tuple[str, ...]
    plugins: tuple[str, ...]
    jobs: int
    executor: str
    runs: str
    out: Path | None
    device: str
    threads: int | None
    dry_run: bool
    show: bool
    how: str
    as_json: bool


@main.command("reproduce")
@click.argument("names", nargs=-1, required=True, metavar="ITEM...", shell_complete=completion.paper_items)
@click.option(
    "--scale",
    default="full",
    show_default=True,
    metavar="NAME",
    shell_complete=completion.scales,
    help="full: the paper's settings; small: digits, in minutes on two cores.",
)
@studies.seeds_option("Other seeds than the item's own.")
@settings_option("Override a binding of every training (repeatable).")
@plugins_option()
@studies.jobs_option("How many runs at a time.")
@studies.executor_option("Where the runs go.")
@click.option(
    "--runs", metavar="DIR", default="runs", show_default=True, help="Where the trainings are, shared by all items."
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the item goes. Default: reproduced/<scale>, of a plugin's paper reproduced/<paper>_<scale>.",
)
@device_option
@threads_option
@click.option("--dry-run", is_flag=True, help="Print the study behind the item, and what is left of it; run nothing.")
@click.option("--show", is_flag=True, help="Run nothing; print what there is.")
@format_option
@json_option
def reproduce_(**given: Any) -> int:
    """Reproduce tables and figures of a paper: run the study behind each ITEM, print ours beside the paper's.

    \b
    actkit reproduce table2 --dry-run             the trainings and examinations, and what they cost
    actkit reproduce table1 --scale small -j 2    the same study on digits
    actkit reproduce all --show                   what there is of all items
    actkit reproduce trades:table5 --dry-run      of another paper, which a plugin brings

    ITEM is one of `actkit list papers`, or all. Items share trainings; the same command again does what is left.
    """
    options = ReproduceOptions(**given)
    from actkit.cli.display import Terminal
    from actkit.reports.grids import assert_format
    from actkit.reports.paper.outcome import outcome_of
    from actkit.reports.paper.papers import chosen
    from actkit.reports.paper.study import paper_study, place_of

    assert_format(options.how)
    wanted = chosen(options.names, options.scale)
    place = options.out or place_of(options.scale, options.settings, wanted.name)
    made = paper_study(
        wanted.items,
        seeds=None if options.seeds is None else studies.seeds_in(options.seeds),
        settings=options.settings,
        plugins=options.plugins,
        out=place,
        runs=options.runs,
    )
    if options.dry_run:
        return _plan(options, made)
    display = Terminal(consoles()[1], quiet=options.as_json)
    code, failed = (errors.OK, []) if options.show else _run_tasks(options, made, display)
    if code in (errors.RESUMABLE, errors.INTERRUPTED):
        return code
    written = not options.show or options.out is not None
    found = [outcome_of(made, item, _command_line(options)) for item in made.items]
    if written:
        _write(options, found, wanted.paper, place)
    _print(options, found)
    studies.say_failures(failed, display)
    if written:
        display.say(f"files      {place}")
    return code


def _plan(options: ReproduceOptions, made: PaperStudy) -> int:
    """The trainings and the examinations, how far each is, and what is left of them costs."""
    from actkit.display import duration
    from actkit.machine import pick_device
    from actkit.training.study import cost_of, describe_study

    device, tasks = pick_device(options.device), made.examinations(possible=False)
    left = [made.left_of(task) for task in tasks]
    cost = cost_of(made.trainings, plugins=options.plugins, device=device, jobs=options.jobs, examined=left)
    trainings, examinations = (sum(one) / options.jobs for one in (cost.cells, cost.examinations))
    if options.as_json:
        parts = {"trainings": trainings, "examinations": examinations}
        found = {"cells": studies.as_json(made.trainings), "seconds": trainings + examinations, **parts}
        found["examined"] = [
            {"title": task.title, "state": "done" if task.done else "to do", "folder": str(task.folder)}
            for task in tasks
        ]
        click.echo(json.dumps(found))
        return errors.OK
    lines = describe_study(made.trainings, cost, device=device, jobs=options.jobs)
    for task, seconds in zip(tasks, cost.examinations, strict=True):
        later = "" if task.possible else ", once its models are trained"
        lines.append(f"{task.title}  {'done' if task.done else f'to do{later}: about {duration(seconds)}'}")
    if tasks:
        to_do = sum(not task.done for task in tasks)
        counted = f"{len(tasks)} examination{'s' * (len(tasks) > 1)}, {to_do} to do"
        lines.append(
            f"{counted}: about {duration(examinations)}; all together about {duration(trainings + examinations)}"
        )
    click.echo("\n".join(lines))
    return errors.OK


def _run_tasks(options: ReproduceOptions, made: PaperStudy, display: Terminal) -> tuple[int, list[TaskResult]]:
    """Train, then examine what is trained: the exit code, and what failed."""
    from actkit.cli.study_display import watching
    from actkit.training.tasks import run_tasks

    extra = arguments({"--plugins": options.plugins, "--device": options.device})
    runner = studies.executor_named(options.executor, options.jobs, options.device)
    code = errors.OK
    failed: list[TaskResult] = []
    # What can be examined is known once the trainings have ended.
    stages: list[Callable[[], Sequence[Task]]] = [lambda: made.trainings, made.examinations]
    for stage in stages:
        with watching(display) as show:
            ended, now = run_tasks(stage(), runner, say=display.say, extra=extra, show=show)
        if now in (errors.RESUMABLE, errors.INTERRUPTED):
            display.say("stopped; the same command goes on from there")
            return now, failed
        failed += [one for one in ended if one.failed]
        code = errors.FAILED if errors.FAILED in (code, now) else now or code
    return code, failed


def _command_line(options: ReproduceOptions) -> str:
    what = {"--scale": options.scale, "--seeds": options.seeds}
    how: dict[str, Given] = {
        "-s": options.settings,
        "--plugins": options.plugins,
        "--device": options.device,
        "--threads": threads_given(options.threads),
    }
    return command_line("reproduce", options.names, {**what, **how})


def _write(options: ReproduceOptions, found: Sequence[ItemOutcome], paper: Paper, place: Path) -> None:
    """The items' files, and a page of every item that is here, whichever was asked for now."""
    from actkit.reports import page
    from actkit.reports.paper.outcome import all_here
    from actkit.reports.paper.page import of_items
    from actkit.reports.paper.printed import write

    write(place, found)
    here = all_here(
        found,
        place,
        paper,
        options.scale,
        settings=options.settings,
        plugins=options.plugins,
        runs=options.runs,
        command=_command_line(options),
    )
    page.write(of_items(here, paper), place / "report.html")


def _print(options: ReproduceOptions, found: Sequence[ItemOutcome]) -> None:
    from actkit.reports.grids import printed
    from actkit.reports.paper.printed import item_grid, item_json, items_csv

    if options.as_json or options.how == "json":
        click.echo(json.dumps([item_json(one) for one in found]))
    elif options.how == "csv":
        click.echo(items_csv(found))
    else:
        click.echo("\n\n".join(printed(item_grid(one), options.how) for one in found))

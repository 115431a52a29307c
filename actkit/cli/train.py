"""`actkit run`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from actkit import errors
from actkit.cli.group import main
from actkit.cli.options import (
    common,
    consoles,
    device_option,
    executor_named,
    json_option,
    load,
    load_plugins,
    seeds_in,
)
from actkit.errors import InputError


@main.command()
@click.argument("file")
@common
@click.option("--seed", type=int, help="The same as -s run.seed=N.")
@click.option("--seeds", metavar="N,N,...", help="A study: a run for each of these seeds.")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KEY=V,V,...",
    help="A study: a run for each value (repeatable; all combinations).",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="How many runs of a study at a time."
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where a study's runs go.",
)
@click.option("--single", is_flag=True, help="Run the recipe itself where it declares a study.")
@click.option("--out", metavar="DIR", help="The run's folder. Default: runs/<recipe>/seed<N>-<settings>.")
@device_option
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard's events, into the run's folder (extra `tensorboard`)."
)
@click.option("--dry-run", is_flag=True, help="Print the plan with its counted cost; read no data, train nothing.")
@json_option
def run(
    file: str,
    settings: tuple[str, ...],
    plugins: tuple[str, ...],
    trust: bool,
    seed: int | None,
    seeds: str | None,
    sweeps: tuple[str, ...],
    jobs: int,
    executor: str,
    single: bool,
    out: str | None,
    device: str,
    tensorboard: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Train what the recipe FILE says and examine it. The same command again goes on, or says that it is done.

    With --seeds or --sweep, or where the recipe says `study.seeds = ...`, it is a study of many runs: finished ones are skipped, failed ones
    listed at the end while the rest goes on.
    """
    if single and (seeds is not None or sweeps):
        raise InputError("--single is for one run, and --seeds and --sweep for many", help="leave one out")
    study = None if single else _study(file, settings, plugins, trust, seed, seeds, sweeps, out)
    if study is not None:
        return _run_tasks(study, plugins, trust, jobs, executor, device, tensorboard, dry_run, as_json)
    if seed is not None:
        settings = (*settings, f"run.seed={seed}")
    recipe = load(file, settings, plugins, trust)
    from actkit.cli.display import Terminal, print_table
    from actkit.evaluation.summary import unverified
    from actkit.machine import pick_device
    from actkit.training.execute import execute
    from actkit.training.run import folder_of

    stdout, stderr = consoles()
    where = pick_device(device)
    if dry_run:
        from actkit.training.dry_run import lines, plan

        made = plan(recipe, folder=folder_of(recipe, out), device=where)
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "config": recipe.spec.to_json(),
                        "units": made.units,
                        "batches": made.batches,
                        "seconds_a_step": made.seconds,
                    }
                )
            )
        else:
            click.echo("\n".join(lines(made)))
        return errors.OK
    given = [*(part for s in settings for part in ("-s", s)), *(part for p in plugins for part in ("--plugins", p))]
    given += [*(["--trust"] if trust else []), "--device", device, *(["--out", out] if out else [])]
    command = shlex.join(["actkit", "run", file, *given])
    display = Terminal(stderr, quiet=as_json)
    display.say(f"recipe     {recipe.source}")
    outcome = execute(recipe, out=out, device=where, display=display, command=command, tensorboard=tensorboard)
    if not outcome.summary:
        return outcome.exit_code
    if as_json:
        click.echo(json.dumps({"folder": str(outcome.folder), **outcome.summary}))
        return outcome.exit_code
    print_table(stdout, outcome.summary)
    _page_of(outcome.folder, display)
    if unverified(outcome.summary):
        display.warn("a check found what makes the numbers marked UNVERIFIED unbelievable")
    if outcome.summary["stopped_early"]:
        display.warn("training was stopped early by run.stop_on_drop: accuracy under attack collapsed")
    display.say(f"files      {outcome.folder}")
    display.say(f"next       actkit probe --ckpt {outcome.folder}      repeats this table from the saved models alone")
    return outcome.exit_code


def _page_of(folder: Path, display: Any) -> None:
    """The run's `report.html`; what goes wrong with it is no fault of the run."""
    from actkit.reports import page
    from actkit.reports.page import of_runs
    from actkit.reports.tables import find

    try:
        page.write(of_runs(*find([folder])), folder / "report.html")
    except InputError as error:
        display.warn(f"no report.html: {error.message}")


def _study(
    file: str,
    settings: tuple[str, ...],
    plugins: tuple[str, ...],
    trust: bool,
    seed: int | None,
    seeds: str | None,
    sweeps: tuple[str, ...],
    out: str | None,
) -> Any:
    """The cells of a study, or None where the command is a single run."""
    from actkit.config.recipe import load_study
    from actkit.training.study import Study, cells, parse_sweeps

    load_plugins()
    declared = load_study(file, settings, plugins=plugins, trust=trust)
    if declared is None and seeds is None and not sweeps:
        return None
    if seed is not None and seeds is not None:
        raise InputError("--seed and --seeds say two things", help="give one of them")
    plan: Study = declared.build() if declared is not None else Study()
    numbers = plan.seeds if seed is None else [seed]
    numbers = numbers if seeds is None else seeds_in(seeds)
    sweep = {**plan.sweep, **parse_sweeps(sweeps)}
    return cells(
        [_beside(file, recipe) for recipe in plan.recipes or []] or [file],
        seeds=numbers,
        sweep=sweep,
        settings=settings,
        plugins=plugins,
        trust=trust,
        out=out,
    )


def _beside(file: str, recipe: str) -> str:
    """Where a recipe that a study names lies: beside the study's file, as with `include`, or among the packaged."""
    from actkit.config.reader import locate_recipe, packaged_recipes

    if locate_recipe(recipe, beside=Path(file).parent) is None:
        near = [*(str(p.name) for p in Path(file).parent.glob("*.gin")), *packaged_recipes()]
        raise InputError(f"study.recipes: there is no recipe {recipe!r}", where=file, help=errors.nearest(recipe, near))
    own = Path(file).parent / recipe
    return str(own) if own.is_file() else recipe


def _run_tasks(
    study: Any, plugins: tuple[str, ...], trust: bool, jobs: int, executor: str, device: str, tensorboard: bool, dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    from actkit.cli.display import Terminal
    from actkit.files import make_folder
    from actkit.machine import pick_device
    from actkit.reports.tables import find, formatted, table
    from actkit.training.study import dry_run_study, run_tasks

    display = Terminal(consoles()[1], quiet=as_json)
    for warning in dict.fromkeys(w for cell in study for w in cell.warnings):
        click.echo(f"warning: {warning}", err=True)
    if dry_run:
        lines, seconds = dry_run_study(study, plugins=plugins, trust=trust, device=pick_device(device), jobs=jobs)
        if as_json:
            found = [{"title": c.title, "state": c.state, "folder": str(c.folder)} for c in study]
            click.echo(json.dumps({"cells": found, "seconds": seconds}))
        else:
            click.echo("\n".join(lines))
        return errors.OK
    make_folder(study[0].folder.parent)
    extra = [*(part for p in plugins for part in ("--plugins", p)), *(["--trust"] if trust else []), "--device", device]
    extra += ["--tensorboard"] if tensorboard else []
    ended, code = run_tasks(study, executor_named(executor, jobs, device), say=display.say, extra=extra)
    failed = [one for one in ended if one.failed]
    finished = [cell.folder for cell in study if cell.done]
    if as_json:
        rows = [{"title": c.title, "state": c.state, "folder": str(c.folder)} for c in study]
        click.echo(json.dumps({"cells": rows, "failed": {one.task.title: one.error for one in failed}}))
    elif finished:
        try:
            click.echo(formatted(table(*find(finished)), "table"))
        except InputError as error:
            display.warn(f"these runs do not go into one table: {error.message}")
    for one in failed:
        display.say(f"failed     {one.task.title}: {one.error} ({one.task.folder}.log)", style="red")
    if finished and not as_json:
        shown = [*(part for p in plugins for part in ("--plugins", p)), *map(str, finished[:8])]
        display.say(f"next       actkit report {shlex.join(shown)}{' ...' if len(finished) > 8 else ''}")
    return code

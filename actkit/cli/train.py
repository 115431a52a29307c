"""`actkit run`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit import errors
from actkit.cli import completion, studies
from actkit.cli.group import main
from actkit.cli.options import (
    Given,
    RecipeOptions,
    arguments,
    command_line,
    consoles,
    device_option,
    json_option,
    recipe_options,
    resolve,
    threads_given,
    threads_option,
    warn_of,
)
from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.config.recipe import RecipeFile
    from actkit.display import Display
    from actkit.training.study import Cell


@dataclass(frozen=True)
class RunOptions:
    """What `actkit run` was given."""

    file: str
    reading: RecipeOptions
    seed: int | None
    seeds: str | None
    sweeps: tuple[str, ...]
    jobs: int
    executor: str
    single: bool
    out: str | None
    device: str
    threads: int | None
    tensorboard: bool
    dry_run: bool
    as_json: bool


@main.command()
@click.argument("file", shell_complete=completion.recipes)
@recipe_options
@click.option("--seed", type=int, help="The same as -s run.seed=N.")
@studies.seeds_option("A study: a run for each of these seeds.")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KEY=V,V,...",
    shell_complete=completion.settings,
    help="A study: a run for each value (repeatable; all combinations).",
)
@studies.jobs_option("How many runs of a study at a time.")
@studies.executor_option("Where a study's runs go.")
@click.option("--single", is_flag=True, help="Run the recipe itself where it declares a study.")
@click.option(
    "--out",
    metavar="DIR",
    shell_complete=completion.folders,
    help="The run's folder. Default: runs/<recipe>/seed<N>-<settings>.",
)
@device_option
@threads_option
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard's events, into the run's folder (extra `tensorboard`)."
)
@click.option("--dry-run", is_flag=True, help="Print the plan with its counted cost; read no data, train nothing.")
@json_option
def run(**given: Any) -> int:
    """Train what the recipe FILE says and examine it. The same command again goes on, or says that it is done.

    \b
    actkit run gin/act_digits.gin                                   train ACT on digits, examine both models
    actkit run gin/act_cifar10.gin --dry-run                        the plan and its counted cost; reads no data
    actkit run gin/act_digits.gin -s run.epochs=5 -s run.data=moons --seed 1
    actkit run gin/act_digits.gin --seeds 0,1,2 --sweep objective.act.alpha=0.1,0.5 -j 2

    With --seeds or --sweep, or where the recipe says `study.seeds = ...`, it is a study of many runs: finished ones are skipped, failed ones
    listed at the end while the rest goes on.
    """
    options = RunOptions(**given)
    if options.single and (options.seeds is not None or options.sweeps):
        raise InputError("--single is for one run, and --seeds and --sweep for many", help="leave one out")
    recipe = options.reading.with_seed(options.seed).open(options.file)
    study = None if options.single else _study(options, recipe)
    if study is None:
        return _plan(options, recipe) if options.dry_run else _run(options, recipe)
    for note in study.notes:
        click.echo(f"note: {note}", err=True)
    warn_of(study.cells)
    return _plan_study(options, study.cells) if options.dry_run else _run_study(options, study.cells)


def _study(options: RunOptions, recipe: RecipeFile) -> studies.Declared | None:
    return studies.declared_in(
        recipe, options.reading, seed=options.seed, seeds=options.seeds, sweeps=options.sweeps, out=options.out
    )


def _plan(options: RunOptions, file: RecipeFile) -> int:
    recipe = resolve(file)
    from actkit.machine import pick_device
    from actkit.training.dry_run import count, describe, timed
    from actkit.training.folder import folder_of

    counted = count(recipe, folder=folder_of(recipe, options.out), device=pick_device(options.device))
    times = timed(counted)
    if options.as_json:
        cost = {
            "units": counted.units,
            "units_of_evaluation": counted.evaluation.units,
            "batches": counted.batches,
            "seconds_a_step": times.step,
            "seconds_of_evaluation": times.evaluation,
            "seconds_rest_on": vars(times.rests_on),
        }
        click.echo(json.dumps({"config": recipe.spec.to_json(), **cost}))
    else:
        click.echo("\n".join(describe(counted, times)))
    return errors.OK


def _run(options: RunOptions, file: RecipeFile) -> int:
    recipe = resolve(file)
    from actkit.cli.display import Terminal, print_table
    from actkit.machine import pick_device
    from actkit.training.execute import execute

    device = pick_device(options.device)
    stdout, stderr = consoles()
    display = Terminal(stderr, quiet=options.as_json)
    display.say(f"recipe     {recipe.source}")
    outcome = execute(
        recipe,
        out=options.out,
        device=device,
        display=display,
        command=_command_line(options),
        tensorboard=options.tensorboard,
    )
    if outcome.summary is None:
        return outcome.exit_code
    if options.as_json:
        click.echo(json.dumps({"folder": str(outcome.folder), **outcome.summary.to_json()}))
        return outcome.exit_code
    print_table(stdout, outcome.summary)
    report = _write_page(outcome.folder, display)
    if outcome.summary.unverified:
        display.warn("a check found what makes the numbers marked UNVERIFIED unbelievable")
    if outcome.summary.stopped_early:
        from actkit.reports.rows import collapsed

        display.warn(f"training was stopped early by run.stop_on_drop: {collapsed(outcome.summary)}")
    display.say(f"files      {outcome.folder}")
    if report is not None:
        display.say(f"report     {report}      (for a browser)")
    again = command_line("probe", [], {"--ckpt": str(outcome.folder), "--plugins": options.reading.plugins})
    display.say(f"next       {again}      (the same table, from the models alone)")
    return outcome.exit_code


def _command_line(options: RunOptions) -> str:
    reading = options.reading.with_seed(options.seed)
    given: dict[str, Given] = {
        "-s": reading.settings,
        "--plugins": reading.plugins,
        "--trust": reading.trust,
        "--single": options.single,
        "--device": options.device,
        "--threads": threads_given(options.threads),
        "--out": options.out,
    }
    return command_line("run", [options.file], given)


def _write_page(folder: Path, display: Display) -> Path | None:
    """The run's `report.html`, None where there is none: what goes wrong with it is no fault of the run."""
    from actkit.reports import page
    from actkit.reports.page import of_runs
    from actkit.reports.tables import find

    try:
        page.write(of_runs(*find([folder])), folder / "report.html")
        return folder / "report.html"
    except InputError as error:
        display.warn(f"no report.html: {error.message}")
        return None


def _plan_study(options: RunOptions, cells: Sequence[Cell]) -> int:
    from actkit.machine import pick_device
    from actkit.training.study import dry_run_study

    lines, seconds = dry_run_study(
        cells,
        plugins=options.reading.plugins,
        trust=options.reading.trust,
        device=pick_device(options.device),
        jobs=options.jobs,
    )
    if options.as_json:
        click.echo(json.dumps({"cells": studies.as_json(cells), "seconds": seconds}))
    else:
        click.echo("\n".join(lines))
    return errors.OK


def _run_study(options: RunOptions, cells: Sequence[Cell]) -> int:
    from actkit.cli.display import Terminal
    from actkit.cli.study_display import watching
    from actkit.files import make_folder
    from actkit.training.study import work_of
    from actkit.training.study_record import StudyRecord, place_of_study
    from actkit.training.tasks import run_tasks

    display = Terminal(consoles()[1], quiet=options.as_json)
    place = place_of_study(options.file, options.out)
    make_folder(place)
    StudyRecord.of(options.file, cells, place).save()
    executor = studies.executor_named(options.executor, options.jobs, options.device)
    left = sum(not cell.done for cell in cells)
    todo = f"{left} to do, {min(executor.jobs, left)} at a time" if left else "all done"
    display.say(f"study      {len(cells)} cells, {todo}")
    plugins, trust = options.reading.plugins, options.reading.trust
    how: dict[str, Given] = {"--plugins": plugins, "--trust": trust, "--device": options.device}
    extra = arguments({**how, "--tensorboard": options.tensorboard})
    work = work_of(cells, plugins=plugins, trust=trust) if left > 1 else {}
    with watching(display) as show:
        ended, code = run_tasks(cells, executor, say=display.say, extra=extra, work=work, show=show)
    failed = [one for one in ended if one.failed]
    if options.as_json:
        why = {one.task.title: one.error for one in failed}
        click.echo(json.dumps({"cells": studies.as_json(cells), "failed": why}))
        return code
    if any(cell.done for cell in cells):
        studies.print_study(cells, place, display)
    studies.say_failures(failed, display)
    display.say(_what_next(cells, code, place, plugins))
    return code


def _what_next(cells: Sequence[Cell], code: int, place: Path, plugins: Sequence[str]) -> str:
    """The last line of a study."""
    done, begun = (sum(cell.state == state for cell in cells) for state in ("done", "to resume"))
    if code in (errors.RESUMABLE, errors.INTERRUPTED):
        saved = f"{done} of {len(cells)} cells are done, {begun} saved on the way"
        return f"stopped    {saved}; the same command goes on from there"
    if not done:
        return "next       the same command tries the failed ones again"
    report = ["actkit", "report", *arguments({"--plugins": plugins}), str(place), "--format", "latex"]
    return f"next       {shlex.join(report)}"

"""Studies on the command line: what a file and the options declare, where the runs go, and what is printed of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from actkit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from actkit.cli.options import RecipeOptions
    from actkit.config.recipe import RecipeFile
    from actkit.display import Display
    from actkit.training.executors import Executor
    from actkit.training.study import Cell
    from actkit.training.tasks import TaskResult


def jobs_option(text: str) -> Any:
    return click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help=text)


def executor_option(text: str) -> Any:
    return click.option(
        "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help=text
    )


def seeds_option(text: str) -> Any:
    def once(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> str | None:
        if len(given) > 1:
            raise InputError("--seeds is given twice", help=f"--seeds {','.join(given)}")
        return given[0] if given else None

    return click.option("--seeds", metavar="N,N,...", multiple=True, callback=once, help=text)


def seeds_in(text: str) -> list[int]:
    """The seeds of `--seeds N,N,...`. Raises `InputError` for what is no seed, or there twice."""
    from actkit.training.study import assert_seeds

    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--seeds {text or repr(text)}: whole numbers are wanted", help="such as --seeds 0,1,2"
        ) from None
    assert_seeds(found, f"--seeds {text}")
    return found


@dataclass(frozen=True)
class Declared:
    """A study as a file and the command line declare it: its recipes, its cells in their order, and what was set aside."""

    recipes: Sequence[str]
    cells: Sequence[Cell]
    notes: tuple[str, ...] = ()


def declared_in(
    file: RecipeFile,
    reading: RecipeOptions,
    *,
    seed: int | None = None,
    seeds: str | None = None,
    sweeps: Sequence[str] = (),
    out: str | None = None,
) -> Declared | None:
    """The study of a recipe's file with `--seed`, `--seeds` and `--sweep`, or None where all of them declare a single run. Raises `InputError`."""
    from actkit.config.study_file import read_study
    from actkit.training.study import Study, cells, parse_sweeps

    read = read_study(file)
    if read is None and seeds is None and not sweeps:
        return None
    if seed is not None and seeds is not None:
        raise InputError("--seed and --seeds say two things", help="give one of them")
    study: Study = read.declared.build() if read is not None else Study()
    wanted = study.seeds if seeds is None else seeds_in(seeds)
    notes = []
    if seeds is not None and study.seeds is not None and wanted != study.seeds:
        notes.append(f"--seeds {seeds} instead of the file's study.seeds = {study.seeds}")
    if seed is not None:
        wanted = [seed]
    elif wanted is not None:
        _assert_no_other_seed(reading.settings, [line.key for line in read.lines] if read else [])
    recipes = (read.recipes if read else ()) or (file.file,)
    made = cells(
        recipes,
        seeds=wanted,
        sweep={**study.sweep, **parse_sweeps(sweeps)},
        settings=reading.settings,
        lines={recipe: read.lines_for(recipe) for recipe in recipes} if read else None,
        plugins=reading.plugins,
        trust=reading.trust,
        out=out,
    )
    return Declared(recipes, made, tuple(notes))


def _assert_no_other_seed(settings: Iterable[str], lines: Iterable[str]) -> None:
    for key in (*(setting.partition("=")[0].strip() for setting in settings), *lines):
        if key == "run.seed":
            raise InputError("run.seed and the study's seeds say two things", help="leave run.seed out")


def executor_named(name: str, jobs: int, device: str) -> Executor:
    """Ray, or this machine with a GPU to each of several jobs where there are some."""
    from actkit.training.executors import Local, ray_executor

    if name == "ray":
        return ray_executor()
    gpus: list[str] = []
    if jobs > 1 and device == "auto":
        import torch

        count = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = (given if len(given) == count else list(map(str, range(count)))) if count > 1 else []
    return Local(jobs, gpus=gpus)


def as_json(cells: Iterable[Cell]) -> list[dict[str, str]]:
    return [{"title": cell.title, "state": cell.state, "folder": str(cell.folder)} for cell in cells]


def print_study(cells: Sequence[Cell], place: Path, display: Display) -> None:
    """The table of a study's finished runs, in its order, and its page, `report.html`, in `place`."""
    from actkit.reports import page
    from actkit.reports.overview import formatted, overview
    from actkit.reports.runs import find

    try:
        made = overview(find([cell.folder for cell in cells if (cell.folder / "config.json").is_file()]))
        click.echo(formatted(made, "table"))
        if made.groups:
            page.write(page.of_overview(made), place / "report.html")
            display.say(f"report     {place / 'report.html'}")
    except InputError as error:
        display.warn(f"no report of this study: {error.message}")


def say_failures(failed: Iterable[TaskResult], display: Display) -> None:
    for one in failed:
        display.say(f"failed     {one.task.title}: {one.error} ({one.task.folder}.log)", style="red")

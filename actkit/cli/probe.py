"""`actkit probe`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from actkit.cli import completion
from actkit.cli.group import main
from actkit.cli.options import (
    classes_option,
    command_line,
    consoles,
    device_option,
    json_option,
    plugins_option,
    settings_option,
    threads_given,
    threads_option,
    threat_options,
)
from actkit.errors import INTERRUPTED, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from actkit.evaluation.examination import Stopped
    from actkit.evaluation.summary import Summary


@dataclass(frozen=True)
class ProbeOptions:
    """What `actkit probe` was given."""

    ckpts: tuple[str, ...]
    probes: tuple[str, ...]
    roles: tuple[str, ...]
    evaluation: str | None
    eps: str | None
    norm: str | None
    data: str | None
    limit: int | None
    settings: tuple[str, ...]
    plugins: tuple[str, ...]
    out: str | None
    pictures: str | None
    csv_file: str | None
    classes: Literal["by_name", "by_number"] | None
    device: str
    threads: int | None
    as_json: bool


@main.command()
@click.option(
    "--ckpt",
    "ckpts",
    multiple=True,
    required=True,
    metavar="PATH",
    shell_complete=completion.checkpoints,
    help="A run, a checkpoint directory or one .safetensors file (repeatable).",
)
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.probes,
    help="What to measure (repeatable): a probe, the label of one in the stored evaluation, or pgdN, fgsm, apgd-ce, apgd-t, square. Default: the stored evaluation.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.one_of("headline", "robust", "natural"),
    help="Only models with this role (repeatable); 'headline': each training's first.",
)
@click.option(
    "--evaluation",
    metavar="FILE",
    shell_complete=completion.evaluations,
    help="Take the evaluation from this recipe, not from the checkpoint.",
)
@threat_options
@click.option(
    "--data",
    metavar="NAME|DIR",
    shell_complete=completion.data_or_folder,
    help="Examine on this data set, or on a folder of images in class folders (DIR/test/<class>/*).",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Look at N images, a fixed random choice, with each probe."
)
@settings_option("Change a setting of the data set or the evaluation (repeatable).")
@plugins_option()
@click.option("--out", metavar="DIR", help="Write the results, and what happened to each example, into this folder.")
@click.option(
    "--pictures", metavar="DIR", help="Draw what the probes show into this folder: SVG, PNG, and the numbers as JSON."
)
@classes_option
@click.option("--csv", "csv_file", metavar="FILE", help="Write every number into this file.")
@device_option
@threads_option
@json_option
def probe(**given: Any) -> int:
    """Examine trained models, rebuilt from their files alone: repeat the evaluation that they were saved with, or run other probes.

    \b
    actkit probe --ckpt example:act_digits                      a model that comes along: its stored evaluation again
    actkit probe --ckpt runs/act_digits --probe audit           is the robustness real?
    actkit probe --ckpt mine.safetensors --probe pgd20 --probe autoattack --eps 8/255 --limit 100 --data path/to/images
    actkit probe --ckpt A --ckpt B --probe transfer             the matrix of Table 3

    Interrupted, the same command goes on. Exit code 3 when a check raised a red flag.
    """
    options = ProbeOptions(**given)
    from actkit.reports.rows import write_csv

    stdout, stderr = consoles()
    said: list[Stopped] = []

    def stopped(what: Stopped) -> None:
        said.append(what)
        if not options.as_json:
            _print(options, stdout, what.found)
        parts = "" if what.parts is None else f" of at most {max(what.parts, what.kept):,}"
        kept = f"{what.kept:,}{parts} parts are kept; the same command goes on"
        click.echo(f"stopped; {kept if what.kept else 'nothing was done yet, or nothing can be kept'}", err=True)

    try:
        found = _examine(options, stderr, stopped)
    except KeyboardInterrupt:
        if not said:
            raise
        return INTERRUPTED
    if options.csv_file:
        write_csv(Path(options.csv_file), found)
    if options.as_json:
        click.echo(json.dumps([summary.to_json() for summary in found]))
    else:
        _print(options, stdout, found)
    return max(summary.exit_code for summary in found)


def _print(options: ProbeOptions, stdout: Console, found: Sequence[Summary]) -> None:
    """A table for each."""
    from actkit.cli.display import print_table

    for i, summary in enumerate(found):
        if i:
            stdout.print()
        print_table(stdout, summary, every_flag=bool(options.probes))


def _examine(options: ProbeOptions, stderr: Console, stopped: Callable[[Stopped], None]) -> list[Summary]:
    from actkit.cli.display import Terminal
    from actkit.config.recipe import load_evaluation
    from actkit.evaluation.examination import probe_checkpoints
    from actkit.machine import pick_device
    from actkit.signals import terminable

    device = pick_device(options.device)
    _assert_writable(options.csv_file)
    evaluation = options.evaluation
    # With a recipe's evaluation its macros can be set too: -s EPS=8/255.
    macros = [setting for setting in options.settings if evaluation and "." not in setting.partition("=")[0]]
    with terminable():
        return probe_checkpoints(
            [Path(path) for path in options.ckpts],
            probes=options.probes,
            roles=options.roles,
            evaluation=load_evaluation(evaluation, macros, plugins=options.plugins) if evaluation else None,
            settings=[*_data_settings(options.data), *(s for s in options.settings if s not in macros)],
            eps=options.eps,
            norm=options.norm,
            limit=options.limit,
            device=device,
            display=Terminal(stderr, quiet=options.as_json),
            command=_command_line(options),
            out=Path(options.out) if options.out else None,
            pictures=Path(options.pictures) if options.pictures else None,
            classes=options.classes,
            on_stop=stopped,
        )


def _data_settings(data: str | None) -> list[str]:
    """`--data` as settings: a folder is one of images in class folders."""
    if data is None:
        return []
    if Path(data).expanduser().is_dir():
        return ["run.data=imagefolder", f"dataset.imagefolder.root={data}"]
    return [f"run.data={data}"]


def _command_line(options: ProbeOptions) -> str:
    what = {
        "--ckpt": options.ckpts,
        "--probe": options.probes,
        "--role": options.roles,
        "--data": options.data,
        "--limit": None if options.limit is None else str(options.limit),
        "--evaluation": options.evaluation,
        "--eps": options.eps,
        "--norm": options.norm,
    }
    how = {
        "-s": options.settings,
        "--plugins": options.plugins,
        "--classes": options.classes,
        "--device": options.device,
        "--threads": threads_given(options.threads),
    }
    return command_line("probe", [], {**what, **how})


def _assert_writable(csv_file: str | None) -> None:
    """Raise `InputError`, before anything is measured, for a file that cannot be written."""
    if csv_file and (Path(csv_file).is_dir() or not Path(csv_file).absolute().parent.is_dir()):
        why = "it is a folder" if Path(csv_file).is_dir() else "there is no such folder"
        raise InputError(f"the file cannot be written: {why}", where=csv_file, help="choose another place for --csv")

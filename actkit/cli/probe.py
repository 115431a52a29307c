"""`actkit probe`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from actkit import errors
from actkit.cli.group import main
from actkit.cli.options import consoles, device_option, json_option, load_plugins
from actkit.errors import InputError


@main.command()
@click.option(
    "--ckpt",
    "ckpts",
    multiple=True,
    required=True,
    metavar="PATH",
    help="A run, a checkpoint directory or one .safetensors file (repeatable).",
)
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="NAME",
    help="What to measure (repeatable): a probe, or the label of one in the stored evaluation. Default: the stored evaluation.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="NAME",
    help="Only models with this role (repeatable); 'headline': each training's first.",
)
@click.option("--evaluation", metavar="FILE", help="Take the evaluation from this recipe, not from the checkpoint.")
@click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the data set or the evaluation (repeatable).",
)
@click.option("--plugins", multiple=True, metavar="DIR", help="Load the plugins in this folder (repeatable).")
@click.option("--out", metavar="DIR", help="Write the results, and what happened to each example, into this folder.")
@click.option(
    "--pictures", metavar="DIR", help="Draw what the probes show into this folder: SVG, PNG, and the numbers as JSON."
)
@click.option("--csv", "csv_file", metavar="FILE", help="Write every number into this file.")
@device_option
@json_option
def probe(
    ckpts: tuple[str, ...],
    probes: tuple[str, ...],
    roles: tuple[str, ...],
    evaluation: str | None,
    settings: tuple[str, ...],
    plugins: tuple[str, ...],
    out: str | None,
    pictures: str | None,
    csv_file: str | None,
    device: str,
    as_json: bool,
) -> int:
    """Examine trained models, rebuilt from their files alone: repeat the evaluation that they were saved with, or run other probes.

    \b
    actkit probe --ckpt RUN                                     the stored evaluation again
    actkit probe --ckpt RUN --probe audit                       is the robustness real?
    actkit probe --ckpt A --ckpt B --probe transfer             the matrix of Table 3

    Interrupted, the same command goes on. Exit code 3 when a check raised a red flag.
    """
    from actkit.cli.display import Terminal, print_table
    from actkit.config.plugins import load_plugin_folder
    from actkit.config.recipe import load_evaluation
    from actkit.evaluation.examination import probe_checkpoints
    from actkit.evaluation.summary import unverified
    from actkit.machine import pick_device
    from actkit.reports.rows import write_csv
    from actkit.signals import terminable

    load_plugins()
    for folder in plugins:
        load_plugin_folder(Path(folder))
    stdout, stderr = consoles()
    where, display = pick_device(device), Terminal(stderr, quiet=as_json)
    given = [*(part for c in ckpts for part in ("--ckpt", c)), *(part for p in probes for part in ("--probe", p))]
    given += [*(part for r in roles for part in ("--role", r)), *(("--evaluation", evaluation) if evaluation else ())]
    given += [*(part for s in settings for part in ("-s", s)), *(part for p in plugins for part in ("--plugins", p))]
    if csv_file and (Path(csv_file).is_dir() or not Path(csv_file).absolute().parent.is_dir()):
        why = "it is a folder" if Path(csv_file).is_dir() else "there is no such folder"
        raise InputError(f"the file cannot be written: {why}", where=csv_file, help="choose another place for --csv")
    # With a recipe's evaluation its macros can be set too: -s EPS=8/255.
    macros = [setting for setting in settings if evaluation and "." not in setting.partition("=")[0]]
    with terminable():
        found = probe_checkpoints(
            [Path(path) for path in ckpts],
            probes=probes,
            roles=roles,
            evaluation=load_evaluation(evaluation, macros, plugins=plugins) if evaluation else None,
            settings=[setting for setting in settings if setting not in macros],
            device=where,
            display=display,
            command=shlex.join(["actkit", "probe", *given, "--device", device]),
            out=Path(out) if out else None,
            pictures=Path(pictures) if pictures else None,
        )
    if csv_file:
        write_csv(Path(csv_file), found)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for i, summary in enumerate(found):
            if i:
                stdout.print()
            print_table(stdout, summary, every_flag=bool(probes))
    return errors.CHECK_FAILED if any(unverified(summary) for summary in found) else errors.OK

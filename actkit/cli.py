"""The command line. Results on stdout, progress and errors on stderr; torch is imported only by commands that need it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit import __version__, errors
from actkit.errors import ActkitError, InputError

if TYPE_CHECKING:
    from rich.console import Console


class Commands(click.Group):
    """Errors that actkit explains become one clear line and an exit code; any other keeps its traceback."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.exceptions.Abort:
            code = errors.INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = errors.INTERRUPTED
        except BrokenPipeError:  # `actkit list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = errors.OK
        except ActkitError as error:
            if os.environ.get("ACTKIT_DEBUG"):
                raise
            for problem in getattr(error, "problems", [error]):
                click.echo(f"{click.style('error:', fg='red', bold=True)} {problem}", err=True)
            code = error.exit_code
        except OSError as error:
            if os.environ.get("ACTKIT_DEBUG"):
                raise
            said = InputError(
                f"a file cannot be used: {error.strerror or error}", where=str(error.filename) if error.filename else None,
                help="choose another place, or make room",
            )  # fmt: skip
            click.echo(f"{click.style('error:', fg='red', bold=True)} {said}", err=True)
            code = said.exit_code
        except RuntimeError as error:
            from actkit.datasets import worker_error

            if (told := worker_error(error)) is None or os.environ.get("ACTKIT_DEBUG"):
                raise
            click.echo(f"{click.style('error:', fg='red', bold=True)} {told}", err=True)
            code = told.exit_code
        sys.exit(code if isinstance(code, int) else errors.OK)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="actkit")
def main() -> None:
    """Train and examine adversarially robust image classifiers.

    \b
    actkit run gin/act_digits.gin              train ACT on digits, examine both models
    actkit run gin/act_cifar10.gin --dry-run   what it would do, and what that costs
    actkit probe --ckpt runs/act_digits/...    repeat the examination of trained models
    """


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the commands that read a recipe."""
    for option in (
        click.option("--trust", is_flag=True, help="Allow the recipe to import any module."),
        click.option("--plugins", multiple=True, metavar="DIR", help="Load the plugins in this folder (repeatable)."),
        click.option(
            "-s", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a binding (repeatable)."
        ),
    ):
        command = option(command)
    return command


device_option = click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu or cuda:N.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _consoles() -> tuple[Console, Console]:
    from rich.console import Console

    stdout = Console()
    if not stdout.is_terminal:
        stdout.width = 1000  # a file or a pipe has no width: nothing is cut off
    return stdout, Console(stderr=True)


def _plugins() -> None:
    from actkit import registry

    if not os.environ.get("ACTKIT_DISABLE_PLUGINS"):
        for warning in registry.load_entry_points():
            click.echo(f"warning: {warning}", err=True)


def _load(file: str, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool) -> Any:
    from actkit import config

    _plugins()
    recipe = config.load(file, settings, plugins=plugins, trust=trust)
    for warning in recipe.warnings:
        click.echo(f"warning: {warning}", err=True)
    return recipe


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
        return _carry_out(study, plugins, trust, jobs, executor, device, tensorboard, dry_run, as_json)
    if seed is not None:
        settings = (*settings, f"run.seed={seed}")
    recipe = _load(file, settings, plugins, trust)
    from actkit.examine import pick_device
    from actkit.report import Display, print_table, unverified
    from actkit.run import execute, folder_of

    stdout, stderr = _consoles()
    where = pick_device(device)
    if dry_run:
        from actkit.plan import lines, plan

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
    display = Display(stderr, quiet=as_json)
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
    from actkit import page, tables

    try:
        page.write(page.of_runs(*tables.find([folder])), folder / "report.html")
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
    from actkit import config
    from actkit.study import Study, all_swept, cells

    _plugins()
    declared = config.load_study(file, settings, plugins=plugins, trust=trust)
    if declared is None and seeds is None and not sweeps:
        return None
    if seed is not None and seeds is not None:
        raise InputError("--seed and --seeds say two things", help="give one of them")
    plan: Study = declared.build() if declared is not None else Study()
    numbers = plan.seeds if seed is None else [seed]
    numbers = numbers if seeds is None else _seeds(seeds)
    sweep = {**plan.sweep, **all_swept(sweeps)}
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
    from actkit import config

    if config.locate(recipe, beside=Path(file).parent) is None:
        near = [*(str(p.name) for p in Path(file).parent.glob("*.gin")), *config.packaged()]
        raise InputError(f"study.recipes: there is no recipe {recipe!r}", where=file, help=errors.nearest(recipe, near))
    own = Path(file).parent / recipe
    return str(own) if own.is_file() else recipe


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--seeds {text or repr(text)}: whole numbers are wanted", help="such as --seeds 0,1,2"
        ) from None
    if len(set(found)) < len(found):
        once = ",".join(map(str, dict.fromkeys(found)))
        raise InputError(f"--seeds {text}: a seed is there twice", help=f"--seeds {once}")
    return found


def _carry_out(
    study: Any, plugins: tuple[str, ...], trust: bool, jobs: int, executor: str, device: str, tensorboard: bool, dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    from actkit import tables
    from actkit.examine import make_folder, pick_device
    from actkit.report import Display
    from actkit.study import carry_out, plan_of

    display = Display(_consoles()[1], quiet=as_json)
    for warning in dict.fromkeys(w for cell in study for w in cell.warnings):
        click.echo(f"warning: {warning}", err=True)
    if dry_run:
        lines, seconds = plan_of(study, plugins=plugins, trust=trust, device=pick_device(device), jobs=jobs)
        if as_json:
            found = [{"title": c.title, "state": c.state, "folder": str(c.folder)} for c in study]
            click.echo(json.dumps({"cells": found, "seconds": seconds}))
        else:
            click.echo("\n".join(lines))
        return errors.OK
    make_folder(study[0].folder.parent)
    extra = [*(part for p in plugins for part in ("--plugins", p)), *(["--trust"] if trust else []), "--device", device]
    extra += ["--tensorboard"] if tensorboard else []
    ended, code = carry_out(study, _executor(executor, jobs, device), say=display.say, extra=extra)
    failed = [one for one in ended if one.failed]
    finished = [cell.folder for cell in study if cell.done]
    if as_json:
        rows = [{"title": c.title, "state": c.state, "folder": str(c.folder)} for c in study]
        click.echo(json.dumps({"cells": rows, "failed": {one.cell.title: one.said for one in failed}}))
    elif finished:
        try:
            click.echo(tables.formatted(tables.table(*tables.find(finished)), "table"))
        except InputError as error:
            display.warn(f"these runs do not go into one table: {error.message}")
    for one in failed:
        display.say(f"failed     {one.cell.title}: {one.said} ({one.cell.folder}.log)", style="red")
    if finished and not as_json:
        shown = [*(part for p in plugins for part in ("--plugins", p)), *map(str, finished[:8])]
        display.say(f"next       actkit report {shlex.join(shown)}{' ...' if len(finished) > 8 else ''}")
    return code


def _executor(name: str, jobs: int, device: str) -> Any:
    from actkit.study import Local, ray_executor

    if name == "ray":
        return ray_executor()
    gpus: list[str] = []
    if jobs > 1 and device == "auto":
        import torch

        count = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = (given if len(given) == count else list(map(str, range(count)))) if count > 1 else []
    return Local(jobs, gpus=gpus)


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
    from actkit import config, registry
    from actkit.examine import pick_device, probe_checkpoints
    from actkit.report import Display, print_table, unverified, write_csv
    from actkit.signals import terminable

    _plugins()
    for folder in plugins:
        registry.load_folder(Path(folder))
    stdout, stderr = _consoles()
    where, display = pick_device(device), Display(stderr, quiet=as_json)
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
            evaluation=config.load_evaluation(evaluation, macros, plugins=plugins) if evaluation else None,
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


@main.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--arch", required=True, metavar="NAME", help="The network: one of `actkit list backbone`, or any of timm's names."
)
@click.option("--key", metavar="NAME", help="Which of several sets of weights in the file.")
@click.option(
    "--like",
    metavar="FILE",
    help="The recipe with the data and evaluation that the model is for. Default: CIFAR-10's, CIFAR-100's or ImageNet's.",
)
@click.option("--mean", metavar="N,N,N", help="Means by channel that images were normalised with before the model.")
@click.option("--std", metavar="N,N,N", help="The deviations likewise. Both become a layer of the model.")
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="What to write. Default: <name>.safetensors here."
)
@common
@json_option
def import_(
    file: Path,
    arch: str,
    key: str | None,
    like: str | None,
    mean: str | None,
    std: str | None,
    out: Path | None,
    settings: tuple[str, ...],
    plugins: tuple[str, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Make other people's weights an actkit checkpoint: those of the released ACT code, TRADES, MadryLab, RobustBench.

    \b
    actkit import adv_model.pt --arch resnet18
    actkit import model_cifar_wrn.pt --arch wrn_34_10
    actkit probe --ckpt model_cifar_wrn.safetensors

    Nothing in the file is run: a pickled module is refused. Weights do not say which activation the network has (ours have ReLU), nor how
    images were normalised outside it: --mean and --std. The clean accuracy tells.
    """
    if (mean is None) != (std is None):
        raise InputError("--mean and --std go together")
    normalise = (_numbers("--mean", mean), _numbers("--std", std)) if mean is not None and std is not None else None
    _plugins()
    from actkit.foreign import convert

    made = convert(
        file, arch, key=key, like=like, normalise=normalise, settings=settings, plugins=plugins, trust=trust, out=out
    )
    if as_json:
        found = [
            {
                "file": str(to),
                "role": m.role,
                "key": m.key,
                "backbone": m.backbone.to_json(),
                "num_classes": m.num_classes,
                "notes": m.notes,
            }
            for to, m in made
        ]
        click.echo(json.dumps(found))
        return
    for to, model in made:
        count = sum(
            value.numel()
            for name, value in model.weights.items()
            if "running_" not in name and "num_batches" not in name
        )
        click.echo(f"{to}  {model.backbone!r}: {count:,} parameters, {model.num_classes} classes")
        for note in model.notes:
            click.echo(f"  {note}")
    click.echo("next  actkit probe " + " ".join(f"--ckpt {shlex.quote(str(to))}" for to, _ in made), err=True)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: numbers are wanted", help=f"such as {option} 0.491,0.482,0.447") from None


@main.command("export")
@click.argument("ckpt", type=click.Path(path_type=Path))
@click.option("--role", metavar="NAME", help="Which of its models. Default: the headline model.")
@click.option(
    "--name", metavar="NAME", help="What to call it, such as Arani2020Adversarial_R18. Default: <objective>_<backbone>."
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="The data set as others call it: cifar10, cifar100, imagenet. Default: the model's own.",
)
@click.option(
    "--results",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Numbers for the card from this JSON of `actkit probe`, not from the run.",
)
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="The folder to write. Default: exports/<name>."
)
@json_option
def export(
    ckpt: Path,
    role: str | None,
    name: str | None,
    dataset: str | None,
    results: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write a trained model as a folder that timm, RobustBench and the Hugging Face hub understand, with a model card of what was measured.

    CKPT is a run, a checkpoint directory or one .safetensors file.
    """
    _plugins()
    from actkit.export import export as write

    made = write(ckpt, role=role, name=name, dataset=dataset, results=results, out=out)
    if as_json:
        click.echo(json.dumps({**vars(made), "folder": str(made.folder)}))
        return
    click.echo(f"{made.folder}  known to timm as {made.timm_name} (data set {made.dataset}; --dataset says another)")
    if not made.measured:
        click.echo(
            "warning: nothing was measured of these weights, and the card says so; give --results FILE from `actkit probe --json`",
            err=True,
        )
    click.echo(
        f"next  python -c 'import actkit.models, timm; timm.create_model(\"local-dir:{made.folder}\", pretrained=True)'",
        err=True,
    )


@main.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "how", default="table", show_default=True, metavar="NAME", help="table, markdown, csv, latex or json."
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Draw the sweep, each training, and what each evaluation showed: SVG, PNG, and the numbers as JSON.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write everything into one page that needs no network and no script."
)  # fmt: skip
@click.option("--plugins", multiple=True, metavar="DIR", help="Load the plugins in this folder (repeatable).")
@json_option
def report(
    runs: tuple[Path, ...], how: str, pictures: Path | None, html: Path | None, plugins: tuple[str, ...], as_json: bool
) -> None:
    """One table of several RUNS (or folders that hold them): grouped by what they differ in, mean and standard deviation over seeds."""
    from actkit import registry, tables
    from actkit.examine import make_folder

    tables.assert_format(how)
    if pictures is not None:
        make_folder(pictures)
    _plugins()
    for folder in plugins:
        registry.load_folder(Path(folder))
    finished, unfinished = tables.find(runs)
    made = tables.table(finished, unfinished)
    click.echo(tables.formatted(made, "json" if as_json else how))
    if pictures is not None:
        drawn = tables.pictures(made, finished)
        for picture in drawn:
            picture.save(pictures)
        click.echo(f"pictures   {pictures}: {', '.join(p.name for p in drawn) or 'there is nothing to see'}", err=True)
    if html is not None:
        from actkit import page

        page.write(page.of_runs(finished, unfinished), html)
        click.echo(f"page       {html}", err=True)


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
    from actkit import page, registry, reproduce, tables
    from actkit.examine import pick_device
    from actkit.report import Display
    from actkit.study import carry_out, plan_of

    tables.assert_format(how)
    wanted = reproduce.items(names, scale)
    _plugins()
    for folder in plugins:
        registry.load_folder(Path(folder))
    place = out or reproduce.place_of(scale, settings)
    made = reproduce.study(
        wanted, seeds=None if seeds is None else _seeds(seeds), settings=settings, plugins=plugins, out=place, runs=runs
    )
    wanted = list(made.items)
    display = Display(_consoles()[1], quiet=as_json)
    if dry_run:
        lines, seconds = plan_of(
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
        runner = _executor(executor, jobs, device)
        stages: list[Callable[[], Sequence[Any]]] = [lambda: made.trainings, made.examinations]
        for stage in stages:
            ended, now = carry_out(stage(), runner, say=display.say, extra=extra)
            if now in (errors.RESUMABLE, errors.INTERRUPTED):
                display.say("stopped; the same command goes on from there")
                return now
            failed += [one for one in ended if one.failed]
            code = errors.FAILED if errors.FAILED in (code, now) else now or code
    found = [reproduce.outcome(made, item, command) for item in wanted]
    if not show or out is not None:
        reproduce.write(place, found)
        # The page has every item that is here, whichever was asked for now.
        page.write(
            page.of_items(
                reproduce.all_here(found, place, scale, settings=settings, plugins=plugins, runs=runs, command=command)
            ),
            place / "report.html",
        )
    if as_json or how == "json":
        click.echo(json.dumps([reproduce.to_json(one) for one in found]))
    elif how == "csv":
        click.echo(reproduce.as_csv(found))
    else:
        click.echo("\n\n".join(tables.printed(reproduce.grid(one), how) for one in found))
    for one in failed:
        display.say(f"failed     {one.cell.title}: {one.said} ({one.cell.folder}.log)", style="red")
    if not show or out is not None:
        display.say(f"files      {place}")
    return code


@main.command("new")
@click.argument("kind", metavar="KIND")
@click.argument("name", metavar="NAME")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Where its folder goes. Default: here.")  # fmt: skip
def new_(kind: str, name: str, into: Path) -> None:
    """Begin a plugin: a working component of this KIND (objective, attack, backbone, probe, dataset), its recipe, its test, ready to install and to publish."""
    from actkit import registry
    from actkit.new import KINDS, new

    if kind in KINDS and name.isidentifier():
        _plugins()
        registry.load_builtins()
        taken = next((e for e in registry.entries(kind) if e.name == name), None)
        if taken is not None:
            raise InputError(
                f"there is {kind}.{name} already, from {taken.origin}", where=taken.location, help="choose another name"
            )
    folder = new(kind, name, into)
    click.echo(f"{folder}")
    click.echo(f"next  cd {shlex.quote(str(folder))} && python -m pytest -q     its own test", err=True)
    click.echo(f"      actkit run actkit_{name}/gin/{name}_digits.gin --plugins actkit_{name}", err=True)
    click.echo(f"      pip install -e .     then it is there in any folder: actkit run {name}_digits.gin", err=True)


@main.command("list")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--plugins", multiple=True, metavar="DIR", help="Load the plugins in this folder (repeatable).")
@json_option
def list_(kind: str | None, name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List components (of a KIND), one of them with its parameters (KIND NAME), the recipes (KIND = recipes), or the installed plugins (KIND = plugins)."""
    from actkit import config, registry

    if kind == "recipes":
        recipes = [{"recipe": r, "about": config.about(r)} for r in config.packaged()]
        click.echo(
            json.dumps(recipes) if as_json else _aligned([list(r.values()) for r in recipes], ["RECIPE", "ABOUT"])
        )
        return
    if kind == "plugins":
        return _list_plugins(as_json)
    kinds = [*filter(None, registry.KINDS), "recipes", "plugins"]
    if kind is not None and kind not in kinds:
        raise InputError(f"there is no kind of component {kind!r}", help=errors.nearest(kind, kinds))
    _plugins()
    for folder in plugins:
        registry.load_folder(Path(folder))
    if name is not None:
        entry = registry.get(f"{kind}.{name}")
        click.echo(json.dumps(_described(entry)) if as_json else _detail(entry))
        return
    entries = [e for e in registry.entries(kind) if e.kind]
    if as_json:
        click.echo(json.dumps([_described(e) for e in entries]))
    else:
        click.echo(_aligned([[e.kind, e.name, e.origin, e.about] for e in entries], ["KIND", "NAME", "FROM", "ABOUT"]))


def _list_plugins(as_json: bool) -> None:
    """Where each came from, what it brings, and why one failed."""
    from actkit import registry

    found = registry.plugins() if not os.environ.get("ACTKIT_DISABLE_PLUGINS") else []
    if as_json:
        click.echo(json.dumps([{**vars(p), "components": p.components} for p in found]))
    elif not found:
        click.echo("no plugin is installed; `actkit new objective NAME` begins one", err=True)
    else:
        body = [
            [p.name, p.origin, p.module, p.error.splitlines()[0] if p.error else ", ".join(p.components)] for p in found
        ]
        body = [[*row[:3], f"failed: {row[3]}" if p.error else row[3]] for row, p in zip(body, found, strict=True)]
        click.echo(_aligned(body, ["PLUGIN", "FROM", "MODULE", "COMPONENTS"]))


def _described(entry: Any) -> dict[str, Any]:
    return {
        "kind": entry.kind, "name": entry.name, "from": entry.origin, "at": entry.location, "about": entry.about,
        "parameters": {p.name: None if p.required else repr(p.default) for p in entry.parameters.values()},
    }  # fmt: skip


def _detail(entry: Any) -> str:
    import inspect

    from actkit import registry
    from actkit.spec import shown

    lines = [
        f"{entry.selector}  (from {entry.origin}, {entry.location})",
        "",
        inspect.getdoc(entry.target) or "",
        "",
        "parameters",
    ]
    empty = inspect.Parameter.empty
    rows = [
        [
            f"  {p.name}",
            "" if p.annotation is empty else shown(p.annotation),
            "required" if p.required else f"default {p.default!r}",
        ]
        for p in entry.parameters.values()
    ]
    lines.append(_aligned(rows) if rows else "  none")
    roles = entry.positional[2:] if entry.kind == "objective" else ()
    if roles:
        lines += ["", "roles", "  " + ", ".join(roles)]
    lines += ["", "contract", f"  {registry.KINDS[entry.kind].contract}"]
    first = next(iter(entry.parameters), None)
    if first:
        scope = "train/" if entry.kind == "attack" else ""
        lines += ["", "in a recipe", f"  {scope}{entry.selector}.{first} = ..."]
    return "\n".join(lines)


def _aligned(rows: list[list[str]], titles: list[str] | None = None) -> str:
    table = [titles, *rows] if titles else rows
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


@main.group("config")
def config_() -> None:
    """Look at recipes without running them."""


@config_.command("show")
@click.argument("file")
@common
@click.option("--origin", is_flag=True, help="Say where each line comes from.")
@json_option
def config_show(
    file: str, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool, origin: bool, as_json: bool
) -> None:
    """Print the whole recipe, includes and overrides resolved, as one gin file."""
    recipe = _load(file, settings, plugins, trust)
    if as_json:
        click.echo(json.dumps(recipe.spec.to_json()))
        return
    for line in recipe.text.splitlines():
        place = recipe.origins.get(line)
        click.echo(f"{line}  # {place.file}{f':{place.line}' if place.line else ''}" if origin and place else line)


@config_.command("check")
@click.argument("files", nargs=-1, required=True)
@common
def config_check(files: tuple[str, ...], settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool) -> None:
    """Check recipes: everything that is wrong with them, with file and line. Exit code 2 when something is."""
    problems: list[InputError] = []
    for file in files:
        try:
            _load(file, settings, plugins, trust)
            click.echo(f"ok  {file}")
        except InputError as error:
            problems += getattr(error, "problems", [error])
    if problems:
        raise problems[0] if len(problems) == 1 else errors.InputErrors(problems)


@config_.command("diff")
@click.argument("a")
@click.argument("b")
@common
@json_option
def config_diff(
    a: str, b: str, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool, as_json: bool
) -> None:
    """Print the settings in which recipes A and B differ, defaults included. A and B may also be runs."""
    from actkit import config
    from actkit.spec import Spec

    def spec(path: str) -> Spec:
        kept = Path(path) / "config.json"
        if kept.is_file():
            return Spec.from_json(json.loads(kept.read_text(encoding="utf-8")))
        return Spec.from_json(_load(path, settings, plugins, trust).spec.to_json())

    changes = config.diff(spec(a), spec(b))
    if as_json:
        click.echo(json.dumps([{"setting": path, "a": left, "b": right} for path, left, right in changes]))
    elif not changes:
        click.echo("they say the same")
    else:
        click.echo(_aligned([[path, repr(left), repr(right)] for path, left, right in changes], ["SETTING", a, b]))

"""`actkit import` and `actkit export`: models from elsewhere, and for elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli import completion
from actkit.cli.group import main
from actkit.cli.options import (
    Given,
    RecipeOptions,
    classes_option,
    command_line,
    json_option,
    load_plugins,
    recipe_options,
)
from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.networks.importing import Imported, Wanted


@main.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--arch",
    required=True,
    metavar="NAME",
    shell_complete=completion.networks,
    help="The network: one of `actkit list backbones`, or any of timm's names.",
)
@click.option("--key", metavar="NAME", help="Which of several sets of weights in the file.")
@click.option(
    "--like",
    metavar="FILE",
    shell_complete=completion.recipes,
    help="The recipe with the data and evaluation that the model is for. Default: CIFAR-10's, CIFAR-100's or ImageNet's.",
)
@click.option(
    "--normalise",
    metavar="NAME",
    shell_complete=completion.one_of("cifar10", "cifar100", "imagenet", "half", "none"),
    help="How images were normalised before the model: cifar10, cifar100, imagenet, half, or none. It becomes a layer of the model.",
)
@click.option("--mean", metavar="N,N,N", help="The same by numbers, for images in [0,1]: means by channel.")
@click.option("--std", metavar="N,N,N", help="The deviations likewise.")
@click.option("--prefix", metavar="NAME", help="The prefix of the network's entries, where several could be meant.")
@click.option(
    "--ignore", metavar="PATTERN", multiple=True, help="Leave entries out, such as 'projector.*' (repeatable)."
)
@click.option(
    "--rename", metavar="OLD=NEW", multiple=True, help="Call a part of the entries' names differently (repeatable)."
)
@click.option(
    "--classes",
    metavar="NAMES",
    help="Names of the classes in the model's own order: with commas between them, or a text file of one a line. Default: the data's.",
)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="What to write. Default: <name>.safetensors here."
)
@recipe_options
@json_option
def import_(**given: Any) -> None:
    """Make other people's weights an actkit checkpoint: those of the released ACT code, TRADES, MadryLab, RobustBench, timm, torchvision.

    \b
    actkit import adv_model.pt --arch resnet18 --normalise none
    actkit import model_cifar_wrn.pt --arch wrn_34_10 --normalise none
    actkit probe --ckpt model_cifar_wrn.safetensors

    Nothing in the file is run: a pickled module is refused. Wrappers' prefixes and known leftovers are found and said. Weights do not say which
    activation the network has (ours have ReLU), nor how images were normalised outside it: --normalise, or --mean and --std. The clean accuracy tells.
    """
    options = ImportOptions(**given)
    from actkit.networks.importing import convert
    from actkit.networks.normalisation import UNNORMALISED, is_unsaid

    made = convert(options.file, options.arch, _wanted(options))
    if options.as_json:
        click.echo(json.dumps([_described(model, to) for to, model in made]))
        return
    for to, model in made:
        click.echo(f"{to}  {model.backbone!r}: {model.parameters:,} parameters, {model.num_classes} classes")
        for note in model.notes:
            click.echo(f"  {note}")
        if is_unsaid(model.notes):
            click.secho(f"warning: {UNNORMALISED}", fg="yellow", err=True)
    _say_next(options, made)


def _say_next(options: ImportOptions, made: Sequence[tuple[Path, Imported]]) -> None:
    """What to do with the files: examine them, or train on, a setting a line as a shell takes them."""
    from actkit.networks.first_weights import options_of

    plugins: dict[str, Given] = {"--plugins": options.reading.plugins}
    again = command_line("probe", [], {"--ckpt": [str(to) for to, _ in made], **plugins})
    click.echo(f"next  {again}", err=True)
    to, model = made[0]
    between = " \\\n        "
    begin = command_line("run", ["RECIPE"], {**plugins, "-s": f"role.weights={to}"})
    click.echo(f"  or  {begin}{between}{options_of(model.backbone, between)}", err=True)


@dataclass(frozen=True)
class ImportOptions:
    """What `actkit import` was given."""

    file: Path
    arch: str
    key: str | None
    like: str | None
    normalise: str | None
    mean: str | None
    std: str | None
    prefix: str | None
    ignore: tuple[str, ...]
    rename: tuple[str, ...]
    classes: str | None
    out: Path | None
    reading: RecipeOptions
    as_json: bool


def _wanted(options: ImportOptions) -> Wanted:
    from actkit.networks.foreign_names import Choice
    from actkit.networks.importing import Wanted

    return Wanted(
        key=options.key,
        like=options.like,
        normalise=_normalisation(options),
        unnormalised=options.normalise == "none",
        classes=_class_names(options.classes),
        choice=Choice(options.prefix, options.ignore, [_renaming(text) for text in options.rename]),
        settings=options.reading.settings,
        plugins=options.reading.plugins,
        trust=options.reading.trust,
        out=options.out,
    )


def _normalisation(options: ImportOptions) -> tuple[list[float], list[float]] | None:
    """The constants that were given, by name or by number. Raises `InputError` for halves of them, and for both."""
    from actkit.networks.normalisation import known

    if (options.mean is None) != (options.std is None):
        raise InputError("--mean and --std go together")
    if options.mean is None or options.std is None:
        return known(options.normalise) if options.normalise is not None else None
    if options.normalise is not None:
        raise InputError("--normalise says the same as --mean and --std", help="give one of them")
    return _numbers("--mean", options.mean), _numbers("--std", options.std)


def _renaming(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not old or not sign:
        raise InputError(f"--rename {text}: OLD=NEW is wanted", help="such as --rename classifier=fc")
    return old, new


def _class_names(text: str | None) -> tuple[str, ...] | None:
    """Names with commas between them, or those of a file, one a line."""
    if text is None:
        return None
    try:
        held = Path(text).read_text(encoding="utf-8").splitlines() if Path(text).is_file() else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the names of the classes cannot be read: {error}", where=text) from error
    return tuple(name.strip() for name in held if name.strip())


def _described(model: Imported, to: Path) -> dict[str, Any]:
    return {
        "file": str(to),
        "role": model.role,
        "key": model.key,
        "backbone": model.backbone.to_json(),
        "num_classes": model.num_classes,
        "parameters": model.parameters,
        "notes": model.notes,
    }


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: numbers are wanted", help=f"such as {option} 0.491,0.482,0.447") from None


@main.command("export")
@click.argument("ckpt", type=click.Path(path_type=Path), shell_complete=completion.checkpoints)
@click.option("--role", metavar="NAME", help="Which of its models. Default: the headline model.")
@click.option(
    "--name", metavar="NAME", help="What to call it, such as Arani2020Adversarial_R18. Default: <objective>_<backbone>."
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="The data set as others call it: cifar10, cifar100, imagenet. Default: the model's own.",
)
@classes_option
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
    classes: Any,
    results: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write a trained model as a folder that timm, RobustBench and the Hugging Face hub understand, with a model card of what was measured.

    CKPT is a run, a checkpoint directory or one .safetensors file.

    \b
    actkit export example:act_digits --name mine
    actkit export runs/act_digits --role natural --out exports/natural
    """
    load_plugins()
    from actkit.reports.export import export as write_export

    made = write_export(ckpt, role=role, name=name, dataset=dataset, results=results, out=out, classes=classes)
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

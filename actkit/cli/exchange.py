"""`actkit import` and `actkit export`: models from elsewhere, and for elsewhere."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli.group import main
from actkit.cli.options import RecipeOptions, json_option, load_plugins, recipe_options
from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.networks.importing import Imported


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
@recipe_options
@json_option
def import_(
    file: Path,
    arch: str,
    key: str | None,
    like: str | None,
    mean: str | None,
    std: str | None,
    out: Path | None,
    reading: RecipeOptions,
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
    from actkit.networks.importing import convert

    made = convert(
        file,
        arch,
        key=key,
        like=like,
        normalise=normalise,
        settings=reading.settings,
        plugins=reading.plugins,
        trust=reading.trust,
        out=out,
    )
    if as_json:
        click.echo(json.dumps([_described(model, to) for to, model in made]))
        return
    for to, model in made:
        kept = ("running_", "num_batches")
        count = sum(value.numel() for name, value in model.weights.items() if not any(part in name for part in kept))
        click.echo(f"{to}  {model.backbone!r}: {count:,} parameters, {model.num_classes} classes")
        for note in model.notes:
            click.echo(f"  {note}")
    click.echo("next  actkit probe " + " ".join(f"--ckpt {shlex.quote(str(to))}" for to, _ in made), err=True)


def _described(model: Imported, to: Path) -> dict[str, Any]:
    return {
        "file": str(to),
        "role": model.role,
        "key": model.key,
        "backbone": model.backbone.to_json(),
        "num_classes": model.num_classes,
        "notes": model.notes,
    }


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
    load_plugins()
    from actkit.reports.export import export as write_export

    made = write_export(ckpt, role=role, name=name, dataset=dataset, results=results, out=out)
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

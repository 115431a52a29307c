"""Options that several commands share, and what every command does first."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from actkit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console


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


def consoles() -> tuple[Console, Console]:
    from rich.console import Console

    stdout = Console()
    if not stdout.is_terminal:
        stdout.width = 1000  # a file or a pipe has no width: nothing is cut off
    return stdout, Console(stderr=True)


def load_plugins() -> None:
    from actkit.config.plugins import load_installed_plugins

    if not os.environ.get("ACTKIT_DISABLE_PLUGINS"):
        for warning in load_installed_plugins():
            click.echo(f"warning: {warning}", err=True)


def load(file: str, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool) -> Any:
    from actkit.config.recipe import load_recipe

    load_plugins()
    recipe = load_recipe(file, settings, plugins=plugins, trust=trust)
    for warning in recipe.warnings:
        click.echo(f"warning: {warning}", err=True)
    return recipe


def seeds_in(text: str) -> list[int]:
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


def executor_named(name: str, jobs: int, device: str) -> Any:
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

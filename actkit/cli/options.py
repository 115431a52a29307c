"""Options that several commands share, and the command line that results are signed with."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actkit.cli import completion

if TYPE_CHECKING:
    from rich.console import Console

    from actkit.config.recipe import Recipe, RecipeFile
    from actkit.training.study import Cell

# What an option was given: text, several texts, or, of a flag, whether it is there.
Given = str | bool | Sequence[str] | None
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class RecipeOptions:
    """How a recipe is to be read: `-s`, `--plugins` and `--trust`."""

    settings: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    trust: bool = False

    def with_seed(self, seed: int | None) -> RecipeOptions:
        """The same with `--seed`, which is `-s run.seed=N`."""
        return self if seed is None else replace(self, settings=(*self.settings, f"run.seed={seed}"))

    def open(self, file: str) -> RecipeFile:
        """Read the recipe's files. Raises `InputError`."""
        from actkit.config.recipe import open_recipe

        return open_recipe(file, self.settings, plugins=self.plugins, trust=self.trust)


def resolve(file: RecipeFile) -> Recipe:
    """The run that a recipe declares, its warnings printed on stderr. Raises `InputError`."""
    recipe = file.recipe()
    warn_of([recipe])
    return recipe


def warn_of(read: Iterable[Recipe | Cell]) -> None:
    """Print the warnings of recipes, or of a study's cells, on stderr, each once."""
    for warning in dict.fromkeys(warning for one in read for warning in one.warnings):
        click.echo(f"warning: {warning}", err=True)


def load_plugins(folders: Sequence[str] = ()) -> None:
    """Load the installed plugins, with a warning for each that fails, then those in the folders. Raises `InputError` when one of these fails."""
    from actkit.config.plugins import load_installed_plugins, load_plugin_folder

    if not os.environ.get("ACTKIT_DISABLE_PLUGINS"):
        for warning in load_installed_plugins():
            click.echo(f"warning: {warning}", err=True)
    for folder in folders:
        load_plugin_folder(Path(folder))


def plugins_option(*, load: bool = True) -> Decorator:
    """`--plugins DIR`. All plugins are loaded as the command line is parsed, the installed ones too, unless the command does it itself when it must."""

    def loaded(context: click.Context, parameter: click.Parameter, folders: tuple[str, ...]) -> tuple[str, ...]:
        # A shell that completes a command line runs nothing.
        if load and not context.resilient_parsing:
            load_plugins(folders)
        return folders

    text = "Load the plugins in this folder (repeatable)."
    return click.option(
        "--plugins", multiple=True, metavar="DIR", callback=loaded, shell_complete=completion.folders, help=text
    )


def settings_option(text: str = "Override a binding (repeatable).") -> Decorator:
    return click.option(
        "-s",
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=completion.settings,
        help=text,
    )


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that read a recipe; the command gets them as one `RecipeOptions`, called `reading`."""

    @functools.wraps(command)
    def called(*, settings: tuple[str, ...], plugins: tuple[str, ...], trust: bool, **others: Any) -> Any:
        return command(reading=RecipeOptions(settings, plugins, trust), **others)

    trust = click.option("--trust", is_flag=True, help="Allow the recipe to import any module.")
    return settings_option()(plugins_option()(trust(called)))


def threat_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--eps` and `--norm`: one threat model for every probe at once."""
    eps = click.option(
        "--eps",
        metavar="N",
        help="The budget of every attack, in [0,1] pixels, such as 8/255; its step size goes with it. Default: the stored one.",
    )
    norm = click.option(
        "--norm",
        metavar="NAME",
        shell_complete=completion.norms,
        help="The norm that eps is measured in: linf, l2, l1, or a plugin's; `actkit list norms` shows them.",
    )
    return eps(norm(command))


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    shell_complete=completion.devices,
    help="auto, cpu or cuda:N.",
)


def _use_threads(context: click.Context, parameter: click.Parameter, number: int | None) -> int | None:
    """Before torch is imported, whose OpenMP asks the environment once; what this process starts inherits it."""
    if number is not None and not context.resilient_parsing:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(number))
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(number)
    return number


def threads_given(number: int | None) -> str | None:
    """As a command line has it."""
    return None if number is None else str(number)


# Eager: plugins, which import torch, are loaded as the command line is parsed.
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    is_eager=True,
    callback=_use_threads,
    help="How many cores torch computes with, in each run of a study too. Default: all of them, shared by a study's runs at a time.",
)
classes_option = click.option(
    "--classes",
    type=click.Choice(["by_name", "by_number"]),
    help="How a model's classes belong to the data's, where they are called differently or come in another order.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
format_option = click.option(
    "--format",
    "how",
    default="table",
    show_default=True,
    metavar="NAME",
    shell_complete=completion.formats,
    help="table, markdown, csv, latex or json.",
)


def arguments(options: Mapping[str, Given]) -> list[str]:
    """Options as they are typed: one with several values is repeated, a flag stands alone, what is empty or False is left out."""
    words: list[str] = []
    for option, value in options.items():
        if value is True:
            words.append(option)
        elif value:
            words += [word for one in ([value] if isinstance(value, str) else value) for word in (option, one)]
    return words


def command_line(command: str, positional: Sequence[str], options: Mapping[str, Given]) -> str:
    """The command as results record it: whoever types it gets the same numbers."""
    return shlex.join(["actkit", command, *positional, *arguments(options)])


def consoles() -> tuple[Console, Console]:
    """For results and for all else: stdout and stderr."""
    from rich.console import Console

    stdout = Console()
    if not stdout.is_terminal:
        # A file or a pipe has no width: nothing is cut off.
        stdout.width = 1000
    return stdout, Console(stderr=True)

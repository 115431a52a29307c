"""`actkit completion`: a shell completes commands, options and their values. Nothing is imported for it but what names things: no torch, no plugin."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from actkit.cli.group import COMPLETE, main

Completed = list[CompletionItem[str]]
KINDS = ("attack", "backbone", "dataset", "objective", "optimizer", "probe", "schedule")
# The kinds that a plugin can be begun for.
BEGUN = ("objective", "attack", "backbone", "probe", "dataset")


@main.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script by which a SHELL completes actkit's commands, options and values: recipes, kinds, components, settings, probes, checkpoints.

    \b
    echo 'eval "$(actkit completion bash)"' >> ~/.bashrc              bash, from the next shell on
    echo 'eval "$(actkit completion zsh)"' >> ~/.zshrc                zsh, below its `compinit`
    actkit completion fish > ~/.config/fish/completions/actkit.fish   fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "actkit", COMPLETE).source())


# -- bash ----------------------------------------------------------------------------------------------------------------

# Unlike click's own: the line is handed over as it is, since bash splits words at ':' and '=' ('example:act_digits', 'run.data=digits'), and what ends
# in '=', '.' or '/' is not followed by a blank.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames 2> /dev/null ;;
            file) compopt -o default 2> /dev/null ;;
            *) COMPREPLY+=("$value")
               [[ $value == *[=/.] ]] && compopt -o nospace 2> /dev/null ;;
        esac
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH
    # What bash takes for finished words of the value that is being completed.
    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = click.shell_completion.split_arg_string(line)
        incomplete = "" if not line or line[-1].isspace() else words.pop()
        self._before = re.match(r"(.*[:=])?", incomplete)[0]  # type: ignore[index]
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type},{item.value.removeprefix(self._before)}"


add_completion_class(_Bash, "bash")


# -- what stands where ---------------------------------------------------------------------------------------------------

Completer = Callable[[click.Context, click.Parameter, str], Completed]


def _completer(values: Callable[[click.Context, str], Iterable[str]], *, otherwise: str | None = None) -> Completer:
    """A click `shell_complete`: those of the values that begin so; where there are none, the shell's own files or folders (`otherwise`)."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Completed:
        found = [value for value in dict.fromkeys(values(context, incomplete)) if value.startswith(incomplete)]
        if not found and otherwise:
            return [CompletionItem(incomplete, type=otherwise)]
        return [CompletionItem(value) for value in found]

    return complete


def one_of(*values: str) -> Completer:
    """Of a few words."""
    return _completer(lambda context, incomplete: values)


def _recipes(*uses: str) -> Callable[[click.Context, str], Iterator[str]]:
    def found(context: click.Context, incomplete: str) -> Iterator[str]:
        from actkit.config.locate import packaged_recipes, recipe_use

        packaged = packaged_recipes()
        for name, path in packaged.items():
            # Their folder may be left out.
            short = name.removeprefix("gin/") if incomplete else name
            yield from (one for one in (name, short) if one.startswith(incomplete) and recipe_use(path) in uses)
        near = [path for pattern in ("*.gin", "*/*.gin") for path in sorted(Path().glob(f"{incomplete}{pattern}"))]
        yield from (str(path) for path in near if str(path) not in packaged)

    return found


def _components(kind: str, context: click.Context) -> Iterator[Any]:
    """The components of a kind by their sources: actkit's, installed plugins', and those of `--plugins`."""
    from actkit.cli.sources import PACKAGE, components_in
    from actkit.config.plugins import plugin_folders

    folders = [PACKAGE, *plugin_folders(), *map(Path, context.params.get("plugins") or ())]
    for folder in folders:
        yield from components_in(folder, kind)


def _names(kind: str, context: click.Context) -> list[str]:
    from actkit.cli.sources import torch_names

    found = [one.name for one in _components(kind, context)]
    return sorted([*found, *(torch_names(kind) if kind in ("optimizer", "schedule") else [])])


def _named(context: click.Context, incomplete: str) -> list[str]:
    kind = str(context.params.get("kind") or "").lower().removesuffix("s")
    return _names(kind, context) if kind in (*KINDS, "norm", "paper") else []


def _checkpoints(context: click.Context, incomplete: str) -> Iterator[str]:
    """Runs below the working folder, models that come along, model files here."""
    from actkit.cli.sources import PACKAGE

    for place in sorted(Path().glob("runs/*")):
        runs = [file.parent for file in sorted(place.glob("*/config.json"))]
        yield from map(str, [place, *runs] if runs or (place / "config.json").is_file() else [])
    yield from (f"example:{path.name}" for path in sorted((PACKAGE / "examples").iterdir()) if path.is_dir())
    yield from map(str, sorted(Path().glob("*.safetensors")))


def _probes(context: click.Context, incomplete: str) -> list[str]:
    """Registered probes, and the labels of those in the evaluations of the runs that are named."""
    labels: list[str] = []
    for place in map(Path, context.params.get("ckpts") or ()):
        for file in [place / "config.json", *sorted(place.glob("*/config.json"))]:
            # A damaged run has none; whoever examines it is told.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(file.read_text(encoding="utf-8"))["kwargs"]["evaluation"]
                labels += [probe["label"] for probe in stored if "label" in probe]
    return [*dict.fromkeys(labels), *_names("probe", context)]


def _settings(context: click.Context, incomplete: str) -> Iterator[str]:
    """KEY= of all that can be set, or after '=' the components that can stand there."""
    key, equals, _ = incomplete.partition("=")
    scope, slash, selector = key.rpartition("/")
    kind, dot, _ = selector.partition(".")
    if not dot:
        # Of a training an attack's settings stand in one of two scopes.
        yield from (f"{scope}{slash}{one}." for one in ("run", "role", *KINDS) if scope or one != "attack")
        yield from ("train/attack.", "eval/attack.")
        return
    for one in _components(kind if kind in KINDS else "", context):
        own = f"{scope}{slash}{kind}.{one.name}." if kind in KINDS else f"{scope}{slash}{one.name}."
        for parameter in one.parameters:
            if not equals:
                yield f"{own}{parameter}="
            elif key == f"{own}{parameter}" and (wanted := one.wants(parameter)):
                yield from (f"{key}={name}" for name in _names(wanted, context))


def _paper_items(context: click.Context, incomplete: str) -> Iterator[str]:
    """'all' and the items of actkit's own paper, then those of others, each with its paper's name."""
    from actkit.cli.sources import PACKAGE

    for paper in _components("paper", context):
        names = ["all", *paper.items]
        if Path(paper.place).is_relative_to(PACKAGE):
            yield from names
        yield from (f"{paper.name}:{name}" for name in names)


recipes = _completer(_recipes("run"), otherwise="file")
any_recipe = _completer(_recipes("run", "evaluation", "part"), otherwise="file")
evaluations = _completer(_recipes("evaluation", "run"), otherwise="file")
checkpoints = _completer(_checkpoints, otherwise="file")
probes = _completer(_probes)
settings = _completer(_settings)
networks = _completer(lambda context, incomplete: _names("backbone", context))
norms = _completer(lambda context, incomplete: _names("norm", context))
listed = one_of(*(f"{kind}s" for kind in (*KINDS, "norm")), "papers", "recipes", "plugins", "run", "role", "study")
named = _completer(_named)
begun = one_of(*BEGUN)
data_or_folder = _completer(lambda context, incomplete: _names("dataset", context), otherwise="dir")
devices = one_of("auto", "cpu", "cuda", "cuda:0")
formats = one_of("table", "markdown", "csv", "latex", "json")
scales = one_of("full", "small")
paper_items = _completer(_paper_items)
folders = _completer(lambda context, incomplete: (), otherwise="dir")
files = _completer(lambda context, incomplete: (), otherwise="file")

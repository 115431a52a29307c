"""The public names in docs/reference.md, made from their docstrings: `python docs/reference.py` writes it, a test compares it."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import actkit
from actkit.config.registry import KINDS, NameOf

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference.md"
BEGIN, END = "<!-- names: made by `python docs/reference.py` -->\n", "<!-- names end -->\n"

# What belongs together; a public name that stands nowhere here comes last.
GROUPS = {
    "A model in hand": ["load_model", "LoadedModel", "as_data", "attack", "evaluate", "Evaluation", "train", "Trained"],
    "Registering": ["register", "Spec", "load"],
    "Parameters that take a component": [
        "Attack", "Backbone", "Dataset", "Objective", "Optimizer", "Probe", "Schedule",
    ],
    "Data": ["Data", "Split"],
    "Models": ["Role", "Model"],
    "Attacks": ["Goal", "ascend", "away_from", "untargeted"],
    "Losses": ["cross_entropy", "kl", "kl_from", "mimicry"],
    "Training": ["update", "fit"],
    "Probes": ["Result", "Column", "Flag", "Picture"],
    "Papers": [
        "Paper", "PaperScale", "Item", "ItemTraining", "ItemExamination", "PublishedRow", "PublishedColumn", "Published", "Claim",
    ],
    "Random numbers": ["Noise"],
    "Errors": ["InputError", "ActkitError"],
}  # fmt: skip
# A method of Python's own whose call is what the object is for.
CALLED = ("__call__", "__len__", "__getitem__")


def names() -> Iterator[str]:
    """The public names, group by group, each group under its title."""
    left = {name for name in actkit.__all__ if not name.startswith("_")}
    for title, members in GROUPS.items():
        there = [name for name in members if name in left]
        left -= set(there)
        yield "\n".join([f"## {title}", "", *(part for name in there for part in entry(name))])
    if left:
        yield "\n".join(["## More", "", *(part for name in sorted(left) for part in entry(name))])


def entry(name: str) -> Iterator[str]:
    """One name: how it is called, what its docstring says, and its methods."""
    thing = getattr(actkit, name)
    yield f"### {name}\n"
    if typing.get_origin(thing) is typing.Annotated:
        if named := next((m.kind for m in thing.__metadata__ if isinstance(m, NameOf)), None):
            yield f"A keyword-only parameter annotated so takes the name of a {named}, as text: `actkit list {named}s`.\n"
            return
        kind = next(m for m in thing.__metadata__ if m in KINDS)
        article = "an" if kind[0] in "aeiou" else "a"
        yield f"A keyword-only parameter annotated so takes {article} {kind}, built: `{KINDS[kind].contract}`.\n"
        return
    if not callable(thing):
        # A namespace, `attack.pgd`: what each of its names is called with.
        function = getattr(thing, dir(thing)[0])
        yield f"```python\n{wrapped(f'{name}.NAME{arguments(type(function).__call__, bound=True)}')}\n```\n"
        yield f"{text_of(type(thing))}\n\n{text_of(type(function).__call__)}\n"
        return
    yield f"```python\n{called(name, thing)}\n```\n"
    yield text_of(thing) + "\n"
    if inspect.isclass(thing):
        yield from (line for line in members(thing) if line)


def members(cls: type) -> Iterator[str]:
    """The methods and properties of a class that say what they are, those of actkit's own bases too."""
    own = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "actkit"]
    seen: set[str] = set()
    for member, value in ((m, v) for base in own for m, v in vars(base).items()):
        if member in seen or (member.startswith("_") and member not in CALLED):
            continue
        seen.add(member)
        static = isinstance(value, staticmethod)
        function = value.fget if isinstance(value, property) else value.__func__ if static else value
        # Its own words: what it inherits from Python says nothing.
        if not inspect.isfunction(function) or not function.__doc__:
            continue
        said = text_of(function, indent="  ")
        if isinstance(value, property):
            yield f"- `.{member}`: {said}\n"
        else:
            place = cls.__name__ if static else ""
            shown = {"__call__": "(...)", "__len__": "len(...)", "__getitem__": "[...]"}.get(
                member, f"{place}.{member}"
            )
            yield f"- `{shown}{arguments(function, bound=not static) if member != '__len__' else ''}`: {said}\n".replace("`(...)(", "`(")  # fmt: skip


def called(name: str, thing: Any) -> str:
    """Its signature, in lines that are no longer than a screen is wide."""
    if inspect.isclass(thing) and getattr(thing, "_is_protocol", False):
        function = vars(thing).get("__call__")
        return f"{name}: {arguments(function, bound=True)}" if function else name
    return wrapped(f"{name}{arguments(thing, bound=False)}")


def wrapped(shown: str) -> str:
    """A call in lines that are no longer than a screen is wide."""
    if len(shown) <= 110:
        return shown
    name, inside, returned = re.fullmatch(r"([\w.]+)\((.*)\)( -> .*)?", shown, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = re.split(r", (?=(?:[^\[\]()]|\[[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*\]|\([^()]*\))*$)", inside)
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returned or ''}"


def arguments(function: Any, *, bound: bool) -> str:
    """The signature as its author wrote it; `bound`: without self."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    shown: list[str] = []
    for i, one in enumerate(parameters):
        before = parameters[i - 1].kind if i else None
        if before is one.POSITIONAL_ONLY and one.kind is not one.POSITIONAL_ONLY:
            shown.append("/")
        if one.kind is one.KEYWORD_ONLY and before not in (one.KEYWORD_ONLY, one.VAR_POSITIONAL):
            shown.append("*")
        shown.append(_parameter(one))
    if parameters and parameters[-1].kind is inspect.Parameter.POSITIONAL_ONLY:
        shown.append("/")
    returned = signature.return_annotation
    if hasattr(function, "__wrapped__") and str(returned).startswith("Iterator["):
        returned = str(returned).replace("Iterator", "AbstractContextManager", 1)
    gives = (
        "" if returned in (inspect.Signature.empty, None, "None") or inspect.isclass(function) else f" -> {returned}"
    )
    return f"({', '.join(shown)}){gives}"


def _parameter(one: inspect.Parameter) -> str:
    star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    annotated = "" if one.annotation is one.empty else f": {one.annotation}"
    if one.default is one.empty:
        return f"{star}{one.name}{annotated}"
    default = "..." if repr(one.default).startswith("<") else repr(one.default)
    return f"{one.name}{annotated} = {default}" if annotated else f"{one.name}={default}"


def text_of(thing: Any, indent: str = "") -> str:
    """A docstring as Markdown: its arguments as a list."""
    lines: list[str] = []
    inside = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line == "Args:":
            inside = True
            lines += [""] if lines and lines[-1] else []
            continue
        inside = inside and (line.startswith(" ") or not line)
        argument = re.match(r"    ([\w*]+(?:, [\w*]+)*): (.*)", line) if inside else None
        if argument:
            named = ", ".join(f"`{name}`" for name in argument[1].split(", "))
            lines.append(f"- {named}: {argument[2]}")
        else:
            lines.append(f"  {line.strip()}" if inside and line else line)
    return "\n".join(f"{indent}{line}".rstrip() for line in lines).strip()


def page() -> str:
    """The page with the names put in anew."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + "\n".join(names()) + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT), file=sys.stderr)

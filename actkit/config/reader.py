"""gin files in, bindings out: what is written, with file and line; nothing is looked up or called. The one module that knows gin."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actkit.config.locate import find_recipe, locate_recipe, packaged_recipes
from actkit.errors import InputError, nearest
from gin import config_parser


@dataclass(frozen=True)
class Ref:
    """`@scope/kind.name()`."""

    scope: str
    selector: str
    called: bool = True

    def __repr__(self) -> str:
        return f"@{self.scope + '/' if self.scope else ''}{self.selector}{'()' if self.called else ''}"


@dataclass(frozen=True)
class Macro:
    """`%NAME`."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Place:
    """Where something is written."""

    file: str
    line: int = 0
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}\n      {self.text.strip()}" if self.line else self.file


@dataclass(frozen=True)
class Binding:
    """One `scope/selector.parameter = value`, or, where the parameter is empty, one macro: `NAME = value`.

    `included`: in a file that the recipe includes, which may offer what nobody uses. `override`: by `-s` on the command line, or by the file of a study.
    """

    scope: str
    selector: str
    parameter: str
    value: Any
    place: Place
    included: bool = False
    override: bool = False

    @property
    def key(self) -> str:
        scope, parameter = self.scope and f"{self.scope}/", self.parameter and f".{self.parameter}"
        return f"{scope}{self.selector}{parameter}"


@dataclass(frozen=True)
class Import:
    """One `import module`."""

    module: str
    place: Place


@dataclass(frozen=True)
class Document:
    """A recipe as it is written: the bindings and imports of its files, then those of the command line, in their order.

    `file` is what the user called it; `problems` are what cannot be read.
    """

    file: str
    path: Path
    bindings: tuple[Binding, ...]
    imports: tuple[Import, ...]
    problems: tuple[InputError, ...]


def read_document(file: str, settings: Iterable[str | Binding] = ()) -> Document:
    """Read a recipe with all that it includes, and settings after it, the last one winning: 'KEY=VALUE', or what another file says.

    Raises `InputError` for a file that is not there or cannot be read, includes that go round in a circle, or a setting that says nothing.
    """
    path = find_recipe(file)
    given = (replace(one, override=True) if isinstance(one, Binding) else read_setting(one) for one in settings)
    found = [*_read_file(path.resolve(), file), *given]
    return Document(
        file,
        path,
        tuple(one for one in found if isinstance(one, Binding)),
        tuple(one for one in found if isinstance(one, Import)),
        tuple(one for one in found if isinstance(one, InputError)),
    )


def read_setting(setting: str) -> Binding:
    """One `-s KEY=VALUE`; a bare word is text. Raises `InputError` when it is no such thing."""
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set needs KEY=VALUE, got {setting!r}", help="for example -s run.epochs=2")
    statements = _parsed(f"{key} = {value}") or _parsed(f"{key} = {_literal(value)}")
    if len(statements) != 1 or not isinstance(statements[0], config_parser.BindingStatement):
        raise InputError(
            f"--set cannot read {setting!r}",
            help="KEY is like run.epochs or natural/role.backbone; VALUE a number, word or list",
        )
    (one,) = statements
    return Binding(one.scope, one.selector, one.arg_name, one.value, Place(f"--set {setting}"), override=True)


class _PlainValues(config_parser.ParserDelegate):
    """Keeps references and macros as plain values: nothing is looked up or called while a file is read."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Ref:
        scope, _, selector = scoped_configurable_name.rpartition("/")
        return Ref(scope, selector, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def _read_file(path: Path, shown: str, including: tuple[Path, ...] = ()) -> Iterator[Binding | Import | InputError]:
    """What a file says, with what it includes in its place. `shown` is its path as messages give it; `including`: the files on the way to it."""
    if path in including:
        cycle = " -> ".join(p.name for p in (*including[including.index(path) :], path))
        raise InputError(f"include cycle: {cycle}", where=shown, help="remove one of the includes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the config cannot be read: {error}", where=shown) from error
    for statement in _statements(text, shown):
        if isinstance(statement, InputError):
            yield statement
            continue
        place = Place(shown, statement.location.line_num, statement.location.line_content)
        if isinstance(statement, config_parser.IncludeStatement):
            included = locate_recipe(statement.filename, beside=path.parent)
            if included is None:
                yield _not_found(statement.filename, path, place)
                continue
            same = included.parent == path.parent
            beside = str(Path(shown).parent / statement.filename)
            yield from _read_file(included, beside if same else str(included), (*including, path))
        elif isinstance(statement, config_parser.ImportStatement):
            yield Import(statement.module, place)
        elif isinstance(statement, config_parser.BindingStatement):
            yield Binding(
                statement.scope,
                statement.selector,
                statement.arg_name,
                statement.value,
                place,
                included=bool(including),
            )


def _not_found(filename: str, path: Path, place: Place) -> InputError:
    near = [*(p.name for p in path.parent.glob("*.gin")), *packaged_recipes()]
    return InputError(
        f"config file not found: {filename}",
        where=str(place),
        help=nearest(filename, near, listing=False) or "it is looked for beside this file",
    )


def _statements(text: str, shown: str) -> Iterator[Any]:
    """gin's statements up to the first that its grammar refuses; that one as an `InputError`."""
    try:
        yield from config_parser.ConfigParser(text, _PlainValues())
    except (SyntaxError, tokenize.TokenError) as error:
        yield _syntax_error(error, text, shown)


def _parsed(text: str) -> list[Any]:
    """gin's statements, none where its grammar refuses the text."""
    try:
        return list(config_parser.ConfigParser(text, _PlainValues()))
    except (SyntaxError, tokenize.TokenError):
        return []


def _literal(value: str) -> str:
    """A value of the command line as gin reads it: bare words are text, in a list too."""
    value = value.strip()
    if listed := re.fullmatch(r"\[([^\[\](){}'\"@%]*)\]", value):
        items = [item for item in listed[1].split(",") if item.strip()]
        return f"[{', '.join(item if _parsed(f'x = {item}') else _literal(item) for item in items)}]"
    words = {"true": "True", "false": "False", "none": "None"}
    return words.get(value.lower(), repr(value))


def _syntax_error(error: SyntaxError | tokenize.TokenError, text: str, shown: str) -> InputError:
    """What is wrong with a line, in the terms of a recipe rather than of Python."""
    lines = text.splitlines()
    if isinstance(error, tokenize.TokenError):
        message, line = str(error.args[0]), error.args[1][0]
        reason = "a bracket or a quote is not closed" if "EOF" in message or "unterminated" in message else message
        written = lines[line - 1] if line <= len(lines) else ""
        return InputError(f"syntax error: {reason}", where=str(Place(shown, line, written)))
    line = error.lineno or 0
    written = lines[line - 1] if 0 < line <= len(lines) else (error.text or "")
    reason, help = _explain((error.msg or "").split("\n")[0], written.partition("=")[2].split("#")[0].strip())
    return InputError(f"syntax error: {reason}", where=str(Place(shown, line, written)), help=help)


def _explain(reason: str, value: str) -> tuple[str, str | None]:
    """Python's reason for refusing a line whose value is this, in plain words, and the remedy."""
    if re.fullmatch(r"-?[\d.]+\s*/\s*[\d.]+", value):
        remedy = f"gin has no arithmetic; write the number, or the fraction in quotes: '{value}'"
        return "unexpected text after the value", remedy
    if re.fullmatch(r"-?[\d.]+\s*[*+-].*", value):
        return "unexpected text after the value", "gin has no arithmetic; write the number"
    if "malformed node" in reason:
        constant = value.lower() in ("true", "false", "none")
        remedy = f"write {value.capitalize()}" if constant else f"write text in quotes: '{value}'"
        return f"cannot read the value {value!r}", remedy
    open_quote = value.count("'") % 2 or value.count('"') % 2
    if "unterminated string" in reason or ("Unable to parse" in reason and open_quote):
        return "a quote is not closed", None
    if "expected ':' or '='" in reason:
        return reason, "a line is  name.parameter = value,  include '...'  or  import ..."
    return reason, None

"""gin files in, bindings out: what is written, with file and line; nothing is looked up or called. The one module that knows gin."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actkit.config.plugins import plugin_folders
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
    scope: str
    selector: str  # a macro's name has no dot and an empty parameter
    parameter: str
    value: Any
    place: Place
    stated: bool  # by the recipe itself or on the command line, not by something it includes
    override: bool = False

    @property
    def key(self) -> str:
        return (
            f"{self.scope + '/' if self.scope else ''}{self.selector}{'.' + self.parameter if self.parameter else ''}"
        )


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as plain values: nothing is looked up or called while a file is read."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Ref:
        scope, _, selector = scoped_configurable_name.rpartition("/")
        return Ref(scope, selector, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def recipe_roots() -> list[Path]:
    """Where a `gin/` with recipes may lie: inside an installed wheel, beside the package in a checkout, and in installed plugins."""
    package = Path(__file__).resolve().parents[1]
    return [package, package.parent, *plugin_folders()]


def locate_recipe(file: str, beside: Path | None = None) -> Path | None:
    """A recipe's path: as given (or beside the including file), else in the package."""
    first = [beside / file] if beside else [Path(file)]
    packaged = [root / part for root in recipe_roots() for part in (file, f"gin/{file}")]
    return next((p for p in first + packaged if p.is_file()), None)


def packaged_recipes() -> list[str]:
    """The recipes that come with actkit, as `actkit run` takes them."""
    return sorted(
        {f"gin/{p.relative_to(root / 'gin')}" for root in recipe_roots() for p in (root / "gin").rglob("*.gin")}
    )


@dataclass
class Reader:
    """Reads files into bindings and imports; collects what is wrong with them."""

    bindings: list[Binding] = field(default_factory=list)
    imports: list[tuple[str, Place]] = field(default_factory=list)
    problems: list[InputError] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def read(self, path: Path, shown: str, including: tuple[Path, ...] = ()) -> None:
        if path in including:
            cycle = " -> ".join(p.name for p in (*including[including.index(path) :], path))
            raise InputError(f"include cycle: {cycle}", where=shown, help="remove one of the includes")
        self.files.append(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the config cannot be read: {error}", where=shown) from error
        for statement in self._statements(text, shown):
            place = Place(shown, statement.location.line_num, statement.location.line_content)
            if isinstance(statement, config_parser.IncludeStatement):
                included = locate_recipe(statement.filename, beside=path.parent)
                if included is None:
                    near = [p.name for p in path.parent.glob("*.gin")] + packaged_recipes()
                    self.problems.append(
                        InputError(
                            f"config file not found: {statement.filename}",
                            where=str(place), help=nearest(statement.filename, near, listing=False) or "it is looked for beside this file",
                        )
                    )  # fmt: skip
                else:
                    same = included.parent == path.parent
                    self.read(
                        included,
                        str(Path(shown).parent / statement.filename) if same else str(included),
                        (*including, path),
                    )
            elif isinstance(statement, config_parser.ImportStatement):
                self.imports.append((statement.module, place))
            elif isinstance(statement, config_parser.BindingStatement):
                self._bind(
                    statement.scope,
                    statement.selector,
                    statement.arg_name,
                    statement.value,
                    place,
                    stated=not including,
                )

    def _bind(
        self,
        scope: str,
        selector: str,
        parameter: str,
        value: Any,
        place: Place,
        *,
        stated: bool,
        override: bool = False,
    ) -> None:
        self.bindings.append(Binding(scope, selector, parameter, value, place, stated, override))

    def _statements(self, text: str, shown: str) -> Iterator[Any]:
        """The statements up to the first that gin's grammar refuses; that one becomes a problem."""
        parser = None
        try:
            parser = config_parser.ConfigParser(text, _Delegate())
            yield from parser
        except (SyntaxError, tokenize.TokenError, IndentationError) as error:
            self.problems.append(_syntax(error, text, shown))

    def override(self, setting: str) -> None:
        """One `-s KEY=VALUE`; a bare word is text."""
        key, equals, value = setting.partition("=")
        place = Place(f"--set {setting}")
        if not equals or not key.strip():
            raise InputError(f"--set needs KEY=VALUE, got {setting!r}", help="for example -s run.epochs=2")
        parsed = list(self._quietly(f"{key} = {value}"))
        if not parsed:
            parsed = list(self._quietly(f"{key} = {_literal(value)}"))
        if len(parsed) != 1 or not isinstance(parsed[0], config_parser.BindingStatement):
            raise InputError(
                f"--set cannot read {setting!r}",
                help="KEY is like run.epochs or natural/role.backbone; VALUE a number, word or list",
            )
        statement = parsed[0]
        self._bind(
            statement.scope, statement.selector, statement.arg_name, statement.value, place, stated=True, override=True
        )

    def _quietly(self, text: str) -> Iterator[Any]:
        try:
            yield from list(config_parser.ConfigParser(text, _Delegate()))
        except (SyntaxError, tokenize.TokenError):
            return


def _literal(value: str) -> str:
    words = {"true": "True", "false": "False", "none": "None"}
    return words.get(value.strip().lower(), repr(value.strip()))


def _syntax(error: Exception, text: str, shown: str) -> InputError:
    lines = text.splitlines()
    if isinstance(error, tokenize.TokenError):
        message, line = str(error.args[0]), error.args[1][0]
        reason = "a bracket or a quote is not closed" if "EOF" in message or "unterminated" in message else message
        return InputError(
            f"syntax error: {reason}", where=str(Place(shown, line, lines[line - 1] if line <= len(lines) else ""))
        )
    assert isinstance(error, SyntaxError)
    line = error.lineno or 0
    written = lines[line - 1] if 0 < line <= len(lines) else (error.text or "")
    right = written.partition("=")[2].split("#")[0].strip()
    reason, help = (error.msg or "").split("\n")[0], None
    if re.fullmatch(r"-?[\d.]+\s*/\s*[\d.]+", right):
        reason, help = (
            "unexpected text after the value",
            f"gin has no arithmetic; write the number, or the fraction in quotes: '{right}'",
        )
    elif re.fullmatch(r"-?[\d.]+\s*[*+-].*", right):
        reason, help = "unexpected text after the value", "gin has no arithmetic; write the number"
    elif "malformed node" in reason:
        if right.lower() in ("true", "false", "none"):
            help = f"write {right.capitalize()}"
        else:
            help = f"write text in quotes: '{right}'"
        reason = f"cannot read the value {right!r}"
    elif "unterminated string" in reason or (
        "Unable to parse" in reason and (right.count("'") % 2 or right.count('"') % 2)
    ):
        reason = "a quote is not closed"
    elif "expected ':' or '='" in reason:
        help = "a line is  name.parameter = value,  include '...'  or  import ..."
    return InputError(f"syntax error: {reason}", where=str(Place(shown, line, written)), help=help)


def first_sentence(recipe: str) -> str:
    """The first sentence of a recipe's opening comment."""
    path = locate_recipe(recipe)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return re.split(r"(?<=[.:]) ", " ".join(comment))[0].rstrip(":")

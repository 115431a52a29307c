"""Recipes: gin files in, Specs out. The only module that knows gin.

gin is the language and its parser reads it; what a binding means is worked out here, in one walk from `run`, by gin's own rules
(scopes, references, macros; `tests/test_config.py` compares the two). gin's engine is left out because it keeps one global store, stops at
the first mistake, forgets where a value came from, and imports and calls things while a file is read. Here all mistakes of a
recipe are told at once, with file and line, and nothing is called.
"""

from __future__ import annotations

import ast
import importlib.util  # noqa: F401  gin 0.5.0 uses it without importing it
import inspect
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from actkit import registry
from actkit.errors import InputError, InputErrors, nearest
from actkit.spec import Spec, amount
from gin import config_parser

ROOT, ROLE, STUDY = "run", "role", "study"
ATTACK_SCOPES = ("train", "eval")  # so that a training setting can never leak into an evaluation


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


@dataclass
class Recipe:
    """A recipe that was read: its Spec, and what a user may want to know of the reading.

    `text` is one gin file that says the same: what was used, in complete selectors.
    """

    spec: Spec
    source: str
    text: str
    warnings: list[str] = field(default_factory=list)
    origins: dict[str, Place] = field(default_factory=dict)


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as plain values: nothing is looked up or called while a file is read."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Ref:
        scope, _, selector = scoped_configurable_name.rpartition("/")
        return Ref(scope, selector, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


# -- files -------------------------------------------------------------------------------------------------------------


def roots() -> list[Path]:
    """Where a `gin/` with recipes may lie: inside an installed wheel, beside the package in a checkout, and in installed plugins."""
    package = Path(__file__).resolve().parent
    return [package, package.parent, *registry.plugin_folders()]


def locate(file: str, beside: Path | None = None) -> Path | None:
    """A recipe's path: as given (or beside the including file), else in the package."""
    first = [beside / file] if beside else [Path(file)]
    packaged = [root / part for root in roots() for part in (file, f"gin/{file}")]
    return next((p for p in first + packaged if p.is_file()), None)


def packaged() -> list[str]:
    """The recipes that come with actkit, as `actkit run` takes them."""
    return sorted({f"gin/{p.relative_to(root / 'gin')}" for root in roots() for p in (root / "gin").rglob("*.gin")})


@dataclass
class _Reader:
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
                included = locate(statement.filename, beside=path.parent)
                if included is None:
                    near = [p.name for p in path.parent.glob("*.gin")] + packaged()
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


# -- meaning -----------------------------------------------------------------------------------------------------------


class _Resolver:
    """Turns bindings into the Spec of `run`, by gin's rules: an unscoped binding serves every scope; a scoped one wins in its own, and
    `eval/long` has what `eval` has, and more; a reference with a scope replaces the scope it stands in, one without inherits it."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self.problems: list[InputError] = []
        self.used: set[tuple[str, str, str]] = set()
        self.macros: dict[str, Binding] = {}
        self.table: dict[tuple[str, str, str], Binding] = {}
        self.referred: set[str] = set()  # scopes that references name, also those overridden later
        self._open: list[str] = []
        for binding in bindings:
            self._enter(binding)

    def problem(self, message: str, place: Place | None, help: str | None = None) -> None:
        self.problems.append(InputError(message, where=str(place) if place else None, help=help))

    def _enter(self, binding: Binding) -> None:
        self.referred |= _scopes_in(binding.value)
        if not binding.parameter:
            if binding.scope:
                self.problem(
                    f"a macro has no scope: {binding.scope}/{binding.selector}",
                    binding.place,
                    "macros are the same in every scope",
                )
            self.macros[binding.selector] = binding
            return
        if binding.scope.count("/") > 1:
            self.problem(f"scopes nest two deep here: {binding.scope}", binding.place, "leave one out")
            return
        try:
            entry = registry.get(binding.selector)
        except InputError as error:
            self.problem(error.message, binding.place, error.help)
            return
        if binding.parameter not in entry.parameters:
            self.problem(
                f"{entry.selector!r} has no parameter {binding.parameter!r}",
                binding.place,
                nearest(binding.parameter, entry.parameters),
            )
            return
        if entry.kind == "attack" and _outermost(binding.scope) not in ATTACK_SCOPES:
            wanted = " or ".join(f"{scope}/{entry.selector}.{binding.parameter}" for scope in ATTACK_SCOPES)
            self.problem(
                f"an attack's settings stand in the scope train or eval, not {binding.scope or 'unscoped'}",
                binding.place,
                f"write {wanted}",
            )
            return
        complete = Binding(
            binding.scope,
            entry.selector,
            binding.parameter,
            binding.value,
            binding.place,
            binding.stated,
            binding.override,
        )
        self.table[complete.scope, complete.selector, complete.parameter] = complete

    def bound(self, selector: str, scope: str) -> dict[str, Binding]:
        parts = scope.split("/") if scope else []
        found: dict[str, Binding] = {}
        for depth in range(len(parts) + 1):
            within = "/".join(parts[:depth])
            found |= {p: b for (s, sel, p), b in self.table.items() if sel == selector and s == within}
        return found

    def spec(self, selector: str, scope: str, place: Place | None, owner: str = "") -> Spec | None:
        """The component `selector` in a scope, all below it included; None when it is not known (the problem is noted).

        `owner` is the kind of component that it is a parameter of.
        """
        try:
            entry = registry.get(selector)
        except InputError as error:
            self.problem(error.message, place, error.help)
            return None
        if entry.kind == "attack" and _outermost(scope) not in ATTACK_SCOPES:
            self.problem(
                f"{entry.selector} is used outside the scopes train and eval",
                place,
                f"write @train/{selector}() or @eval/{selector}()",
            )
            return None
        proper = "eval" if owner == "probe" else "train"
        if entry.kind == "attack" and owner in ("probe", "objective") and _outermost(scope) != proper:
            self.problem(
                f"{owner}s take their attack from the scope {proper}, not {_outermost(scope)}",
                place,
                f"write @{proper}/{selector}()",
            )
            return None
        frame = f"{scope}/{selector}"
        if frame in self._open:
            self.problem(f"{selector} contains itself", place)
            return None
        self._open.append(frame)
        kwargs: dict[str, Any] = {}
        places: dict[str | None, Place | None] = {None: place}
        for name, binding in self.bound(entry.selector, scope).items():
            self.used.add((binding.scope, binding.selector, binding.parameter))
            wants = entry.parameters[name].wants
            problems = len(self.problems)
            kwargs[name] = self.value(binding.value, scope, binding.place, wants, entry.kind)
            if len(self.problems) > problems:
                kwargs.pop(name)  # told already
                places[name] = None
            else:
                places[name] = binding.place
        self._open.pop()
        label = scope.rpartition("/")[2] if entry.kind == "probe" else ""
        spec = Spec(entry.kind, entry.name, dict(sorted(kwargs.items())), label)
        for parameter, wrong in spec.problems():
            missing = parameter is None
            if missing and any(f"{name!r}" in wrong.message for name, at in places.items() if name and at is None):
                continue
            if not (missing and selector == ROLE):
                self.problem(wrong.message, places.get(parameter), wrong.help)
        return spec

    def value(self, value: Any, scope: str, place: Place, wants: tuple[str, ...], owner: str) -> Any:
        if isinstance(value, Macro):
            return self._macro(value, scope, place, wants, owner)
        if isinstance(value, Ref):
            if not value.called:
                self.problem(f"{value!r} is not called", place, f"write {value!r}()")
                return None
            if value.scope.count("/") > 1:
                self.problem(f"scopes nest two deep here: {value.scope}", place, "leave one out")
                return None
            return self.spec(value.selector, value.scope or scope, place, owner)
        if isinstance(value, str) and len(wants) == 1:  # `-s run.data=digits`: a component by its bare name
            kind = wants[0]
            inner = ("eval" if owner == "probe" else "train") if kind == "attack" else scope
            return self.spec(value if value.startswith(f"{kind}.") else f"{kind}.{value}", inner, place, owner)
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(item, scope, place, wants, owner) for item in value)
        if isinstance(value, dict):
            return {k: self.value(v, scope, place, (), owner) for k, v in value.items()}
        return value

    def _macro(self, macro: Macro, scope: str, place: Place, wants: tuple[str, ...], owner: str) -> Any:
        if macro.name == "gin.REQUIRED":
            self.problem("a value must be given here", place, "bind it in the recipe or with -s")
            return None
        if macro.name not in self.macros:
            self.problem(
                f"there is no macro %{macro.name}",
                place,
                nearest(macro.name, self.macros) or f"define it: {macro.name} = ...",
            )
            return None
        binding = self.macros[macro.name]
        self.used.add(("", macro.name, ""))
        if f"%{macro.name}" in self._open:
            self.problem(f"the macro %{macro.name} is defined by itself", place)
            return None
        self._open.append(f"%{macro.name}")
        found = self.value(binding.value, scope, binding.place, wants, owner)
        self._open.pop()
        return found


def load(
    file: str,
    overrides: Iterable[str] = (),
    *,
    plugins: Iterable[str] = (),
    trust: bool = False,
) -> Recipe:
    """Read a recipe.

    Args:
        file: a path, or the name of a packaged recipe such as 'gin/act_cifar10.gin'.
        overrides: 'KEY=VALUE', applied after the file, the last one winning.
        plugins: folders whose modules are loaded, and may be imported by the recipe.
        trust: allow the recipe to import any module.

    Raises `InputError`, or `InputErrors` with everything that is wrong with the recipe.
    """
    resolver, imports = _read(file, overrides, plugins, trust)
    spec = _root(resolver, Place(file))
    warnings = [*_unused(resolver), *_long_steps(spec)] if spec else []
    if resolver.problems or spec is None:
        raise together(resolver.problems)
    text, origins = _dump(resolver, imports)
    return Recipe(spec, _called(locate(file)), text, warnings, origins)


def _called(path: Path | None) -> str:
    """A recipe's path for a result file: a packaged one by the name that it has on every machine."""
    for root in sorted(
        roots(), key=lambda root: -len(root.parts)
    ):  # a plugin's folder lies in site-packages, which is a root too
        if path is not None and path.is_absolute() and path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def _read(
    file: str, overrides: Iterable[str], plugins: Iterable[str], trust: bool
) -> tuple[_Resolver, list[tuple[str, Place]]]:
    """A recipe's bindings, plugins loaded; and its imports."""
    path = locate(file)
    if path is None:
        near = [str(p) for p in (Path(file).parent.glob("*.gin") if Path(file).parent.is_dir() else [])] + packaged()
        raise InputError(
            f"config file not found: {file}",
            help=nearest(file, near, listing=False) or "`actkit list recipes` shows the packaged ones",
        )
    reader = _Reader()
    reader.read(path.resolve(), file)
    for setting in overrides:
        reader.override(setting)
    _import(reader.imports, [Path(p) for p in plugins], trust)
    resolver = _Resolver(reader.bindings)
    resolver.problems[:0] = reader.problems
    if reader.problems:  # what follows would be guesses about half a recipe
        raise together(resolver.problems)
    return resolver, reader.imports


def together(problems: list[InputError]) -> InputError:
    """One error of several, each told once."""
    unique = list({str(problem): problem for problem in problems}.values())
    return unique[0] if len(unique) == 1 else InputErrors(unique)


def _root(resolver: _Resolver, place: Place) -> Spec | None:
    """`run`, and under it one `role` for each role of its objective, in the scope of that name."""
    spec = resolver.spec(ROOT, "", place)
    if spec is None or "objective" not in spec.kwargs or not isinstance(spec.kwargs["objective"], Spec):
        return None
    try:
        names = spec.kwargs["objective"].build().roles
    except InputError as error:
        if not resolver.problems:
            resolver.problem(error.message, place, error.help)
        return None
    known = {*names, *ATTACK_SCOPES, *resolver.referred, *map(_outermost, resolver.referred)}
    for scope in dict.fromkeys(b.scope for b in resolver.table.values()):
        if scope and scope not in known:
            first = next(b for b in resolver.table.values() if b.scope == scope)
            objective = spec.kwargs["objective"].selector
            others = any(scope in registry.get(e.selector).positional for e in registry.entries("objective"))
            if others and first.selector == ROLE:
                resolver.problem(
                    f"{objective} has no role {scope!r}, only {' and '.join(names)}",
                    first.place,
                    "remove the line, or choose another objective",
                )
            else:
                resolver.problem(f"nothing is in the scope {scope!r}", first.place, nearest(scope, known))
    roles = {}
    for name in names:
        role = resolver.spec(ROLE, name, place)
        if role is not None and "backbone" not in role.kwargs:
            if not any("role.backbone" in str(p) for p in resolver.problems):
                resolver.problem(
                    f"{spec.kwargs['objective'].selector} needs the role {name!r}, and the recipe says nothing of it",
                    place, f"add  role.backbone = @backbone.resnet18()  for every role, or  {name}/role.backbone = ...",
                )  # fmt: skip
        elif role is not None:
            roles[name] = role
    return spec.replace(roles=roles)


def _outermost(scope: str) -> str:
    return scope.partition("/")[0]


def _scopes_in(value: Any) -> set[str]:
    if isinstance(value, Ref):
        return {value.scope} - {""}
    inner = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else ()
    return {scope for item in inner for scope in _scopes_in(item)}


def _long_steps(spec: Spec) -> list[str]:
    """A step of more than twice eps reaches a corner of the ball from anywhere in it: as ImageNet's literal 1.0 does, or a step in grey levels."""
    found: dict[str, dict[str, None]] = {}

    def look(value: Any, owner: str) -> None:
        if isinstance(value, Spec):
            eps, step = amount(value.get("eps")), amount(value.get("step_size"))
            if value.kind == "attack" and eps and step and value.get("norm") == "linf" and step > 2 * eps:
                found.setdefault(f"{value.selector} has a step_size of {step} with eps {eps}", {})[owner] = None
            owner = {"probe": value.title, "objective": value.selector}.get(value.kind, owner)
            for inner in value.kwargs.values():
                look(inner, owner)
        elif isinstance(value, (list, tuple, dict)):
            for inner in value.values() if isinstance(value, dict) else value:
                look(inner, owner)

    look(spec, "")
    return [
        f"{said} in {', '.join(owners)}: it lands on a corner of the box at every step"
        for said, owners in found.items()
    ]


def _unused(resolver: _Resolver) -> list[str]:
    """Bindings that nothing uses. What an include offers may go unused; so may what an override has swapped away."""
    swapped = any(
        b.override and registry.get(b.selector).parameters[b.parameter].wants for b in resolver.table.values()
    )
    warnings = []
    for key, binding in resolver.table.items():
        if key[1] == STUDY:
            continue
        if key not in resolver.used and binding.stated and (binding.override or not swapped):
            warnings.append(f"{binding.key} is set but nothing uses it\n  --> {binding.place}")
    for name, binding in resolver.macros.items():
        if ("", name, "") not in resolver.used and binding.stated:
            warnings.append(f"the macro {name} is set but nothing uses it\n  --> {binding.place}")
    return warnings


def _import(imports: list[tuple[str, Place]], plugins: list[Path], trust: bool) -> None:
    """Check all imports of a recipe against the allow-list, then do them: plugin folders first."""
    folders = {folder.resolve().name for folder in plugins}
    allowed = registry.installed_plugin_modules() | folders | {"actkit"}
    problems = []
    for module, place in imports:
        if module.startswith("__gin__"):
            problems.append(
                InputError(
                    "gin's dynamic registration is not used here",
                    where=str(place),
                    help="register components with @register",
                )
            )
        elif not trust and module.partition(".")[0] not in allowed:
            problems.append(
                InputError(
                    f"this recipe would import {module!r}, which can run any code, and it is no installed plugin",
                    where=str(place), help="look at it; then --trust allows it, or give its folder with --plugins",
                )
            )  # fmt: skip
    if problems:
        raise together(problems)
    registry.load_builtins()
    for folder in plugins:
        registry.load_folder(folder)
    for module, place in imports:
        registry.load_module(module, where=str(place))


# -- writing -----------------------------------------------------------------------------------------------------------


def _dump(resolver: _Resolver, imports: list[tuple[str, Place]]) -> tuple[str, dict[str, Place]]:
    """One gin file that says the same, what nothing uses left out; and where each line came from."""
    used = [b for key, b in resolver.table.items() if key in resolver.used]
    macros = [b for name, b in resolver.macros.items() if ("", name, "") in resolver.used]
    used.sort(key=lambda b: (b.selector != ROOT, b.selector != ROLE, b.selector, b.scope, b.parameter))
    lines, origins = [f"import {module}" for module, _ in imports], {}
    for binding in [*macros, *used]:
        line = f"{binding.key} = {_gin(binding.value)}"
        lines.append(line)
        origins[line] = binding.place
    return "\n".join(lines) + "\n", origins


def _gin(value: Any) -> str:
    if isinstance(value, (Ref, Macro)):
        return repr(Ref(value.scope, registry.get(value.selector).selector) if isinstance(value, Ref) else value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_gin, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_gin, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_gin(v)}" for k, v in value.items()) + "}"
    assert ast.literal_eval(repr(value)) == value
    return repr(value)


def flat(spec: Spec, prefix: str = "") -> dict[str, Any]:
    """Every setting of a Spec by its path, defaults included: what a comparison looks at."""
    found: dict[str, Any] = {prefix or spec.selector: spec.selector}
    prefix = prefix or spec.selector
    for name, parameter in spec.entry.parameters.items():
        value = spec.kwargs.get(name, parameter.default)
        if value is inspect.Parameter.empty:
            continue
        items = {"": value}
        if isinstance(value, (list, tuple)) and any(isinstance(v, Spec) for v in value):
            items = {f"[{v.label or i}]" if isinstance(v, Spec) else f"[{i}]": v for i, v in enumerate(value)}
        elif isinstance(value, dict) and any(isinstance(v, Spec) for v in value.values()):
            items = {f".{k}": v for k, v in value.items()}
        for suffix, item in items.items():
            path = f"{prefix}.{name}{suffix}"
            found |= (
                flat(item, path) if isinstance(item, Spec) else {path: list(item) if isinstance(item, tuple) else item}
            )
    return found


def diff(a: Spec, b: Spec) -> list[tuple[str, Any, Any]]:
    """The settings in which two Specs differ: (path, a's value, b's value); '-' where one has none."""
    left, right = flat(a), flat(b)
    return [
        (path, left.get(path, "-"), right.get(path, "-"))
        for path in dict.fromkeys([*left, *right])
        if not _same(left.get(path, "-"), right.get(path, "-"))
    ]


def canonical(value: Any) -> Any:
    """A setting's value so that '8/255' and 0.03137..., 1 and 1.0 are one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError, OverflowError):
        return value


def _same(a: Any, b: Any) -> bool:
    return bool(a == b or canonical(a) == canonical(b))


def override_spec(spec: Any, settings: Iterable[str]) -> Any:
    """Apply 'kind.name.parameter=VALUE' to every Spec of that name below `spec` (a Spec, list or dict), for a checkpoint's own.

    A scope says at which probe, by its label: `pgd100/probe.robust_accuracy.starts=1`, `pgd100/attack.pgd.steps=50`; `eval/` says nothing.
    """
    reader = _Reader()
    for setting in settings:
        reader.override(setting)
    for binding in reader.bindings:
        if _outermost(binding.scope) == "train":
            raise InputError(
                f"--set {binding.key}: the scope train is that of training, and nothing is trained here",
                help=f"write {binding.selector}.{binding.parameter}",
            )
        if not binding.parameter:
            raise InputError(
                f"--set {binding.selector}: a stored evaluation has no macros", help="name the parameters themselves"
            )
        entry = registry.get(binding.selector, where="--set")
        if binding.parameter not in entry.parameters:
            raise InputError(
                f"{entry.selector!r} has no parameter {binding.parameter!r}",
                where=f"--set {binding.key}", help=nearest(binding.parameter, entry.parameters),
            )  # fmt: skip
        spec, seen = _overridden(spec, binding, entry)
        if not seen:
            raise InputError(
                f"there is no {entry.selector} here for --set {binding.key}",
                where="--set", help="a scope names a probe by its label; --probe chooses another",
            )  # fmt: skip
    return spec


def _overridden(spec: Any, binding: Binding, entry: registry.Entry) -> tuple[Any, bool]:
    """The same with a binding applied, and whether anything took it."""
    label = next((part for part in reversed(binding.scope.split("/")) if part not in ("", *ATTACK_SCOPES)), "")
    seen = False

    def changed(value: Any, inside: bool) -> Any:
        nonlocal seen
        if isinstance(value, Spec):
            inside = inside or (value.kind == "probe" and value.title == label)
            kwargs = {k: changed(v, inside) for k, v in value.kwargs.items()}
            if value.selector == entry.selector and inside:
                seen = True
                kwargs[binding.parameter] = _component(
                    binding.value, entry.parameters[binding.parameter].wants, kwargs.get(binding.parameter)
                )
            return Spec(value.kind, value.name, kwargs, value.label)
        if isinstance(value, (list, tuple)):
            return [changed(v, inside) for v in value]
        return {k: changed(v, inside) for k, v in value.items()} if isinstance(value, dict) else value

    return changed(spec, not label), seen


def _component(value: Any, wants: tuple[str, ...], before: Any) -> Any:
    """A component by its bare name or as a reference; it keeps those settings of the one before that it has too."""
    name = value.selector if isinstance(value, Ref) else value
    if not (isinstance(name, str) and len(wants) == 1):
        return value
    entry = registry.get(name if name.startswith(f"{wants[0]}.") else f"{wants[0]}.{name}", where="--set")
    kept = before.kwargs if isinstance(before, Spec) else {}
    return Spec(entry.kind, entry.name, {k: v for k, v in kept.items() if k in entry.parameters})


def load_evaluation(
    file: str, overrides: Iterable[str] = (), *, plugins: Iterable[str] = (), trust: bool = False
) -> list[Spec]:
    """The probes in a recipe's `run.evaluation`, the rest of it left aside. Raises `InputError` as `load` does."""
    return list(_parts(file, overrides, plugins, trust, {"evaluation": "probe"}, {})["evaluation"])


def load_setting(
    file: str, overrides: Iterable[str] = (), *, backbone: str, plugins: Iterable[str] = (), trust: bool = False
) -> dict[str, Any]:
    """'data' and 'evaluation' of a recipe, and as 'backbone' the component of that name with the settings it has there.

    For a model that no recipe trained. Raises `InputError` as `load` does.
    """
    wanted = {"data": "dataset", "evaluation": "probe"}
    return _parts(file, overrides, plugins, trust, wanted, {"backbone": Ref("", f"backbone.{backbone}")})


def load_study(
    file: str, overrides: Iterable[str] = (), *, plugins: Iterable[str] = (), trust: bool = False
) -> Spec | None:
    """What a recipe binds of `study`, or None when it binds nothing. Raises `InputError` as `load` does."""
    resolver, _ = _read(file, overrides, plugins, trust)
    if not any(selector == STUDY for _, selector, _ in resolver.table):
        return None
    spec = resolver.spec(STUDY, "", Place(file))
    if resolver.problems or spec is None:
        raise together(resolver.problems)
    return spec


def _parts(
    file: str,
    overrides: Iterable[str],
    plugins: Iterable[str],
    trust: bool,
    wanted: Mapping[str, str],
    named: Mapping[str, Ref],
) -> dict[str, Any]:
    """Some parameters of a recipe's `run`, by name and kind, and other components resolved in it; the rest is left aside."""
    resolver, _ = _read(file, overrides, plugins, trust)
    found = {}
    for name, kind in wanted.items():
        binding = resolver.table.get(("", ROOT, name))
        if binding is None:
            raise together([*resolver.problems, InputError(f"the recipe has no run.{name}", where=file)])
        found[name] = resolver.value(binding.value, "", binding.place, (kind,), "")
    for name, ref in named.items():
        found[name] = resolver.spec(ref.selector, ref.scope, None)
    if resolver.problems:
        raise together(resolver.problems)
    return found


def about(recipe: str) -> str:
    """The first sentence of a recipe's opening comment."""
    path = locate(recipe)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return re.split(r"(?<=[.:]) ", " ".join(comment))[0].rstrip(":")

"""A recipe's bindings as a table: by scope, component and parameter, each checked against what the component takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from actkit.config import registry
from actkit.config.reader import Binding, Macro, Ref
from actkit.errors import InputError, nearest

T = TypeVar("T", Ref, Macro)

# An attack's settings stand in one of these, so that a training setting can never leak into an evaluation.
ATTACK_SCOPES = ("train", "eval")

# Scope, complete selector, parameter.
Key = tuple[str, str, str]


class Table:
    """What is bound, the last binding of each key winning; what fits no component is among the `problems`.

    `referenced` are the scopes that references name, also those of bindings that a later one replaces; `known_macros` those that a file defines
    or some value names.
    """

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self.bindings: dict[Key, Binding] = {}
        self.macros: dict[str, Binding] = {}
        self.referenced: set[str] = set()
        self.known_macros: set[str] = set()
        self.problems: list[InputError] = []
        for binding in bindings:
            self.referenced |= {ref.scope for ref in _inside(binding.value, Ref)} - {""}
            self.known_macros |= macros_in(binding.value)
            if not binding.parameter and not binding.override:
                self.known_macros.add(binding.selector)
            try:
                self._add(binding)
            except InputError as error:
                self.problems.append(error.at(binding.place))

    def _add(self, binding: Binding) -> None:
        assert_finite(binding.value)
        if not binding.parameter:
            self.macros[binding.selector] = binding
            if binding.scope:
                raise InputError(
                    f"a macro has no scope: {binding.scope}/{binding.selector}",
                    help="macros are the same in every scope",
                )
            return
        assert_shallow(binding.scope)
        entry = registry.get(binding.selector)
        entry.assert_parameter(binding.parameter)
        if entry.kind == "attack" and not is_attack_scope(binding.scope):
            wanted = " or ".join(f"{scope}/{entry.selector}.{binding.parameter}" for scope in ATTACK_SCOPES)
            raise InputError(
                f"an attack's settings stand in the scope train or eval, not {binding.scope or 'unscoped'}",
                help=f"write {wanted}",
            )
        self.bindings[binding.scope, entry.selector, binding.parameter] = replace(binding, selector=entry.selector)

    def bound(self, selector: str, scope: str) -> dict[str, Binding]:
        """What serves a component in a scope, by parameter: an unscoped binding serves every scope, a scoped one wins in its own."""
        parts = scope.split("/") if scope else []
        found: dict[str, Binding] = {}
        for depth in range(len(parts) + 1):
            within = "/".join(parts[:depth])
            found |= {p: b for (s, sel, p), b in self.bindings.items() if sel == selector and s == within}
        return found

    def unknown_macros(self) -> Iterator[InputError]:
        """Macros given from outside, by `-s` or a study, that no file defines and no value names: misspelt."""
        choices = {*self.known_macros, *(binding.key for binding in self.bindings.values())}
        for name, binding in self.macros.items():
            if binding.override and name not in self.known_macros:
                said = nearest(name, choices, listing=False) or nearest(name, self.known_macros)
                wrong = InputError(f"nothing uses a macro {name!r}", help=said or "a setting is like run.epochs=2")
                yield wrong.at(binding.place)

    def macro(self, name: str) -> Binding:
        """What `%name` stands for. Raises `InputError`."""
        if name == "gin.REQUIRED":
            raise InputError("a value must be given here", help="bind it in the recipe or with -s")
        if name not in self.macros:
            raise InputError(
                f"there is no macro %{name}", help=nearest(name, self.macros) or f"define it: {name} = ..."
            )
        return self.macros[name]


def is_attack_scope(scope: str) -> bool:
    return outermost(scope) in ATTACK_SCOPES


def outermost(scope: str) -> str:
    return scope.partition("/")[0]


def assert_shallow(scope: str) -> None:
    """Raise `InputError` for a scope inside a scope inside a scope."""
    if scope.count("/") > 1:
        raise InputError(f"scopes nest two deep here: {scope}", help="leave one out")


def assert_finite(value: Any) -> None:
    """Raise `InputError` for a number, at any depth, that is not finite: 1e999 reads as infinity."""
    inner = value if isinstance(value, (list, tuple)) else [*value, *value.values()] if isinstance(value, dict) else ()
    for item in inner:
        assert_finite(item)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"a number must be finite, this one is {value}", help="write one below 1.8e308")


def macros_in(value: Any) -> set[str]:
    """The names of the macros in a value, at any depth."""
    return {macro.name for macro in _inside(value, Macro)}


def _inside(value: Any, what: type[T]) -> Iterator[T]:
    """Every reference, or macro, in a value at any depth."""
    if isinstance(value, what):
        yield value
    inner = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else ()
    for item in inner:
        yield from _inside(item, what)

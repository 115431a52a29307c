"""What bindings mean: Specs, by gin's own rules for scopes, references and macros; every problem with its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from actkit.config import registry
from actkit.config.bindings import ATTACK_SCOPES, Key, Table, assert_shallow, is_attack_scope, outermost
from actkit.config.reader import Binding, Macro, Place, Ref
from actkit.config.spec import Spec, amount
from actkit.errors import InputError, nearest

ROOT, ROLE, STUDY = "run", "role", "study"


@dataclass(frozen=True)
class Slot:
    """Where a value stands: in which scope, where it is written, which kinds of component may stand there, and the kind that it is a parameter of."""

    scope: str
    place: Place | None
    kinds: tuple[str, ...] = ()
    owner: str = ""


class Resolver:
    """Makes Specs of a table's bindings, by gin's rules: an unscoped binding serves every scope; a scoped one wins in its own, and
    `eval/long` has what `eval` has, and more; a reference with a scope replaces the scope it stands in, one without inherits it.

    `used` are the bindings that some Spec took; `problems` begin with the table's own.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.problems: list[InputError] = list(table.problems)
        self.used: set[Key] = set()
        # What is being resolved, from the outside in: what comes up again inside itself would never end.
        self._entered: list[str] = []

    def problem(self, message: str, place: Place | None, help: str | None = None) -> None:
        self.problems.append(InputError(message, help=help).at(place))

    def spec(self, selector: str, slot: Slot) -> Spec | None:
        """The component `selector`, all below it included; None when it cannot stand there (the problem is noted)."""
        try:
            entry = registry.get(selector)
            _assert_scope_of_attack(entry, selector, slot)
            with self._entering(f"{slot.scope}/{selector}", f"{selector} contains itself"):
                return self._filled(entry, slot)
        except InputError as error:
            self.problems.append(error.at(slot.place))
            return None

    def _filled(self, entry: registry.Entry, slot: Slot) -> Spec:
        """The Spec with what is bound for it in its scope, checked."""
        kwargs: dict[str, Any] = {}
        # The place of each parameter, to say where a wrong value stands; None where its value is a problem already.
        places: dict[str | None, Place | None] = {None: slot.place}
        for name, binding in self.table.bound(entry.selector, slot.scope).items():
            self.used.add((binding.scope, binding.selector, binding.parameter))
            before = len(self.problems)
            value = self.value(binding.value, Slot(slot.scope, binding.place, entry.parameters[name].wants, entry.kind))
            places[name] = None
            if len(self.problems) == before:
                kwargs[name], places[name] = value, binding.place
        label = slot.scope.rpartition("/")[2] if entry.kind == "probe" else ""
        spec = Spec(entry.kind, entry.name, dict(sorted(kwargs.items())), label)
        for parameter, wrong in spec.problems():
            missing = parameter is None
            if missing and any(f"{name!r}" in wrong.message for name, at in places.items() if name and at is None):
                continue
            # What a role lacks is reported once, of the roles together.
            if not (missing and entry.selector == ROLE):
                self.problems.append(wrong.at(places.get(parameter)))
        return spec

    def value(self, value: Any, slot: Slot) -> Any:
        """A value with its references and macros resolved; None for what cannot be (the problem is noted)."""
        if isinstance(value, Macro):
            return self._macro(value, slot)
        if isinstance(value, Ref):
            return self._reference(value, slot)
        if isinstance(value, str) and len(slot.kinds) == 1:
            # `-s run.data=digits`: a component by its bare name, which may have a scope: 'pgd20/robust_accuracy'.
            kind = slot.kinds[0]
            scope, _, name = value.rpartition("/")
            inner = _scope_for_attacks_of(slot.owner) if kind == "attack" else slot.scope
            selector = name if name.startswith(f"{kind}.") else f"{kind}.{name}"
            return self.spec(selector, replace(slot, scope=scope or inner))
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(item, slot) for item in value)
        if isinstance(value, dict):
            return {k: self.value(v, replace(slot, kinds=())) for k, v in value.items()}
        return value

    def _reference(self, ref: Ref, slot: Slot) -> Spec | None:
        try:
            if not ref.called:
                raise InputError(f"{ref!r} is not called", help=f"write {ref!r}()")
            assert_shallow(ref.scope)
        except InputError as error:
            self.problems.append(error.at(slot.place))
            return None
        return self.spec(ref.selector, replace(slot, scope=ref.scope or slot.scope))

    def _macro(self, macro: Macro, slot: Slot) -> Any:
        try:
            binding = self.table.macro(macro.name)
            self.used.add(("", macro.name, ""))
            with self._entering(f"%{macro.name}", f"the macro %{macro.name} is defined by itself"):
                return self.value(binding.value, replace(slot, place=binding.place))
        except InputError as error:
            self.problems.append(error.at(slot.place))
            return None

    @contextlib.contextmanager
    def _entering(self, what: str, otherwise: str) -> Iterator[None]:
        if what in self._entered:
            raise InputError(otherwise)
        self._entered.append(what)
        try:
            yield
        finally:
            self._entered.pop()


def _scope_for_attacks_of(owner: str) -> str:
    return "eval" if owner == "probe" else "train"


def _assert_scope_of_attack(entry: registry.Entry, selector: str, slot: Slot) -> None:
    if entry.kind != "attack":
        return
    if not is_attack_scope(slot.scope):
        raise InputError(
            f"{entry.selector} is used outside the scopes train and eval",
            help=f"write @train/{selector}() or @eval/{selector}()",
        )
    proper = _scope_for_attacks_of(slot.owner)
    if slot.owner in ("probe", "objective") and outermost(slot.scope) != proper:
        raise InputError(
            f"{slot.owner}s take their attack from the scope {proper}, not {outermost(slot.scope)}",
            help=f"write @{proper}/{selector}()",
        )


def resolve_root(resolver: Resolver, place: Place) -> Spec | None:
    """`run`, and under it one `role` for each role of its objective, in the scope of that name."""
    spec = resolver.spec(ROOT, Slot("", place))
    objective = spec.kwargs.get("objective") if spec else None
    if spec is None or not isinstance(objective, Spec):
        return None
    try:
        names = objective.build().roles
    except InputError as error:
        if not resolver.problems:
            resolver.problems.append(error.at(place))
        return None
    _note_unknown_scopes(resolver, objective, names)
    roles = {}
    for name in names:
        role = resolver.spec(ROLE, Slot(name, place))
        if role is not None and "backbone" in role.kwargs:
            roles[name] = role
        elif role is not None and not any("role.backbone" in str(p) for p in resolver.problems):
            resolver.problem(
                f"{objective.selector} needs the role {name!r}, and the recipe says nothing of it",
                place,
                f"add  role.backbone = @backbone.resnet18()  for every role, or  {name}/role.backbone = ...",
            )
    return spec.replace(roles=roles)


def _note_unknown_scopes(resolver: Resolver, objective: Spec, roles: tuple[str, ...]) -> None:
    """A scope is a role's name, train, eval, or one that a reference names."""
    table = resolver.table
    known = {*roles, *ATTACK_SCOPES, *table.referenced, *map(outermost, table.referenced)}
    first_in: dict[str, Binding] = {}
    for binding in table.bindings.values():
        first_in.setdefault(binding.scope, binding)
    for scope, first in first_in.items():
        if not scope or scope in known:
            continue
        others = any(scope in entry.positional for entry in registry.entries("objective"))
        if others and first.selector == ROLE:
            resolver.problem(
                f"{objective.selector} has no role {scope!r}, only {' and '.join(roles)}",
                first.place,
                "remove the line, or choose another objective",
            )
        else:
            resolver.problem(f"nothing is in the scope {scope!r}", first.place, nearest(scope, known))


def long_steps(spec: Spec) -> list[str]:
    """A step of more than twice eps reaches a corner of the ball from anywhere in it: as ImageNet's literal 1.0 does, or a step in grey levels."""
    owners_of: dict[str, dict[str, None]] = {}
    for attack, owner in _attacks_in(spec, ""):
        eps, step = amount(attack.get("eps")), amount(attack.get("step_size"))
        if eps and step and attack.get("norm") == "linf" and step > 2 * eps:
            owners_of.setdefault(f"{attack.selector} has a step_size of {step} with eps {eps}", {})[owner] = None
    return [
        f"{step} in {', '.join(owners)}: it lands on a corner of the box at every step"
        for step, owners in owners_of.items()
    ]


def _attacks_in(value: Any, owner: str) -> Iterator[tuple[Spec, str]]:
    """Every attack below a value, with the objective or the probe that it belongs to."""
    if isinstance(value, Spec):
        if value.kind == "attack":
            yield value, owner
        owner = {"probe": value.title, "objective": value.selector}.get(value.kind, owner)
        value = value.kwargs
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _attacks_in(inner, owner)


def unused(resolver: Resolver) -> list[Binding]:
    """Bindings and macros that nothing uses. What an include offers may go unused; so may what an override has swapped away."""
    table = resolver.table
    swapped = any(
        b.override and registry.get(b.selector).parameters[b.parameter].wants for b in table.bindings.values()
    )
    idle = []
    for key, binding in table.bindings.items():
        if key[1] == STUDY:
            continue
        if key not in resolver.used and not binding.included and (binding.override or not swapped):
            idle.append(binding)
    for name, binding in table.macros.items():
        if ("", name, "") not in resolver.used and not binding.included:
            idle.append(binding)
    return idle


def unused_warning(binding: Binding) -> str:
    named = binding.key if binding.parameter else f"the macro {binding.key}"
    return f"{named} is set but nothing uses it\n  --> {binding.place}"

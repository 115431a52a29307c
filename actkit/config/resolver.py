"""What bindings mean: Specs, by gin's own rules for scopes, references and macros; every problem with its place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actkit.config import registry
from actkit.config.reader import Binding, Macro, Place, Ref
from actkit.config.spec import Spec, amount
from actkit.errors import InputError, nearest

ROOT, ROLE, STUDY = "run", "role", "study"


ATTACK_SCOPES = ("train", "eval")  # so that a training setting can never leak into an evaluation


class Resolver:
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
        if entry.kind == "attack" and outermost(binding.scope) not in ATTACK_SCOPES:
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
        if entry.kind == "attack" and outermost(scope) not in ATTACK_SCOPES:
            self.problem(
                f"{entry.selector} is used outside the scopes train and eval",
                place,
                f"write @train/{selector}() or @eval/{selector}()",
            )
            return None
        proper = "eval" if owner == "probe" else "train"
        if entry.kind == "attack" and owner in ("probe", "objective") and outermost(scope) != proper:
            self.problem(
                f"{owner}s take their attack from the scope {proper}, not {outermost(scope)}",
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


def resolve_root(resolver: Resolver, place: Place) -> Spec | None:
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
    known = {*names, *ATTACK_SCOPES, *resolver.referred, *map(outermost, resolver.referred)}
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


def outermost(scope: str) -> str:
    return scope.partition("/")[0]


def _scopes_in(value: Any) -> set[str]:
    if isinstance(value, Ref):
        return {value.scope} - {""}
    inner = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else ()
    return {scope for item in inner for scope in _scopes_in(item)}


def long_steps(spec: Spec) -> list[str]:
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


def unused(resolver: Resolver) -> list[str]:
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

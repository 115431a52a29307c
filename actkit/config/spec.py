"""Specs: a component by name and its hyper-parameters, before it is built.

A recipe is read into Specs and nothing else is called while it is read. A Spec prints as its call, compares, pickles, goes
to JSON and back, and `build()` makes the component: a function with its hyper-parameters filled in, or the instance of a class. What
is built carries its Spec as `.spec`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal, Union

from actkit.config import registry
from actkit.errors import InputError, nearest, raise_all


class Quantity(float):
    """A number that prints as it was written: eps = '8/255' stays 8/255 on every result."""

    def __new__(cls, written: str) -> Quantity:
        made = super().__new__(cls, float(Fraction(written)))
        made.written = written.replace(" ", "")
        return made

    written: str

    def __reduce__(self) -> Any:
        return Quantity, (self.written,)

    def __str__(self) -> str:
        return self.written

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else self.written


def amount(value: Any) -> float | None:
    """A hyper-parameter as a number, also one written '8/255'; None where it is none."""
    try:
        if value is None or isinstance(value, bool):
            return None
        return Quantity(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


@dataclass(frozen=True)
class Spec:
    """A component before it is built: `Spec("attack", "pgd", {"eps": 8 / 255, "step_size": 2 / 255, "steps": 10}).build()`.

    It prints as its call, compares, pickles, and goes to JSON and back (`to_json`, `from_json`). What is built carries it as `.spec`.

    Args:
        kind: 'objective', 'attack', 'backbone', 'probe', 'dataset', 'optimizer' or 'schedule'; '' for run, role and study.
        name: as it is registered.
        kwargs: its hyper-parameters by name: numbers, text, lists, other Specs. What is not given has its default.
        label: what a probe's results are called where a recipe names it, by the scope it is in: `@pgd100/probe.robust_accuracy()`.
    """

    kind: str
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def selector(self) -> str:
        return f"{self.kind}.{self.name}" if self.kind else self.name

    def __repr__(self) -> str:
        return f"{self.selector}({', '.join(f'{k}={v!r}' for k, v in self.kwargs.items())})"

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def entry(self) -> registry.Entry:
        return registry.get(self.selector)

    @property
    def parameters(self) -> dict[str, registry.Parameter]:
        """The component's own hyper-parameters; none of one that is not here, such as a plugin's that is not installed: it can be shown and compared."""
        return self.entry.parameters if registry.has(self.selector) else {}

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a hyper-parameter, its own default included; `default` where the component has no such parameter, or is not here."""
        if name in self.kwargs:
            return self.kwargs[name]
        parameters = self.parameters
        return parameters[name].default if name in parameters else default

    def replace(self, **kwargs: Any) -> Spec:
        return Spec(self.kind, self.name, {**self.kwargs, **kwargs}, self.label)

    @property
    def title(self) -> str:
        """The label, or else the name."""
        return self.label or self.name

    @property
    def takes_soft_labels(self) -> bool:
        """Of an objective, whether it takes labels that are shares of classes: as it says itself, or as what it wraps does."""
        if (said := self.entry.soft_labels) is not None:
            return said
        inner = [v for v in self.kwargs.values() if isinstance(v, Spec) and v.kind == "objective"]
        return bool(inner) and all(spec.takes_soft_labels for spec in inner)

    def problems(self) -> Iterator[tuple[str | None, InputError]]:
        """What is wrong here, not deeper: pairs of the parameter (None: the whole) and the error."""
        parameters = self.entry.parameters
        for name, value in self.kwargs.items():
            try:
                self.entry.assert_parameter(name)
            except InputError as error:
                yield name, error
                continue
            if (wrong := mismatch(parameters[name].annotation, value)) is not None:
                remedy = _remedy(parameters[name], value)
                yield name, InputError(f"{self.selector}.{name} should be {wrong}", help=remedy)
        for name, parameter in parameters.items():
            if parameter.required and name not in self.kwargs:
                add = f"add  {self.selector}.{name} = ..."
                yield None, InputError(f"{self.selector!r} needs a value for {name!r}", help=add)
        yield from self._problems_of_values()

    def _problems_of_values(self) -> Iterator[tuple[str | None, InputError]]:
        """What the component's own check finds, where every value that it asks for is there and of the right type."""
        entry = self.entry
        if entry.check is None:
            return
        values = {}
        for name in inspect.signature(entry.check).parameters:
            parameter = entry.parameters.get(name)
            if parameter is None:
                # The check serves several components; this one has no such parameter.
                continue
            value = self.get(name)
            if value is inspect.Parameter.empty or mismatch(parameter.annotation, value) is not None:
                return
            values[name] = _built(value, parameter.annotation)
        yield from entry.check(**values)

    def build(self) -> Any:
        """The component itself. Raises `InputError` for a name, parameter or value that does not fit."""
        raise_all(error for _, error in self.problems())
        entry = self.entry
        component: Any
        kwargs = {k: _built(v, entry.parameters[k].annotation) for k, v in self.kwargs.items()}
        if inspect.isclass(entry.target) and not registry.KINDS[self.kind].foreign:
            component = entry.target(**kwargs)
        else:
            component = functools.partial(entry.target, **kwargs)
        if self.kind == "objective":
            component = BoundObjective(component)
        # A frozen dataclass needs no reminder of what it was built from.
        with contextlib.suppress(AttributeError):
            component.spec = self
        return component

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; tuples become lists."""
        made = {"spec": self.selector, "kwargs": {k: _to_json(v) for k, v in self.kwargs.items()}}
        return {**made, "label": self.label} if self.label else made

    @staticmethod
    def from_json(data: Any) -> Any:
        """The inverse of `to_json`; tuples come back as lists."""
        if isinstance(data, list):
            return [Spec.from_json(item) for item in data]
        if isinstance(data, dict) and "spec" in data:
            kind, _, name = data["spec"].rpartition(".")
            return Spec(kind, name, {k: Spec.from_json(v) for k, v in data["kwargs"].items()}, data.get("label", ""))
        if isinstance(data, dict):
            return {k: Spec.from_json(v) for k, v in data.items()}
        return data


def _to_json(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {k: _to_json(v) for k, v in value.items()}
    return value


def _built(value: Any, annotation: Any) -> Any:
    if isinstance(value, Spec):
        return value.build()
    if isinstance(value, (list, tuple)):
        inner = next((a for option in _options(annotation) for a in typing.get_args(option)), None)
        return type(value)(_built(item, inner) for item in value)
    if isinstance(value, dict):
        return {k: _built(v, None) for k, v in value.items()}
    if isinstance(value, str) and float in _options(annotation) and str not in _options(annotation):
        return Quantity(value)
    return value


class BoundObjective:
    """An objective with its hyper-parameters, called alike whether a function or a class wrote it.

    `roles` names the models that it works with, the headline model first. Calling it gives its generator. What wraps another
    objective (weight perturbation) takes one of these and may ask for it `using` other hyper-parameters.

    What it asks for by name is supplied: `noise`, `progress` (0 to 1), `ids` (the examples' numbers, int64 of shape (B,), which stay theirs from epoch
    to epoch) and `batch_size` (of the whole batch, where x is a part of it).
    """

    spec: Spec

    def __init__(self, component: Any) -> None:
        self.component = component
        function = component.func if isinstance(component, functools.partial) else component.__call__
        parameters = inspect.signature(function).parameters.values()
        self._asked = tuple(p.name for p in parameters if p.name in registry.KINDS["objective"].supplied)
        named = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]
        self.roles: tuple[str, ...] = tuple(getattr(component, "roles", named))

    def __call__(
        self,
        x: Any,
        y: Any,
        *models: Any,
        noise: Any = None,
        progress: float = 0.0,
        ids: Any = None,
        batch_size: int | None = None,
    ) -> Any:
        """Its generator. Raises `InputError` where it asks for `ids` and whoever calls it gives none."""
        if ids is None and "ids" in self._asked:
            raise InputError(
                f"{self.spec.selector} asks for the examples' numbers, and what calls it gives none",
                help="what wraps an objective asks for ids and batch_size too, and passes them on: inner(..., ids=ids, batch_size=batch_size)",
            )
        size = len(x) if batch_size is None else batch_size
        supplied = {"noise": noise, "progress": progress, "ids": ids, "batch_size": size}
        return self.component(x, y, *models, **{name: supplied[name] for name in self._asked})

    def __getattr__(self, name: str) -> Any:
        """A hyper-parameter, as it was built: `objective.attack`."""
        if name.startswith("_") or "component" not in self.__dict__:
            raise AttributeError(name)
        if isinstance(self.component, functools.partial) and name in self.component.keywords:
            return self.component.keywords[name]
        return getattr(self.component, name)

    def using(self, **hyper: Any) -> BoundObjective:
        """The same objective with other hyper-parameters, given as built components or plain values."""
        if isinstance(self.component, functools.partial):
            other = BoundObjective(functools.partial(self.component, **hyper))
            other.spec = self.spec
            return other
        raise InputError(f"{self.spec.selector} keeps state, so it cannot be wrapped with other hyper-parameters")

    def state_dict(self) -> dict[str, Any]:
        return self.component.state_dict() if hasattr(self.component, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if hasattr(self.component, "load_state_dict"):
            self.component.load_state_dict(state)


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(o for a in typing.get_args(annotation) for o in _options(a))
    return (annotation,)


def mismatch(annotation: Any, value: Any) -> str | None:
    """None when the value fits the annotation, else 'int, got 'ten' (str)'. Unknown annotations fit everything."""
    if annotation is inspect.Parameter.empty or any(_fits(option, value) for option in _options(annotation)):
        return None
    wanted = " or ".join(shown(option) for option in _options(annotation))
    got = value.selector + "()" if isinstance(value, Spec) else f"{value!r} ({type(value).__name__})"
    return f"{wanted}, got {got}"


def _remedy(parameter: registry.Parameter, value: Any) -> str:
    """What to write for a parameter in place of a value of the wrong type."""
    options = _options(parameter.annotation)
    if (named := next(filter(None, map(_named, options)), None)) is not None:
        near = nearest(str(value), [entry.name for entry in registry.entries(named.kind)], listing=False)
        return (
            near or f"write one of these; `actkit list {named.kind}s` shows what each is, and a plugin may bring others"
        )
    if parameter.wants:
        return f"`actkit list {parameter.wants[0]}` shows what can stand here"
    examples = {bool: "True or False", int: "a whole number, such as 10", float: "a number, such as 0.5 or '8/255'"}
    said = next((f"write {examples[option]}" for option in options if option in examples), "")
    lists = [option for option in options if typing.get_origin(option) in (list, tuple)]
    said = said or (
        "write a list, such as [1, 2]" if lists else "write text in quotes" if str in options else "write one of these"
    )
    shown_default = (
        f"; the default is {parameter.default!r}" if type(parameter.default) in (bool, int, float, str) else ""
    )
    return said + shown_default


def _fits(annotation: Any, value: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if (named := _named(annotation)) is not None:
        return isinstance(value, str) and value.isidentifier() and registry.has(f"{named.kind}.{value}")
    if origin is Annotated:
        return isinstance(value, Spec) and value.kind in annotation.__metadata__
    if isinstance(value, Spec):
        return annotation in (Any, Spec)
    if origin is Literal:
        return value in args and type(value) in {type(a) for a in args}
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return (isinstance(value, (int, float)) and not isinstance(value, bool)) or _is_fraction(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and Ellipsis not in args:
            return len(value) == len(args) and all(mismatch(a, v) is None for a, v in zip(args, value, strict=True))
        return all(mismatch(args[0], v) is None for v in value)
    if origin is dict:
        return isinstance(value, dict)
    return isinstance(value, annotation) if isinstance(annotation, type) else True


def _named(annotation: Any) -> registry.NameOf | None:
    """Of a parameter that takes the name of a component, which kind's."""
    marks = annotation.__metadata__ if typing.get_origin(annotation) is Annotated else ()
    return next((mark for mark in marks if isinstance(mark, registry.NameOf)), None)


def _is_fraction(value: Any) -> bool:
    """Whether it is a number as a text, such as '8/255': the literature's own way to write eps."""
    try:
        return isinstance(value, str) and Fraction(value) is not None
    except (ValueError, ZeroDivisionError):
        return False


def shown(annotation: Any) -> str:
    """An annotation in words: 'a backbone', "'ema' or 'swa' or None"."""
    if len(_options(annotation)) > 1:
        return " or ".join(shown(option) for option in _options(annotation))
    if (named := _named(annotation)) is not None:
        return shown(Literal[tuple(entry.name for entry in registry.entries(named.kind))])
    if typing.get_origin(annotation) is Annotated:
        return f"{'an' if annotation.__metadata__[0][0] in 'aeiou' else 'a'} {annotation.__metadata__[0]}"
    if typing.get_origin(annotation) is Literal:
        return " or ".join(map(repr, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (list, tuple):
        inner = dict.fromkeys(
            shown(a).removeprefix("a ").removeprefix("an ") for a in typing.get_args(annotation) if a is not ...
        )
        return "a list of " + " or ".join(inner)
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))

"""JSON as typed values: a dataclass from what a file says, checked against the dataclass's own types.

A file that people, other versions or an interrupted disk may have changed is read through one of these doors, and what is behind the door is typed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, Literal, TypeVar, Union

from actkit.config.spec import Spec, shown

T = TypeVar("T")

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_name(text: str) -> bool:
    """Whether it is a plain identifier, or several with a '.' between them (robust.ema): what may become part of a file's name."""
    return _NAME.fullmatch(text) is not None


def assert_name(text: str, what: str) -> None:
    """Raise `ValueError` for a name that could lead a file elsewhere, such as '../robust'."""
    if not is_name(text):
        raise ValueError(f"{what} {text!r} is no plain name: letters, digits and _, with '.' between parts")


def typed(kind: type[T], data: Any, where: str = "") -> T:
    """`data`, as JSON gives it, as this dataclass. Keys that it has no field for are ignored.

    A list becomes a tuple, an object a dataclass, a Spec, what has `from_json` or a dict; a dict's keys are texts, or of a type that has `parse`.

    Raises `ValueError`, which says where and what, for a key that is missing or a value of another type.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{_place(where)}should be an object, got {_brief(data)}")
    found = {}
    for field, annotation in _fields(typing.cast(Hashable, kind)):
        key = field.name
        if key in data:
            found[key] = _value(annotation, data[key], f"{where}.{key}" if where else key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_place(where)}it lacks {key!r}")
    return kind(**found)


@functools.cache
def _fields(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _value(annotation: Any, value: Any, where: str) -> Any:
    """The value as its annotation has it: lists as tuples, objects as dataclasses and Specs."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = (a for a in args if a is not type(None))
        return _value(inner, value, where)
    if annotation is Spec:
        return spec_from(value, where)
    # It says itself how it stands in a file.
    if hasattr(annotation, "from_json"):
        return annotation.from_json(value, where)
    if dataclasses.is_dataclass(annotation):
        return typed(typing.cast(type, annotation), value, where)
    if origin is tuple and isinstance(value, list):
        fixed = args if Ellipsis not in args else (args[0],) * len(value)
        if len(fixed) == len(value):
            pairs = zip(fixed, value, strict=True)
            return tuple(_value(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(pairs))
    if origin is dict and isinstance(value, dict):
        key_of = str if args[0] is str else args[0].parse
        return {key_of(key): _value(args[1], inner, f"{where}.{key}") for key, inner in value.items()}
    if annotation is Any or _is_plain(annotation, value):
        return value
    raise ValueError(f"{_place(where)}should be {shown(annotation)}, got {_brief(value)}")


def _is_plain(annotation: Any, value: Any) -> bool:
    """A number is finite, and true is no number."""
    if typing.get_origin(annotation) is Literal:
        return value in typing.get_args(annotation) and isinstance(value, str)
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return abs(value) < 1e300 and not math.isnan(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return annotation in (str, bool) and isinstance(value, annotation)


def spec_from(data: Any, where: str = "") -> Spec:
    """A component's Spec. Raises `ValueError` for what is none, at any depth."""
    _assert_spec(data, where)
    found: Spec = Spec.from_json(data)
    return found


def _assert_spec(data: Any, where: str) -> None:
    wrong = (
        not isinstance(data, dict) or not isinstance(data.get("spec"), str) or not isinstance(data.get("kwargs"), dict)
    )
    if wrong or not isinstance(data.get("label", ""), str):
        raise ValueError(f"{_place(where)}should be a component, got {_brief(data)}")
    for name in filter(None, (data["spec"], data.get("label", ""))):
        assert_name(name, f"{_place(where)}the component")
    _assert_specs_in(data["kwargs"], where)


def _assert_specs_in(value: Any, where: str) -> None:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for inner in inside:
        if isinstance(inner, dict) and "spec" in inner:
            _assert_spec(inner, where)
        else:
            _assert_specs_in(inner, where)


def _place(where: str) -> str:
    return f"{where}: " if where else ""


def _brief(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"

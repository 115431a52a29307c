"""Specs side by side: every setting by its path, and those in which two differ."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from actkit.config.spec import Spec


def flat(spec: Spec, prefix: str = "", *, defaults: bool = True) -> dict[str, Any]:
    """Every setting of a Spec by its path: what a comparison looks at.

    Args:
        defaults: those that it leaves out included, as the components have them that are here. Without, no component is imported.
    """
    found: dict[str, Any] = {prefix or spec.selector: spec.selector}
    prefix = prefix or spec.selector
    own = {name: parameter.default for name, parameter in spec.parameters.items()} if defaults else {}
    for name, value in {**own, **spec.kwargs}.items():
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
                flat(item, path, defaults=defaults)
                if isinstance(item, Spec)
                else {path: list(item) if isinstance(item, tuple) else item}
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


def flats(specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """The settings of several Specs, to be compared: with defaults, and so with the components, only where one leaves out what another says."""
    said = [flat(spec, defaults=False) for spec in specs]
    if all(one.keys() == said[0].keys() for one in said):
        return said
    return [flat(spec) for spec in specs]


def alike(a: Any, b: Any) -> bool:
    """Whether two settings, such as two Specs, mean the same, defaults included; a component is imported only where what both say does not decide it."""
    if isinstance(a, Spec) and isinstance(b, Spec):
        if (a.selector, a.label) != (b.selector, b.label):
            return False
        both, one = a.kwargs.keys() & b.kwargs.keys(), a.kwargs.keys() ^ b.kwargs.keys()
        said = all(alike(a.kwargs[name], b.kwargs[name]) for name in both)
        return said and all(alike(a.get(name), b.get(name)) for name in one)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return _same(a, b)


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

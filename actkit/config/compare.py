"""Specs side by side: every setting by its path, and those in which two differ."""

from __future__ import annotations

import inspect
from fractions import Fraction
from typing import Any

from actkit.config.spec import Spec


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

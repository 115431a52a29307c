"""Settings given to Specs that are there already: `-s KEY=VALUE` on a checkpoint's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from actkit.config import registry
from actkit.config.bindings import ATTACK_SCOPES, outermost
from actkit.config.reader import Binding, Ref, read_setting
from actkit.config.spec import Spec
from actkit.errors import InputError


def override_spec(spec: Any, settings: Iterable[str]) -> Any:
    """Apply 'kind.name.parameter=VALUE' to every Spec of that name below `spec` (a Spec, list or dict), for a checkpoint's own.

    A scope says at which probe, by its label: `pgd100/probe.robust_accuracy.starts=1`, `pgd100/attack.pgd.steps=50`; `eval/` says nothing.
    """
    # All are read before any is applied: what cannot be read is reported first.
    for binding in [read_setting(setting) for setting in settings]:
        entry = _component_meant(binding, spec)
        spec, found = _overridden(spec, binding, entry)
        if not found:
            raise InputError(
                f"there is no {entry.selector} here for --set {binding.key}",
                where="--set",
                help=_there_is(binding.parameter, spec)
                or "a scope names a probe by its label; --probe chooses another",
            )
    return spec


def _component_meant(binding: Binding, spec: Any) -> registry.Entry:
    """The component that a setting is of. Raises `InputError` for a setting that nothing stored can have."""
    if outermost(binding.scope) == "train":
        raise InputError(
            f"--set {binding.key}: the scope train is that of training, and nothing is trained here",
            help=f"write {binding.selector}.{binding.parameter}",
        )
    if not binding.parameter:
        name = binding.selector.lower()
        raise InputError(
            f"--set {binding.selector}: a stored evaluation has no macros",
            help=_there_is(name, spec) or "name the parameters themselves",
        )
    entry = registry.get(binding.selector, where="--set")
    try:
        entry.assert_parameter(binding.parameter)
    except InputError as error:
        help = _there_is(binding.parameter, spec) or error.help
        raise InputError(error.message, where=f"--set {binding.key}", help=help) from None
    return entry


# What one option sets for every probe at once.
_FOR_ALL = {"eps": "--eps 8/255", "norm": "--norm l2"}


def _there_is(parameter: str, spec: Any) -> str | None:
    """Where the parameter of this name is, in what is there: 'eps is attack.pgd.eps here'; None where nothing has it."""
    keys = list(
        dict.fromkeys(f"{part.selector}.{parameter}" for part in _parts(spec) if parameter in part.entry.parameters)
    )
    if not keys:
        return None
    said = f"{parameter} is {' and '.join(keys)} here"
    return said + (f"; {_FOR_ALL[parameter]} sets it for every probe at once" if parameter in _FOR_ALL else "")


def _parts(value: Any) -> Iterator[Spec]:
    """Every Spec in it, itself the first."""
    if isinstance(value, Spec):
        yield value
        value = value.kwargs
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from _parts(item)


def _overridden(spec: Any, binding: Binding, entry: registry.Entry) -> tuple[Any, bool]:
    """The same with a binding applied, and whether anything took it."""
    label = next((part for part in reversed(binding.scope.split("/")) if part not in ("", *ATTACK_SCOPES)), "")
    found = False

    def changed(value: Any, inside: bool) -> Any:
        nonlocal found
        if isinstance(value, Spec):
            inside = inside or (value.kind == "probe" and value.title == label)
            kwargs = {k: changed(v, inside) for k, v in value.kwargs.items()}
            if value.selector == entry.selector and inside:
                found = True
                kwargs[binding.parameter] = _component(
                    binding.value, entry.parameters[binding.parameter].wants, kwargs.get(binding.parameter)
                )
            return Spec(value.kind, value.name, kwargs, value.label)
        if isinstance(value, (list, tuple)):
            return [changed(v, inside) for v in value]
        return {k: changed(v, inside) for k, v in value.items()} if isinstance(value, dict) else value

    return changed(spec, not label), found


def _component(value: Any, wants: tuple[str, ...], before: Any) -> Any:
    """A component by its bare name or as a reference; it keeps those settings of the one before that it has too."""
    name = value.selector if isinstance(value, Ref) else value
    if not (isinstance(name, str) and len(wants) == 1):
        return value
    entry = registry.get(name if name.startswith(f"{wants[0]}.") else f"{wants[0]}.{name}", where="--set")
    kept = before.kwargs if isinstance(before, Spec) else {}
    return Spec(entry.kind, entry.name, {k: v for k, v in kept.items() if k in entry.parameters})

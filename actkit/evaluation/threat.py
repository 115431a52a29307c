"""One threat model for a whole evaluation: probes and the attacks in them put under one eps and norm, and the probes that the field knows by name."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from actkit.attacks import budget_problems, norm_named
from actkit.config import registry
from actkit.config.spec import Quantity, Spec, amount
from actkit.errors import InputError, raise_first
from actkit.probes.accuracy import VALUES

# An eps that papers on CIFAR-10 use, as an example in what is said.
_USUAL = {"linf": "8/255", "l2": "0.5", "l1": "12"}

# Their eps is where a search for the smallest perturbation begins, no budget: they have no threat model, and know linf alone.
_SEARCHES = ("fgsm_k", "gallery")


def under(spec: Spec, *, eps: float | str | None = None, norm: str | None = None) -> Spec:
    """A probe, and every attack within it, under one threat model; a probe without one (accuracy) as it is.

    The step goes with eps: an attack's step_size stays the same fraction of eps, from norm to norm too. Where eps stays what it is, so does the step,
    digit for digit. `eps` in [0,1] pixels, also as a text such as '8/255', which it then prints as.

    Raises `InputError` for a probe or an attack that knows linf alone where `norm` is another, for another norm without its eps, for a step size that cannot
    be scaled from an eps of 0, and for values that are none.
    """
    written = None if eps is None else _written(eps, norm or "linf")
    if norm is not None:
        _assert_norm(norm)
    return _moved(spec, written, norm)


def named_probe(name: str, *, eps: float | str, norm: str = "linf") -> Spec | None:
    """The probe that the field knows by this name, under a threat model; None where it knows none.

    'pgdN': PGD of N steps of eps/4 from one uniform start, any iterate counting. 'fgsm', 'apgd-ce', 'apgd-t', 'square' likewise, the label being the name.
    And the registered probes, whose eps, norm and attack (that of pgd20) are filled in.

    Raises `InputError` as `under` does, and for a 'pgdN' whose steps cannot reach the ball's border.
    """
    _assert_norm(norm)
    written = _written(eps, norm)
    if (by_name := _conventional(name, written)) is not None:
        assert_crosses(by_name, help="'pgd4' or more, or 'fgsm' for a single step of eps")
        return under(by_name, eps=written, norm=norm)
    if name not in {entry.name for entry in registry.entries("probe")}:
        return None
    spec = Spec("probe", name)
    attack = spec.entry.parameters.get("attack")
    if attack is not None and attack.required:
        spec = spec.replace(attack=_pgd(20, written))
    return under(spec, eps=written, norm=norm)


# The names that `named_probe` knows besides those of registered probes, as messages list them.
CONVENTIONAL = ("pgd20", "fgsm", "apgd-ce", "apgd-t", "square")


def is_conventional(name: str) -> bool:
    """Whether the field knows a probe by this name: 'pgd20', 'apgd-t'."""
    return name in CONVENTIONAL or re.fullmatch(r"pgd[1-9]\d{0,5}", name) is not None


# -- what the names mean -------------------------------------------------------------------------------------------------


def _pgd(steps: int, eps: float | str) -> Spec:
    step_size = _scaled((_exact(eps) or Fraction(0)) / 4, eps)
    return Spec("attack", "pgd", {"eps": eps, "step_size": step_size, "steps": steps, "start": "uniform"})


def _conventional(name: str, eps: float | str) -> Spec | None:
    attacks: dict[str, tuple[Callable[[], Spec], str]] = {
        "fgsm": (lambda: Spec("attack", "fgsm", {"eps": eps}), "cross_entropy"),
        "apgd-ce": (lambda: Spec("attack", "apgd", {"eps": eps, "steps": 100}), "cross_entropy"),
        "apgd-t": (lambda: Spec("attack", "apgd", {"eps": eps, "steps": 100}), "targeted_dlr"),
        "square": (lambda: Spec("attack", "square", {"eps": eps, "queries": 5000}), "margin"),
    }
    if not is_conventional(name):
        return None
    if name in attacks:
        make, loss = attacks[name]
    else:
        make, loss = functools.partial(_pgd, int(name.removeprefix("pgd")), eps), "cross_entropy"
    settings = {"attack": make(), "mode": "worst_case", "starts": 1}
    if loss != "cross_entropy":
        settings["loss"] = loss
    return Spec("probe", "robust_accuracy", settings, label=name)


# -- moving --------------------------------------------------------------------------------------------------------------


def _moved(value: Any, eps: float | str | None, norm: str | None) -> Any:
    """The same with every attack and probe in it, however deep, under this threat model."""
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, eps, norm) for item in value)
    if isinstance(value, dict):
        return {key: _moved(item, eps, norm) for key, item in value.items()}
    if not isinstance(value, Spec):
        return value
    inner = value.replace(**{key: _moved(item, eps, norm) for key, item in value.kwargs.items()})
    return inner.replace(**_budget(inner, eps, norm)) if value.kind in ("attack", "probe") else inner


def _budget(spec: Spec, eps: float | str | None, norm: str | None) -> dict[str, Any]:
    """What changes of one component's own settings. Raises `InputError` as `under` does."""
    parameters = spec.entry.parameters
    if "eps" not in parameters:
        return {}
    before = spec.get("norm", "linf")
    if norm is not None and "norm" not in parameters and norm != "linf":
        raise InputError(
            f"{_called(spec)} knows linf alone, it cannot be put under {norm}", help="--probe NAME chooses others"
        )
    if spec.kind == "probe" and spec.name in _SEARCHES:
        return {}
    changed: dict[str, Any] = {"norm": norm} if norm not in (None, before) else {}
    if changed and eps is None:
        raise InputError(
            f"{_called(spec)} has an eps of {before}; in {norm} it means something else",
            help=f"give both: --norm {norm} --eps {_USUAL.get(str(norm), '...')}",
        )
    # An eps that is the same number already is not written anew: nothing changes at all.
    if eps is not None and amount(spec.get("eps")) != amount(eps):
        changed["eps"] = eps
        changed |= _step(spec, eps)
    return changed


def _step(spec: Spec, eps: float | str) -> dict[str, Any]:
    """The step size that is the same fraction of another eps; nothing where there is none to scale."""
    step, old, new = _exact(spec.get("step_size")), _exact(spec.get("eps")), _exact(eps)
    if step is None or old is None or new is None:
        return {}
    if not old:
        raise InputError(
            f"{_called(spec)}: its step size cannot be scaled from an eps of 0",
            help=f"set it: -s {spec.selector}.step_size=...",
        )
    return {"step_size": _scaled(step / old * new, eps)}


def _called(spec: Spec) -> str:
    return f"{spec.label} ({spec.selector})" if spec.label else spec.selector


# -- a budget that crosses the ball --------------------------------------------------------------------------------------


def too_short(spec: Spec) -> Iterator[str]:
    """Of a probe and the attacks in it: those whose steps, all in one direction, do not reach the ball's border, one sentence each."""
    for attack, largest in _attacks(spec):
        eps = attack.get("eps") if largest is None else largest
        step, steps = attack.get("step_size"), attack.get("steps")
        length, radius = _exact(step), _exact(eps)
        if length is None or radius is None or not isinstance(steps, int):
            continue
        if steps * length < radius:
            reach = f"{steps} steps of {step} reach {float(steps * length):.3g}, not eps {eps}"
            yield f"{spec.title}: {reach}: most of the ball is never seen"


def assert_crosses(spec: Spec, *, help: str) -> None:
    """Raise `InputError` for a probe whose attack cannot reach the ball's border."""
    raise_first(("steps", InputError(said, help=help)) for said in too_short(spec))


def _attacks(value: Any, largest: Any = None) -> Iterator[tuple[Spec, Any]]:
    """Every attack in a Spec, and the largest eps that a sweep gives it where its step does not grow; None elsewhere."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _attacks(item, largest)
    elif isinstance(value, Mapping):
        yield from _attacks(list(value.values()), largest)
    elif isinstance(value, Spec):
        if value.kind == "attack":
            yield value, largest
        if (
            value.kind == "probe"
            and value.name == "sweep"
            and value.get("over") == "eps"
            and not value.get("scale_step")
        ):
            largest = (value.get("values") or VALUES["eps"])[-1]
        yield from _attacks(list(value.kwargs.values()), largest)


def described(spec: Spec) -> str:
    """A probe's budget in a line: 'pgd20: 20 steps of 2/255 in linf 8/255'; '' where it has none."""
    said = [_said(part) for part, _ in _attacks(spec)]
    if not said and spec.kind == "probe" and spec.name not in _SEARCHES and "eps" in spec.entry.parameters:
        said = [_said(spec)]
    return f"{spec.title}: {'; '.join(dict.fromkeys(said))}" if said else ""


def _said(part: Spec) -> str:
    step, steps = part.get("step_size"), part.get("steps")
    moves = f"{steps} steps of {step} in " if _exact(step) is not None else ""
    return f"{part.selector}, {moves}{part.get('norm', 'linf')} eps {part.get('eps')}"


def says_otherwise(spec: Spec, eps: float | str | None, norm: str | None) -> bool:
    """Whether a stored probe is measured under another threat model than this one; nothing that is None is another."""
    parts = [part for part, _ in _attacks(spec)] or [spec]
    return any(
        (eps is not None and amount(part.get("eps")) != amount(eps))
        or (norm is not None and part.get("norm", "linf") != norm)
        for part in parts
    )


# -- numbers as they are written -----------------------------------------------------------------------------------------


def _assert_norm(norm: str) -> None:
    norm_named(norm)


def _written(eps: float | str, norm: str) -> float | str:
    """An eps as results print it: a text as it is, a float that is a whole number of 255ths as that. Raises `InputError` for what is none."""
    value = amount(eps)
    if value is None:
        raise InputError(f"eps should be a number such as 8/255, got {eps!r}")
    raise_first(budget_problems(eps=value, norm=norm))
    if isinstance(eps, Quantity):
        return eps.written
    if isinstance(eps, str):
        text = eps.replace(" ", "")
        # '0.031' is a number; '8/255' would be none that can be read.
        return text if "/" in text else float(text)
    levels = round(value * 255)
    return f"{levels}/255" if levels and 0 < value <= 1 and levels / 255 == value else value


def _exact(value: Any) -> Fraction | None:
    """A number as it is written, 0.003 being 3/1000; None for what is none, or endless."""
    number = amount(value)
    if number is None or not math.isfinite(number):
        return None
    return Fraction(number.written if isinstance(number, Quantity) else repr(number))


def _scaled(value: Fraction, eps: float | str) -> float | str:
    """A step as it is written beside its eps: '2/255' beside '8/255', as long as that is short; else a number of six digits."""
    if isinstance(eps, str) and "/" in eps:
        below = int(eps.partition("/")[2])
        for times in (1, 2, 4):
            if (value * below * times).denominator == 1:
                return f"{int(value * below * times)}/{below * times}"
    return float(f"{float(value):.6g}")

"""Components by name, and the errors of a name that is none. `@register("objective")` on a plain function or class; its signature is its schema.

A component's positional parameters are fixed by the contract of its kind (`KINDS`); its keyword-only parameters are its
hyper-parameters, which a gin file binds. What does not fit is refused when it registers, both sides quoted.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import keyword
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

from actkit import COMPONENTS
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor


T = TypeVar("T")


# What is wrong with hyper-parameters, taken together: pairs of the parameter's name and the error.
Check = Callable[..., Iterator[tuple[str, InputError]]]
# What tables call an attack, from the built one and the name of the loss that it raises.
Title = Callable[[Any, str], str]


class View(Protocol):
    """A frozen model, as attacks and probes see it."""

    def __call__(self, *inputs: Tensor) -> Tensor: ...

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]: ...


class Model(Protocol):
    """The type of what an objective or a probe is handed for a role, to annotate a parameter with; what it does is said of `Role`.

    It has a `name`, the torch.nn.Module itself as `model`, and its `device`. `robust(x)` is the training forward: logits (B, classes), fp32, through live
    weights. `with robust.frozen("eval") as f:` gives the view for attacks and probes, `with robust.representation() as f:` what enters the last layer.
    """

    name: str
    model: Any

    @property
    def device(self) -> Any: ...

    def __call__(self, *inputs: Tensor, branch: str | None = None) -> Tensor: ...

    def features(self, *inputs: Tensor, branch: str | None = None) -> tuple[Tensor, Tensor]: ...

    def frozen(
        self, mode: Literal["eval", "train"] = "eval", *, branch: str | None = None
    ) -> AbstractContextManager[View]: ...

    def representation(self) -> AbstractContextManager[Callable[[Tensor], Tensor]]: ...


@dataclass(frozen=True)
class NameOf:
    """Annotates a parameter that takes the name of a registered component of a kind, as text: `Annotated[str, NameOf("norm")]`."""

    kind: str


# A parameter that takes a component is annotated with one of these: `def act(x, y, robust, natural, *, attack: Attack)`.
Backbone = Annotated[Any, "backbone"]
Dataset = Annotated[Any, "dataset"]
Attack = Annotated[Any, "attack"]
Objective = Annotated[Any, "objective"]
Probe = Annotated[Any, "probe"]
Optimizer = Annotated[Any, "optimizer"]
Schedule = Annotated[Any, "schedule"]


@dataclass(frozen=True)
class Kind:
    """The contract of a kind of component.

    `positional`: the parameters that actkit fills by position; a name in angle brackets stands for one or more of the
    author's own (the roles of an objective, the models of a probe). `supplied`: keyword parameters that actkit fills, so
    that no recipe may. `required`: keyword parameters without which the component makes no sense. `foreign`: classes that
    another library owns, so that any parameter that is not positional can be bound. `settings`: whether it has hyper-parameters at all. `methods`: with
    their positional parameters, those of a class that is not called itself, and of which there is one instance, made without arguments.
    """

    contract: str
    positional: tuple[str, ...] = ()
    supplied: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    run_defaults: tuple[str, ...] = ()
    foreign: bool = False
    settings: bool = True
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)


KINDS: dict[str, Kind] = {
    "backbone": Kind(
        "(num_classes, *, in_chans=3, ...) -> torch.nn.Module",
        ("num_classes",),
        supplied=("in_chans", "image_size"),
        required=("in_chans",),
    ),
    "dataset": Kind("(*, ...) -> Data"),
    "attack": Kind(
        "(goal, x, *, noise, eps, ...) -> x_adv", ("goal", "x"), supplied=("noise",), required=("noise", "eps")
    ),
    "objective": Kind(
        "(x, y, <role>, ..., *, ...) -> a generator that yields {role: one loss an example}",
        ("x", "y", "<role>"),
        supplied=("noise", "progress", "ids", "batch_size"),
    ),
    "probe": Kind("(<model>, ..., data, *, ...) -> Result", ("<model>", "data"), supplied=("progress",)),
    "optimizer": Kind("(params, ...)", ("params",), foreign=True),
    "schedule": Kind(
        "(optimizer, ...)",
        ("optimizer",),
        supplied=("last_epoch",),
        run_defaults=("total_steps", "T_max"),
        foreign=True,
    ),
    # What a paper prints is data: `actkit reproduce` asks for it, and no recipe names it.
    "paper": Kind("() -> Paper", settings=False),
    "norm": Kind(
        "a class with length(v), uniform(noise, x), sphere(noise, x), direction(gradient, x, eps) and project(x_adv, x, eps)",
        methods={
            "length": ("v",),
            "uniform": ("noise", "x"),
            "sphere": ("noise", "x"),
            "direction": ("gradient", "x", "eps"),
            "project": ("x_adv", "x", "eps"),
        },
    ),
    # The two that are not chosen but filled in: `run.epochs = 200`, `natural/role.backbone = ...`.
    "": Kind("(*, ...)"),
}


@dataclass(frozen=True)
class Parameter:
    name: str
    annotation: Any = inspect.Parameter.empty
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def wants(self) -> tuple[str, ...]:
        """The kinds of component that this parameter takes, also inside a list or an option."""
        return tuple(_kinds_in(self.annotation))


def _kinds_in(annotation: Any) -> Iterator[str]:
    if typing.get_origin(annotation) is Annotated:
        yield from (m for m in annotation.__metadata__ if isinstance(m, str) and m in KINDS)
    else:
        for part in typing.get_args(annotation):
            yield from _kinds_in(part)


@dataclass(frozen=True)
class Entry:
    """A registered component: what it is, whose it is, where it is written."""

    kind: str
    name: str
    target: Callable[..., Any]
    origin: str
    location: str
    parameters: dict[str, Parameter] = field(repr=False, default_factory=dict)
    check: Check | None = field(repr=False, default=None)
    # Of a probe: how many it needs at least, and whether it measures under attack.
    models: int = 1
    attacks: bool = False
    # What tables call an attack.
    title: Title | None = field(repr=False, default=None)
    # Whether an objective takes labels that are shares of classes; None where it says nothing: what wraps others takes what they take.
    soft_labels: bool | None = None

    @property
    def selector(self) -> str:
        return f"{self.kind}.{self.name}" if self.kind else self.name

    @property
    def description(self) -> str:
        """The first line of its docstring."""
        doc = inspect.getdoc(self.target) or ""
        return doc.strip().split("\n", 1)[0]

    @property
    def positional(self) -> tuple[str, ...]:
        return _positional(self.kind, self.target)

    @property
    def takes(self) -> int | None:
        """How many models a probe is called with at once; None for all of them, by name."""
        positional = self.positional
        return None if positional[0] == "models" else len(positional) - 1

    def assert_parameter(self, name: str) -> None:
        """Raise `InputError`, with the nearest name, where there is no such hyper-parameter."""
        if name not in self.parameters:
            raise InputError(f"{self.selector!r} has no parameter {name!r}", help=nearest(name, self.parameters))


# Every component that has registered so far, by its selector.
registered: dict[str, Entry] = {}

# Installed plugins that could not be loaded, and why.
failures: dict[str, str] = {}

# Whose components are being imported right now.
_origin = "actkit"


def register(
    kind: str,
    name: str | None = None,
    *,
    check: Check | None = None,
    models: int | None = None,
    attacks: bool | None = None,
    title: Title | None = None,
    soft_labels: bool | None = None,
) -> Callable[[T], T]:
    """Make a function or class available under `kind.name`, as a decorator: `@register("attack")`. The decorated object itself is returned unchanged.

    Its keyword-only parameters are its hyper-parameters, which a recipe binds; `**kwargs` is refused, since it would take any misspelt name.

    Args:
        kind: 'objective', 'attack', 'backbone', 'probe', 'dataset', 'norm', or 'paper' for a function that returns a `Paper`.
        name: what recipes call it; by default the function's own name.
        check: a generator over (parameter, `InputError`), called with those hyper-parameters that it names: what is wrong with their values. A recipe
            is then refused before anything runs.
        models: of a probe, how many it needs at least; by default as many as its signature names, one where it takes them all (`models`).
        attacks: of a probe, whether it measures under attack; by default, whether it takes an attack.
        title: of an attack, `title(attack, loss)`: what tables call it, built and raising that loss; by default its name and its steps.
        soft_labels: of an objective, whether it takes labels y (B, classes) that are shares of classes, as MixUp makes them; by default, what wraps
            others takes what they take, and nothing else does.

    Raises `InputError` when the signature breaks the contract of the kind, or when the name has another owner.
    """
    if kind not in KINDS:
        raise InputError(f"there is no kind of component {kind!r}", help=nearest(kind, filter(None, KINDS)))

    def decorate(target: T) -> T:
        called = name or target.__name__  # type: ignore[attr-defined]
        how: dict[str, Any] = {"models": models, "attacks": attacks, "title": title, "soft_labels": soft_labels}
        add(kind, called, target, check=check, **how)  # type: ignore[arg-type]
        return target

    return decorate


def add(
    kind: str,
    name: str,
    target: Callable[..., Any],
    *,
    origin: str | None = None,
    check: Check | None = None,
    models: int | None = None,
    attacks: bool | None = None,
    title: Title | None = None,
    soft_labels: bool | None = None,
) -> Entry:
    """Register `target` under a name; `origin` says whose it is (by default, of whatever is being imported)."""
    selector = f"{kind}.{name}" if kind else name
    location = _location(target)
    old = registered.get(selector)
    if old and old.location == location:
        return old
    if old:
        raise InputError(
            f"{selector!r} is registered twice: by {old.origin} ({old.location}) and by {origin or _origin} ({location})",
            help=f"give yours another name: @register({kind!r}, name=...)",
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(f"a component's name must be a Python identifier, got {name!r}", where=location)
    parameters = _schema(kind, name, target, location)
    needed = _models_needed(kind, name, target, models, location)
    if soft_labels is not None and kind != "objective":
        raise InputError(f"{kind} {name!r}: only an objective says whether it takes soft labels", where=location)
    if attacks is None:
        attacks = kind == "probe" and any("attack" in parameter.wants for parameter in parameters.values())
    whose = origin or _origin_of(target)
    entry = Entry(kind, name, target, whose, location, parameters, check, needed, attacks, title, soft_labels)
    registered[selector] = entry
    return entry


def _models_needed(kind: str, name: str, target: Callable[..., Any], said: int | None, location: str) -> int:
    """How many models a probe works on at least. Raises `InputError` where what it says does not fit its signature."""
    if kind != "probe":
        if said is not None:
            raise InputError(f"{kind} {name!r}: only a probe says how many models it needs", where=location)
        return 1
    positional = _positional(kind, target)
    if positional[0] == "models":
        if said is not None and said < 1:
            raise InputError(f"probe {name!r} needs at least one model, it says {said}", where=location)
        return said or 1
    named = max(len(positional) - 1, 1)
    if said not in (None, named):
        raise InputError(
            f"probe {name!r} says that it needs {said} models, its signature names {named}", where=location
        )
    return named


def _origin_of(target: Callable[..., Any]) -> str:
    """Whose it is: the plugin's that is being imported, unless it is written in the package of another installed one."""
    own = package_of(target)
    if own == "actkit":
        return "actkit"
    for point in importlib.metadata.entry_points(group="actkit.plugins") if _origin != "actkit" else ():
        if getattr(point, "value", "").partition(":")[0].partition(".")[0] == own and point.dist:
            return f"{point.dist.name} {point.dist.version}"
    return _origin


def _location(target: Callable[..., Any]) -> str:
    try:
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"


def _signatures(kind: str, target: Callable[..., Any]) -> tuple[inspect.Signature, inspect.Signature]:
    """The signature that is called, and the one that holds the hyper-parameters (the same, but for a class)."""
    if inspect.isclass(target) and kind and not KINDS[kind].foreign:
        call = inspect.signature(target.__call__)
        return call.replace(parameters=list(call.parameters.values())[1:]), inspect.signature(target)
    signature = inspect.signature(target)
    return signature, signature


def _positional(kind: str, target: Callable[..., Any]) -> tuple[str, ...]:
    call, _ = _signatures(kind, target)
    if kind and KINDS[kind].methods:
        return ()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in call.parameters.values() if p.kind in by_position)


def _schema(kind: str, name: str, target: Callable[..., Any], location: str) -> dict[str, Parameter]:
    contract = KINDS[kind]
    if contract.methods:
        _check_methods(kind, name, target, location)
        return {}
    call, init = _signatures(kind, target)

    def refuse(why: str) -> InputError:
        shown = f"class with __init__{init} and __call__{call}" if init is not call else f"{name}{call}"
        return InputError(
            f"{kind} {name!r} does not fit its contract: {why}",
            where=location,
            help=f"the contract is {contract.contract}; this is {shown}",
        )

    for signature in {id(call): call, id(init): init}.values():
        if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()) and not contract.foreign:
            raise refuse("**kwargs would accept any misspelt name; name each parameter")
    positional = _positional(kind, target)
    if not contract.foreign:
        # A class may take `*models`: what wraps another component learns its roles, and says them, when it is built.
        dynamic = inspect.isclass(target) and any(p.kind is p.VAR_POSITIONAL for p in call.parameters.values())
        _check_positional(contract, positional, dynamic, refuse)
        have = {p.name for s in (call, init) for p in s.parameters.values()}
        for required in contract.required:
            if required not in have:
                raise refuse(f"it has no keyword parameter {required!r}")
    if not contract.settings and init.parameters:
        raise refuse("it has parameters; what differs is another item, or another scale of it")
    hints = _hints(target)
    return {
        p.name: Parameter(p.name, hints.get(p.name, p.empty), None if p.name in contract.run_defaults else p.default)
        for p in init.parameters.values()
        if p.name not in contract.supplied
        and (p.kind is p.KEYWORD_ONLY or (contract.foreign and p.name not in contract.positional))
        and p.kind is not p.VAR_KEYWORD
    }


def _check_methods(kind: str, name: str, target: Callable[..., Any], location: str) -> None:
    """Raise `InputError` where a class lacks a method of its contract, has one with other parameters, or cannot be made without arguments."""
    methods, lacking = KINDS[kind].methods, "it is no class"
    if inspect.isclass(target):
        made = inspect.signature(target).parameters.values()
        needed = [p.name for p in made if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        lacking = f"it cannot be made without {', '.join(needed)}" if needed else ""
        for method, expected in methods.items():
            if lacking:
                break
            there = inspect.getattr_static(target, method, None)
            have = () if there is None else tuple(inspect.signature(getattr(target, method)).parameters)
            # Of a class, a plain method has self before the others.
            have = have[1:] if inspect.isfunction(there) else have
            if there is None:
                lacking = f"it has no {method}({', '.join(expected)})"
            elif have != expected:
                lacking = f"its {method}({', '.join(have)}) should be {method}({', '.join(expected)})"
    if lacking:
        said = f"{kind} {name!r} does not fit its contract: {lacking}"
        raise InputError(said, where=location, help=f"the contract is {KINDS[kind].contract}")


def _check_positional(
    contract: Kind, positional: tuple[str, ...], dynamic: bool, refuse: Callable[[str], InputError]
) -> None:
    expected = contract.positional
    own = [i for i, part in enumerate(expected) if part.startswith("<")]
    if not own:
        if positional != expected:
            raise refuse(f"its positional parameters are {positional}, not {expected}")
        return
    before, after = expected[: own[0]], expected[own[0] + 1 :]
    middle = positional[len(before) : len(positional) - len(after)]
    fits = positional[: len(before)] == before and positional[len(positional) - len(after) :] == after
    if not fits or not (middle or dynamic):
        raise refuse(f"its positional parameters are {positional}, not {expected}")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except Exception:
        # An annotation that cannot be evaluated is not checked.
        return {}


def get(selector: str, *, where: str | None = None) -> Entry:
    """The component called `kind.name`; the last parts of a name do where they are unique (`pgd` for `attack.pgd`)."""
    kind = selector.partition(".")[0]
    # Its own module is enough: whoever rebuilds a network (actkit.models) needs neither gin nor rich.
    if kind in COMPONENTS:
        _load(kind)
    if selector in registered:
        return registered[selector]
    load_builtins()
    if selector in registered:
        return registered[selector]
    matches = [name for name in registered if name.endswith("." + selector)]
    # A paper may be called as its defence is, which is what a recipe means.
    matches = [name for name in matches if KINDS[registered[name].kind].settings] or matches
    if len(matches) == 1:
        return registered[matches[0]]
    if matches:
        raise InputError(f"{selector!r} could be {' or '.join(map(repr, matches))}", where=where, help="write the kind")
    hint = nearest(selector, registered, listing=False)
    if failures:
        failed = "; ".join(f"plugin {name} could not be loaded: {why}" for name, why in failures.items())
        hint = f"{hint}  ({failed})" if hint else failed
    plugin = "a plugin's is there once that is installed, or its folder is given with --plugins"
    hint = hint or f"`actkit list {kind if kind in COMPONENTS else ''}".rstrip() + "` shows what there is"
    raise InputError(f"there is no component {selector!r}", where=where, help=f"{hint}  ({plugin})")


def has(selector: str) -> bool:
    """Whether there is a component of exactly this selector; no more than its own kind's modules are imported where there is."""
    kind = selector.partition(".")[0]
    if kind in COMPONENTS:
        _load(kind)
    if selector not in registered:
        load_builtins()
    return selector in registered


def entries(kind: str | None = None) -> list[Entry]:
    """Every registered component, or those of a kind."""
    load_builtins()
    return sorted((e for e in registered.values() if kind in (None, e.kind)), key=lambda e: (e.kind, e.name.lower()))


def load_builtins() -> None:
    for kind in COMPONENTS:
        _load(kind)


def _load(kind: str) -> None:
    for module in COMPONENTS[kind]:
        importlib.import_module(f"actkit.{module}")


def package_of(target: Any) -> str:
    return str(getattr(target, "__module__", "")).partition(".")[0]


@contextlib.contextmanager
def registering_for(origin: str) -> Iterator[None]:
    """What is registered meanwhile is this origin's."""
    global _origin
    before, _origin = _origin, origin
    try:
        yield
    finally:
        _origin = before


def forget(package: str) -> None:
    """Take out what a package of a plugin has registered."""
    for selector in [k for k, e in registered.items() if package_of(e.target) == package]:
        del registered[selector]

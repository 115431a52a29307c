"""The frozen copy of a model: what attacks and probes look through. It shares the weights and follows whatever happens to the model."""

from __future__ import annotations

import contextlib
import copy
import enum
import types
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actkit.errors import InputError, first_line

Mode = Literal["eval", "train"]
Precision = Literal["fp32", "bf16"]

# What a module keeps of its own accord: parameters, buffers, children and hooks are followed by themselves, its mode is the copy's own.
_OWN = frozenset(vars(nn.Module()))
_IMMUTABLE = (
    *(type(None), bool, int, float, complex, str, bytes, type, enum.Enum),
    *(types.FunctionType, types.BuiltinFunctionType, torch.dtype, torch.device, torch.Size),
)


@contextlib.contextmanager
def without_history(model: nn.Module) -> Iterator[None]:
    """Meanwhile, the tensors that its modules keep as attributes have no history: torch refuses to copy one that has (weight_norm's `weight`)."""
    kept = [
        (module, name, value)
        for module in model.modules()
        for name, value in _attributes(module)
        if isinstance(value, Tensor) and value.grad_fn is not None
    ]
    try:
        for module, name, value in kept:
            vars(module)[name] = value.detach()
        yield
    finally:
        for module, name, value in kept:
            vars(module)[name] = value


def in_eval_mode(model: nn.Module, names: Collection[str]) -> None:
    """Put these parts of a model, whatever its own mode is, into eval mode."""
    for name in names:
        model.get_submodule(name).eval()


class FrozenCopy:
    """A copy of a model in a mode of its own, whose parameters need no gradients and are the model's own storage.

    In eval mode the buffers are the model's too; in train mode they are copies, as of when `current` was called, so that the model's running
    statistics stay as they are. With `precision` 'bf16' the matrices are copies in bf16: autocast would cast frozen weights anew in each forward.
    """

    def __init__(
        self, model: nn.Module, mode: Mode, precision: Precision, frozen_modules: Collection[str] = ()
    ) -> None:
        self.model, self.mode, self.precision = model, mode, precision
        self.frozen_modules = frozen_modules
        self._rebuild()

    def current(self) -> nn.Module:
        """The copy, as the model is now.

        An update in place is there at once, since the storage is shared. Followed besides: `p.data = ...`, a parameter, buffer or submodule put
        in another's place, hooks, and attributes, whether set or changed inside a list, a dict or an object (an array of NumPy's is
        followed when another takes its place).
        """
        if any(pair.is_another_structure() for pair in self._pairs):
            self._rebuild()
        else:
            with torch.no_grad():
                self._follow()
        return self.module

    def _rebuild(self) -> None:
        parameters = {id(p): self._parameter(p) for p in self.model.parameters()}
        attributes = [value for m in self.model.modules() for _, value in _attributes(m)]
        known = parameters | self._buffers()
        self.module = self._copied(_with_tensors(known, attributes)).train(self.mode == "train")
        in_eval_mode(self.module, self.frozen_modules)
        self._pairs = [_Pair(live, own) for live, own in zip(self.model.modules(), self.module.modules(), strict=True)]
        # The copy's parameters and modules, by the identity of the model's: what an attribute may refer to.
        self._copies = {**parameters, **{id(pair.live): pair.own for pair in self._pairs}}

    def _copied(self, known: dict[int, Any]) -> nn.Module:
        try:
            return copy.deepcopy(self.model, known)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
            raise InputError(
                f"the network ({type(self.model).__name__}) cannot be copied, and attacks and probes look through a copy: {first_line(error)}",
                help="keep what cannot be copied out of the module: compute tensors in forward, hold no locks, files or generators",
            ) from error

    def _shares(self, live: Tensor) -> bool:
        return self.precision == "fp32" or live.dim() < 2

    def _parameter(self, live: nn.Parameter) -> nn.Parameter:
        data = live.detach() if self._shares(live) else live.detach().to(torch.bfloat16)
        return nn.Parameter(data, requires_grad=False)

    def _buffers(self) -> dict[int, Tensor]:
        """The copy's buffers, by the identity of the model's."""
        live = {id(b): b for b in self.model.buffers()}
        return live if self.mode == "eval" else {i: b.detach().clone() for i, b in live.items()}

    def _follow(self) -> None:
        buffers = self._buffers()
        for pair in self._pairs:
            for name, live in pair.live._parameters.items():
                own = pair.own._parameters[name]
                if live is None or own is None:
                    continue
                if self._shares(live):
                    if own.dtype != live.dtype or own.device != live.device or not own.is_set_to(live):
                        own.data = live.data
                elif own.shape == live.shape and own.device == live.device:
                    own.copy_(live)
                else:
                    own.data = live.detach().to(torch.bfloat16)
            for name, buffer in pair.live._buffers.items():
                pair.own._buffers[name] = None if buffer is None else buffers[id(buffer)]
            pair.follow_attributes(self._copies | buffers)


@dataclass
class _Pair:
    """A module of the model and its copy, with what the module was made of when it was copied."""

    live: nn.Module
    own: nn.Module
    structure: list[Any] = field(init=False)
    # How each attribute that may change inside looked.
    seen: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.structure = _structure(self.live)
        self.seen = {name: _look(value) for name, value in _attributes(self.live) if not isinstance(value, _IMMUTABLE)}

    def is_another_structure(self) -> bool:
        """Whether it is no longer made of the same children, parameters, names of buffers and hooks."""
        return _structure(self.live) != self.structure

    def follow_attributes(self, copies: dict[int, Any]) -> None:
        """Give the copy the attributes that the module has now; `copies` has the copy's tensors and modules by the identity of the model's."""
        own = vars(self.own)
        for name, value in _attributes(self.live):
            if isinstance(value, _IMMUTABLE):
                own[name] = value
            elif (look := _look(value)) != self.seen.get(name):
                own[name] = copy.deepcopy(value, _with_tensors(copies, [value]))
                self.seen[name] = look
        for name in own.keys() - vars(self.live).keys() - _OWN:
            del own[name]


class _Same:
    """Equal to what holds the very same object; held, so that no other can take its identity."""

    __slots__ = ("object",)

    def __init__(self, held: Any) -> None:
        self.object = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.object is other.object

    __hash__ = None  # type: ignore[assignment]


def _structure(module: nn.Module) -> list[Any]:
    return [
        type(module),
        list(module._modules.items()),
        [(name, _Same(p)) for name, p in module._parameters.items()],
        list(module._buffers),
        list(module._forward_pre_hooks.items()),
        list(module._forward_hooks.items()),
    ]


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(module).items() if name not in _OWN)


def _look(value: Any, within: tuple[int, ...] = ()) -> Any:
    """What differs when a value has changed, also inside: to compare, not to use."""
    if isinstance(value, _IMMUTABLE):
        return value
    if isinstance(value, Tensor):
        return _Same(value), value.data_ptr(), None if value.is_inference() else value._version
    if isinstance(value, nn.Module) or id(value) in within:
        return _Same(value)
    within = (*within, id(value))
    if isinstance(value, dict):
        return type(value), [(key, _look(one, within)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [_look(one, within) for one in value]
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(value)
    return _Same(value), [(name, _look(one, within)) for name, one in getattr(value, "__dict__", {}).items()]


def _with_tensors(copies: dict[int, Any], values: list[Any]) -> dict[int, Any]:
    """What is copied already, by identity, and with it the tensors in these attributes: torch refuses to copy one that has a history."""
    return {**{id(t): t.detach().clone() for t in _tensors(values) if id(t) not in copies}, **copies}


def _tensors(values: Iterable[Any], within: tuple[int, ...] = ()) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif not isinstance(value, (*_IMMUTABLE, nn.Module)) and id(value) not in within:
            parts = value.values() if isinstance(value, dict) else value
            if not isinstance(value, (dict, list, tuple, set, frozenset)):
                parts = getattr(value, "__dict__", {}).values()
            yield from _tensors(parts, (*within, id(value)))

"""Fine-tuning: parts of a network that stay as they are, parts with a learning rate of their own by the names of their parameters, or without weight decay."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from actkit.errors import InputError, nearest


@dataclass(frozen=True)
class Parts:
    """What of a network trains, and how.

    Args:
        frozen: parameters that stay as they are.
        frozen_modules: the modules that stay in eval mode, by name: those whose own parameters are all frozen, or that a pattern names.
        scales: by the name of a parameter, what its learning rate is multiplied with; 1 where it is not named.
    """

    frozen: list[nn.Parameter] = field(default_factory=list)
    frozen_modules: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What is to be said of it, in lines."""
        made = []
        if self.frozen:
            count = sum(parameter.numel() for parameter in self.frozen)
            made.append(f"{count:,} parameters in {len(self.frozen)} tensors are frozen")
        for scale in sorted(set(self.scales.values())):
            tensors = list(self.scales.values()).count(scale)
            made.append(f"{tensors} tensors have {scale:g} times the learning rate")
        return made

    @property
    def is_whole(self) -> bool:
        """Whether all of the network trains alike."""
        return not self.frozen and not self.scales

    @staticmethod
    def of(model: nn.Module, role: str, freeze: Sequence[str], lr_scale: Mapping[str, float]) -> Parts:
        """Raises `InputError` for a pattern that matches nothing, where nothing is left to train, and for a factor that is not positive."""
        if not freeze and not lr_scale:
            return Parts()
        names = dict(model.named_parameters())
        modules = [name for name, _ in model.named_modules() if name]
        frozen = {name for pattern in freeze for name in _matching(pattern, names, modules, f"{role}/role.freeze")}
        if frozen >= names.keys():
            raise InputError(f"{role}/role.freeze leaves nothing to train")
        scales: dict[str, float] = {}
        for pattern, scale in lr_scale.items():
            if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < float("inf"):
                raise InputError(
                    f"{role}/role.lr_scale[{pattern!r}] must be a positive number, got {scale!r}",
                    help="role.freeze keeps parts as they are",
                )
            found = _matching(pattern, names, modules, f"{role}/role.lr_scale")
            if found <= frozen:
                raise InputError(f"{role}/role.lr_scale: all that {pattern!r} names is frozen")
            scales |= dict.fromkeys(found, float(scale))
        still = [name for name in modules if _is_frozen(model, name, frozen, freeze)]
        return Parts([names[name] for name in names if name in frozen], still, scales)


def _is_frozen(model: nn.Module, name: str, frozen: set[str], freeze: Iterable[str]) -> bool:
    own = [f"{name}.{inner}" for inner, _ in model.get_submodule(name).named_parameters(recurse=False)]
    return frozen.issuperset(own) if own else any(fnmatch.fnmatchcase(name, pattern) for pattern in freeze)


def _matching(pattern: str, names: Iterable[str], modules: Iterable[str], what: str) -> set[str]:
    """The parameters that a pattern names, by themselves or by a module that holds them."""
    within = [name for name in modules if fnmatch.fnmatchcase(name, pattern)]
    found = {
        name
        for name in names
        if fnmatch.fnmatchcase(name, pattern) or any(name.startswith(f"{module}.") for module in within)
    }
    if not found:
        parts = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 2)}
        tops = {name.partition(".")[0] for name in names}
        help = nearest(pattern.rstrip(".*"), parts, listing=False) or nearest(pattern, tops)
        raise InputError(f"{what}: {pattern!r} matches no parameter", help=help)
    return found


def groups_of(
    optimizer: Any, model: nn.Module, parts: Parts, *, decay: Literal["all", "weights"] = "all"
) -> torch.optim.Optimizer:
    """The optimizer of what trains: a group of parameters for each learning rate, those with the optimizer's own first.

    Args:
        decay: 'weights' leaves parameters of one dimension (biases, normalisations) without weight decay, in groups of their own.

    Raises `InputError` where the optimizer knows no weight decay and some are to be without.
    """
    made: torch.optim.Optimizer
    if parts.is_whole and decay == "all":
        made = optimizer(model.parameters())
        return made
    kinds: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            bare = decay == "weights" and parameter.dim() <= 1
            kinds.setdefault((parts.scales.get(name, 1.0), bare), []).append(parameter)
    order = sorted(kinds, key=lambda kind: (kind[0] != 1.0, *kind))
    made = optimizer([{"params": kinds[kind]} for kind in order])
    if decay == "weights" and "weight_decay" not in made.defaults:
        raise InputError(f"role.decay = 'weights': {type(made).__name__} has no weight decay", help="leave it out")
    for group, (scale, bare) in zip(made.param_groups, order, strict=True):
        group["lr"] = group["lr"] * scale
        group["lr_scale"] = scale
        if bare:
            group["weight_decay"] = 0.0
    return made


def scaled_settings(schedule: Any, optimizer: torch.optim.Optimizer, parts: Parts) -> Any:
    """The schedule, where it names learning rates of its own (OneCycleLR's `max_lr`, CyclicLR's): one for each group."""
    if schedule is None or not parts.scales:
        return schedule
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    own = {
        name: [schedule.keywords[name] * scale for scale in scales]
        for name in ("base_lr", "max_lr")
        if isinstance(schedule.keywords.get(name), (int, float))
    }
    if not own:
        return schedule
    made = functools.partial(schedule, **own)
    made.spec = schedule.spec  # type: ignore[attr-defined]
    return made

"""Roles: the models that an objective trains or consults, each with its own optimizer and schedule.

`robust(x)` is the training forward. `robust.frozen(mode)` is the view for attacks and probes. This is the one home of freezing, memory
layout and precision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR, SequentialLR

from actkit.config import registry
from actkit.config.registry import Backbone, Optimizer, Schedule, register
from actkit.errors import InputError
from actkit.networks.averages import Average
from actkit.networks.building import initialise
from actkit.networks.fine_tuning import Parts, groups_of, scaled_settings
from actkit.networks.frozen import FrozenCopy, Mode, Precision, in_eval_mode
from actkit.networks.layout import channels_last
from actkit.networks.views import View, described, with_features


class Role:
    """A model in its role. Without an optimizer it is only consulted: in eval mode, its weights without gradients.

    Args:
        name: of the role: 'robust', 'natural'.
        model: gives logits (B, classes) for x (B, C, H, W) in [0,1]. It is moved to channels-last, and into the mode of its role.
        optimizer, schedule: torch's own, of the model's parameters; `schedule_every` says what the schedule counts.
        precision: of the forward passes; 'bf16' is autocast. Weights, logits and whatever is computed from them stay fp32.
        trained: whether it is; by default, where it has an optimizer.
        average: of its weights, kept beside them.
        frozen_modules: parts that stay in eval mode while the rest trains: their running statistics do not move.
        clip_norm: the largest norm of all gradients together with which a step is made; larger ones are scaled down to it.

    `name`, `model`, `optimizer` and `notes` (what is to be said of how it was made) are its attributes, `device` is its model's, `lr` the rate of the
    optimizer's first group, None without one.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        schedule: Any = None,
        schedule_every: Literal["epoch", "batch"] = "epoch",
        precision: Precision = "fp32",
        trained: bool | None = None,
        average: Average | None = None,
        frozen_modules: Collection[str] = (),
        clip_norm: float | None = None,
    ) -> None:
        self.name, self.model = name, channels_last(model)
        # Whether the network changes its input in place, by its mode; found out at its first forward pass.
        self._changes_input: dict[bool, bool] = {}
        self.optimizer, self.schedule, self.schedule_every = optimizer, schedule, schedule_every
        self.clip_norm = clip_norm
        self.precision = precision
        self._copies: dict[tuple[Mode, Precision], FrozenCopy] = {}
        trained = optimizer is not None if trained is None else trained
        self.trained = trained
        model.train(trained).requires_grad_(trained)
        self.frozen_modules = tuple(frozen_modules)
        # What is to be said of how it was made, such as where its first weights come from.
        self.notes: list[str] = []
        in_eval_mode(model, self.frozen_modules)
        self.average = average
        self._averaged: Role | None = None

    def __repr__(self) -> str:
        return f"Role({self.name})"

    @property
    def device(self) -> torch.device:
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def classifies(self) -> bool:
        """Whether its outputs are logits of the data's classes, so that it is examined. A network that is none (a generator) says `classifies = False`."""
        return bool(getattr(self.model, "classifies", True))

    def __call__(self, *inputs: Tensor, branch: str | None = None, precision: Precision | None = None) -> Tensor:
        """The training forward: logits of shape (B, classes) in fp32, computed in the role's own precision or another.

        Args:
            inputs: images (B, C, H, W) in [0,1]; of a network that takes more, what its `forward` names.
            branch: which of its sets of layers the network shall use, handed to its `forward(x, branch=...)`: two sets of BatchNorm, for instance.
        """
        return self._forward(self.model, inputs, branch, precision or self.precision)

    def features(self, *inputs: Tensor, branch: str | None = None) -> tuple[Tensor, Tensor]:
        """The training forward with what enters the last layer: logits (B, classes) and features (B, features), both fp32 and with gradients."""
        return with_features(lambda: self(*inputs, branch=branch), self.model)

    def _forward(
        self, model: nn.Module, inputs: tuple[Tensor, ...], branch: str | None, precision: Precision
    ) -> Tensor:
        inputs = tuple(t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in inputs)
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = self._on_its_own_copy(model, inputs, branch)
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"{self.name}: the network ({type(self.model).__name__}) gives {described(outputs)}; logits of shape (images, classes) are wanted",
                help="wrap it in a module that gives the logits alone, in training too",
            )
        return outputs.float()

    def _on_its_own_copy(self, model: nn.Module, inputs: tuple[Tensor, ...], branch: str | None) -> Any:
        """The network's outputs. One that changes its input in place (x.sub_(mean)) is given a copy: the caller's x stays what it was."""
        call = model if branch is None else functools.partial(model, branch=branch)
        changes = self._changes_input.get(model.training, True)
        if not changes:
            return call(*inputs)
        own = tuple(t.clone() for t in inputs)
        outputs = call(*own)
        if model.training not in self._changes_input:
            pairs = zip(own, inputs, strict=True)
            self._changes_input[model.training] = not all(a.detach().equal(b.detach()) for a, b in pairs)
        return outputs

    @contextlib.contextmanager
    def frozen(
        self, mode: Mode = "eval", *, branch: str | None = None, precision: Precision | None = None
    ) -> Iterator[View]:
        """The model as attacks and probes see it: logits that depend on x alone, as of now.

        It shares the weights but needs no gradient of theirs, is in the given mode whatever the model's own is, and leaves no trace:
        in 'train' mode it has running statistics of its own (and dropout, if any, draws from torch's generator). Nothing of the model is
        touched, so nothing needs restoring. It computes in the role's own precision, or in the one given. For `branch` see `__call__`.
        """
        precision = precision or self.precision
        model = self._frozen_copy(mode, precision)
        yield View(lambda *inputs: self._forward(model, inputs, branch, precision), model)

    def _frozen_copy(self, mode: Mode, precision: Precision) -> nn.Module:
        key = (mode, precision)
        if key not in self._copies or self._copies[key].model is not self.model:
            self._copies[key] = FrozenCopy(self.model, mode, precision, self.frozen_modules)
        return self._copies[key].current()

    @contextlib.contextmanager
    def representation(self, *, precision: Precision | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
        """What enters the model's last layer with weights, in eval mode, as of now: features of shape (B, features). Nothing of the model is touched."""
        with self.frozen("eval", precision=precision) as view:
            yield lambda x: view.features(x)[1]

    def forget_views(self) -> None:
        """Make the frozen views anew when they are next asked for."""
        self._copies.clear()

    def zero_grad(self) -> None:
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        if self.optimizer is None:
            raise InputError(f"the role {self.name!r} has no optimizer, but the objective yields a loss for it")
        if self.clip_norm is not None:
            trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.clip_norm)
        self.optimizer.step()

    def end(self, what: Literal["epoch", "batch"], *, epochs: int) -> None:
        """Move the schedule, and the average, when an epoch or a batch has ended, whichever it counts; `epochs` are finished."""
        if self.schedule is not None and self.schedule_every == what:
            self.schedule.step()
        if self.average is not None:
            self.average.end(self.model, what, epochs=epochs)

    @property
    def averaged(self) -> Role | None:
        """The averaged model as a role that is only consulted, `robust.ema`; None where nothing was averaged yet."""
        if self.average is None or not self.average.count:
            return None
        if self._averaged is None:
            self._averaged = Role(f"{self.name}.{self.average.kind}", self.average.model)
        return self._averaged

    @property
    def lr(self) -> float | None:
        return None if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])


@register("", "role")
@dataclass(frozen=True, kw_only=True)
class RoleConfig:
    """What a role is made of. `role.backbone` serves every role, `natural/role.backbone` one of them.

    A role without an optimizer is only consulted (a teacher, a helper). `weights` is an actkit checkpoint to start from;
    `schedule_every` says what torch's scheduler counts.

    Args:
        average: 'ema' or 'swa' keeps an average of the weights beside them: a model of its own, `robust.ema`, in checkpoints and evaluations.
        average_decay: of 'ema'. average_from: how many epochs come before averaging begins.
        classes: how the classes of `weights` belong to the data's where they are called differently: 'by_name', 'by_number', or not at all: the last
            layer begins anew ('new', as it does by itself where their numbers differ).
        freeze: names of parameters or modules that stay as they are, as patterns: ['conv1.*', 'layer1.*']. Their BatchNorm stays in eval mode.
        lr_scale: by pattern, what the learning rate is multiplied with: {'fc.*': 10.0}. Of several that match, the last counts.
        clip_norm: the largest norm of all gradients of a step together; larger ones are scaled down to it.
        decay: what the optimizer's weight decay is of: 'all' parameters, or the 'weights' alone, not biases and normalisations (those of one dimension).
        warmup: so many periods (epochs or batches, as `schedule_every` says) before the schedule begins: in the t-th the learning rate is t / (warmup + 1)
            of the schedule's own first. The schedule counts from there: its milestones move back by `warmup`, and `T_max` and `total_steps` are what is
            left of the training where the recipe is silent.
    """

    backbone: Backbone
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    schedule_every: Literal["epoch", "batch"] = "epoch"
    weights: str | None = None
    average: Literal["ema", "swa"] | None = None
    average_decay: float = 0.999
    average_from: int = 0
    classes: Literal["by_name", "by_number", "new"] | None = None
    freeze: list[str] | None = None
    lr_scale: dict[str, float] | None = None
    clip_norm: float | None = None
    decay: Literal["all", "weights"] = "all"
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.optimizer is None:
            self._assert_untrained()
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"role.clip_norm must be positive, got {self.clip_norm}")
        if self.warmup < 0:
            raise InputError(f"role.warmup counts epochs or batches, as role.schedule_every says, got {self.warmup}")
        if self.classes is not None and self.weights is None:
            raise InputError(
                "role.classes says how the classes of role.weights belong to the data's, and there are no weights"
            )
        if self.average is not None and self.optimizer is None:
            raise InputError("role.average averages a training, and a role without an optimizer is not trained")
        if not 0 < self.average_decay < 1:
            raise InputError(f"role.average_decay must lie between 0 and 1, got {self.average_decay}")
        if self.average_from < 0:
            raise InputError(f"role.average_from counts epochs, got {self.average_from}")

    def _assert_untrained(self) -> None:
        """Raise `InputError` for settings of a training, of a role that is only consulted."""
        if self.freeze or self.lr_scale:
            raise InputError(
                "role.freeze and role.lr_scale are of a training, and a role without an optimizer is not trained"
            )
        if self.clip_norm is not None or self.decay != "all" or self.warmup:
            raise InputError(
                "role.clip_norm, role.decay and role.warmup are of a training, and a role without an optimizer is not trained"
            )

    def make(
        self,
        name: str,
        *,
        num_classes: int,
        in_chans: int,
        seed: int,
        device: torch.device | str,
        length: Mapping[str, int],
        precision: Precision,
        image_size: tuple[int, int] | None = None,
    ) -> Role:
        """The role itself, with random weights of its own. `length` of the run in epochs and in batches is for the schedule."""
        sizes: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "image_size": image_size}
        model = initialise(self.backbone, **sizes, seed=seed).to(device)
        return self.around(name, model, length=length, precision=precision)

    def around(
        self,
        name: str,
        model: nn.Module,
        *,
        length: Mapping[str, int],
        precision: Precision,
        frozen: Sequence[nn.Parameter] = (),
    ) -> Role:
        """The role around a model that is there; `frozen`: parameters that stay as they are, beside those that `freeze` names."""
        parts = Parts.of(model, name, self.freeze or [], self.lr_scale or {})
        parts = dataclasses.replace(parts, frozen=[*parts.frozen, *frozen])
        role = Role(
            name,
            model,
            precision=precision,
            schedule_every=self.schedule_every,
            trained=self.optimizer is not None,
            frozen_modules=parts.frozen_modules,
            clip_norm=self.clip_norm,
        )
        for parameter in parts.frozen:
            parameter.requires_grad_(False)
        role.notes += parts.notes
        if self.optimizer is not None:
            with _explaining(self.optimizer):
                role.optimizer = groups_of(self.optimizer, role.model, parts, decay=self.decay)
            with _explaining(self.schedule or self.optimizer):
                schedule = scaled_settings(self.schedule, role.optimizer, parts)
                role.schedule = make_schedule(
                    role.optimizer, schedule, length=length[self.schedule_every], warmup=self.warmup
                )
            role.notes += self._notes(role.optimizer)
        if self.average is not None:
            role.average = Average(role.model, self.average, decay=self.average_decay, first=self.average_from)
        return role

    def _notes(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """What is to be said of its steps, in lines."""
        made = []
        if self.decay == "weights":
            bare = sum(p.dim() <= 1 for group in optimizer.param_groups for p in group["params"])
            made.append(f"{bare} tensors, biases and normalisations, have no weight decay")
        if self.clip_norm is not None:
            made.append(f"gradients are clipped to a norm of {self.clip_norm:g}")
        if self.warmup:
            periods = (
                {"epoch": "epochs", "batch": "batches"}[self.schedule_every] if self.warmup > 1 else self.schedule_every
            )
            made.append(f"warm-up of {self.warmup:,} {periods}, from 1/{self.warmup + 1} of the learning rate")
        return made


@contextlib.contextmanager
def _explaining(component: Any) -> Iterator[None]:
    """Torch's own complaints about a setting, as ours."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{component.spec!r} cannot be made: {error}") from error


def make_schedule(optimizer: torch.optim.Optimizer, schedule: Any, *, length: int, warmup: int = 0) -> Any:
    """torch's scheduler by name; where it asks for the length of the run (`total_steps`, `T_max`) and the recipe is silent, it is given what follows
    the warm-up.

    Args:
        warmup: periods before it begins, in the t-th of which the rate is t / (warmup + 1) of its own first, or of the optimizer's where there is none.

    Raises `InputError` for a warm-up that is as long as the training.
    """
    if warmup and length <= warmup:
        raise InputError(
            f"role.warmup = {warmup:,} is no less than the whole training ({length:,}), so nothing would follow",
            help="lower it",
        )
    made = None
    if schedule is not None:
        parameters = inspect.signature(schedule.func).parameters
        silent = [name for name in registry.KINDS["schedule"].run_defaults if name not in schedule.keywords]
        made = schedule(optimizer, **{name: length - warmup for name in silent if name in parameters})
    if not warmup:
        return made
    # Made after the schedule, so that it rises to that one's own first rate.
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return rise if made is None else SequentialLR(optimizer, [rise, made], milestones=[warmup])


# What the loop cannot drive: they need a closure, a metric, a function, other schedulers, or gradients of another kind.
_LEFT_OUT = {
    "LBFGS",
    "SparseAdam",
    "ReduceLROnPlateau",
    "LambdaLR",
    "MultiplicativeLR",
    "SequentialLR",
    "ChainedScheduler",
    "SWALR",
}


def _register_torch() -> None:
    """torch's own optimizers and schedulers, under their own names."""
    for kind, module, base in (
        ("optimizer", torch.optim, torch.optim.Optimizer),
        ("schedule", torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    ):
        for name, cls in vars(module).items():
            if (
                inspect.isclass(cls)
                and issubclass(cls, base)
                and cls is not base
                and name not in _LEFT_OUT
                and not name.startswith("_")
            ):
                registry.add(kind, name, cls, origin="torch")


_register_torch()


def examined(roles: Mapping[str, Role]) -> dict[str, Role]:
    """The models that probes look at: the classifiers among the roles, and after them the averages that they keep."""
    return {name: role for name, role in with_averages(roles).items() if role.classifies}


def with_averages(roles: Mapping[str, Role]) -> dict[str, Role]:
    """The roles, and after them the averaged models that they keep."""
    averaged = [role.averaged for role in roles.values()]
    return {**roles, **{role.name: role for role in averaged if role is not None}}

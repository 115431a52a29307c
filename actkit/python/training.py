"""`actkit.train`: an objective, a model and data in, a trained model and its history out, by the loop that runs recipes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.datasets import Data, Split
from actkit.datasets.splits import augmentation
from actkit.display import Display
from actkit.errors import InputError
from actkit.evaluation.looks import EpochLine
from actkit.machine import pick_device
from actkit.networks.building import initialise
from actkit.networks.class_names import say_nothing
from actkit.networks.roles import Role, with_averages
from actkit.networks.trial import assert_takes
from actkit.noise import seed_for
from actkit.python.data import as_data, assert_trainable
from actkit.python.fresh import copy_with_new_weights
from actkit.python.models import as_role, classes_of, network_of
from actkit.python.planning import Given, Plan, objective_spec, plan_of, plan_of_recipe, spec_of
from actkit.python.surroundings import display_of, exact_arithmetic, load_plugins, private_randomness
from actkit.training.loop import assert_finite, fit
from actkit.training.run import assert_last_batch

# A module, or a backbone by its registered name or as a Spec.
Network = nn.Module | str | Spec


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Args:
        model: the headline model: the module that was handed in, or the network that was built.
        models: all of them, by role.
        history: a dict an epoch: epoch, step, images_per_second, lr and loss by role.
        said: what it trained with, a line each.
    """

    model: nn.Module
    models: dict[str, nn.Module]
    history: list[dict[str, Any]]
    said: tuple[str, ...]

    def __str__(self) -> str:
        lines = list(self.said)
        if self.history:
            first, last, count = self.history[0]["loss"], self.history[-1]["loss"], len(self.history)
            losses = ", ".join(f"{role} {first[role]:.3f} -> {last[role]:.3f}" for role in last)
            if count == 1:
                losses = ", ".join(f"{role} {loss:.3f}" for role, loss in last.items())
            lines.append(f"loss       {losses} in {count} epoch{'s' * (count > 1)}")
        return "\n".join(lines)

    __repr__ = __str__


def train(
    objective: str | Spec | Recipe | Path,
    models: Network | Mapping[str, Network] | None = None,
    data: Any = None,
    *,
    epochs: int | None = None,
    eps: float | str | None = None,
    attack: str | Spec | None = None,
    norm: str | None = None,
    step_size: float | str | None = None,
    steps: int | None = None,
    optimizer: str | Spec | None = None,
    lr: float | None = None,
    schedule: str | Spec | Literal["none"] | None = None,
    batch_size: int | None = None,
    crop: int = 0,
    flip: bool = False,
    seed: int | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    **settings: Any,
) -> Trained:
    """Train by an objective, on the loop that `actkit run` uses. **A module that is handed in is what is trained, in place**; its mode, memory layout and frozen
    parameters come back as they were. Data and random states are left as they were. Nothing is written.

    Args:
        objective: 'act', 'madry', 'trades', 'natural', 'free', 'fast', a plugin's; a Spec; or a recipe (`actkit.load(file)`, or a path that ends in .gin),
            which also says the models, the data and everything below where these are left out.
        models: a module, or a backbone by name ('resnet18') or Spec: the headline model; or a dict of them by role. Other roles that the objective has get a
            copy of the headline's network with new random weights.
        data: what `as_data` takes; a torch data set's random transforms are drawn anew in each epoch.
        epochs: how many.
        eps, norm, step_size, steps: of the attack in training: by default PGD of 10 steps of eps/4.
        attack: another, by name or as a Spec.
        optimizer: of torch's, by name ('SGD', with momentum 0.9 and weight decay 5e-4, by default; 'AdamW') or as a Spec; lr its learning rate, 0.1 by default
            for SGD, torch's own for others.
        schedule: 'CosineAnnealingLR' by default; another of torch's by name or Spec, 'none' for a constant learning rate.
        batch_size: 128 by default.
        crop, flip: random crops of the images padded by so many pixels, and random flips.
        seed: of new weights, the order, augmentation and every random start; 0 by default.
        precision: of the training's forward passes; weights stay fp32.
        device: by default where the model is, a GPU for a backbone by name where there is one. A module is moved there, and back at the end.
        progress: show how far it is, on a terminal.
        settings: the objective's own: alpha=0.5 for 'act', beta=6.0 for 'trades'.

    Raises `InputError` for what cannot be used, before anything is trained; `ActkitError` where the training diverges.
    """
    load_plugins()
    said = Given(epochs, batch_size, seed, precision, optimizer, lr, schedule)
    attacked = {"eps": eps, "attack": attack, "norm": norm, "step_size": step_size, "steps": steps}
    if isinstance(objective, (Recipe, Path)) or (isinstance(objective, str) and objective.endswith(".gin")):
        beside = {name: value for name, value in {**attacked, **settings}.items() if value is not None}
        plan = plan_of_recipe(objective, said, beside)
    else:
        plan = plan_of(objective_spec(objective, attacked, settings), said)
    given = _given_models(plan, models)
    target, display = _target(given, device), display_of(progress)
    with (
        private_randomness(plan.seed, target),
        torch.inference_mode(False),
        torch.enable_grad(),
        contextlib.ExitStack() as stack,
    ):
        examples = _for_models(_augmented(_data_of(plan, data), crop, flip), given)
        stack.enter_context(exact_arithmetic(target))
        roles, notes = _roles_and_notes(plan, given, examples, target, stack)
        _assert_last_batch(plan, examples, roles)
        history = _history(plan, roles, examples, display)
        trained = {name: role.model for name, role in with_averages(roles).items()}
    for name, network in trained.items():
        if not isinstance(given.get(name), nn.Module):
            network.eval()
    # What was handed in is handed back, not what it wraps.
    trained |= {name: one for name, one in _by_role(plan, models).items() if isinstance(one, nn.Module)}
    return Trained(trained[plan.objective.roles[0]], trained, history, (*_said(plan, roles, examples, target), *notes))


def _said(plan: Plan, roles: Mapping[str, Role], data: Data, device: torch.device) -> list[str]:
    """What it trained with, a line each."""
    first = plan.objective.roles[0]
    batches = -(-data.sizes["train"] // plan.batch_size)
    optimizer, schedule = plan.role(first).optimizer, plan.role(first).schedule
    rate = "a constant learning rate" if schedule is None else repr(schedule.spec)
    return [
        f"objective  {plan.objective.spec!r}",
        f"data       {data.name}: {data.sizes['train']:,} training images, {data.num_classes} classes",
        f"length     {plan.epochs} epochs of {batches:,} batches of {plan.batch_size}",
        f"optimizer  {optimizer.spec!r}, {rate}" if optimizer else f"optimizer  none: {first} is only consulted",
        f"seed       {plan.seed}, on {device}, {plan.precision}",
    ]


# -- models and data -----------------------------------------------------------------------------------------------------


def _data_of(plan: Plan, data: Any) -> Data:
    """Raises `InputError` for data that cannot be trained on."""
    if data is None and plan.run is None:
        raise InputError("there are no data to train on", help="give a tuple (x, y), a Dataset, or a data set's name")
    assert_trainable(data)
    made: Data = as_data(data, split="train") if data is not None or plan.run is None else plan.run.data()
    if "train" not in made.sizes:
        raise InputError(f"{made.name} has no training images", help=f"it has {', '.join(made.sizes)}")
    return made


def _augmented(data: Data, crop: int, flip: bool) -> Data:
    if not (crop or flip):
        return data
    train = data.split("train")
    if not isinstance(train, Split):
        raise InputError("crop and flip are for images in memory; this data set has transforms of its own")
    changed = dataclasses.replace(train, augment=augmentation(crop, flip, data.shape))
    return dataclasses.replace(data, read=lambda name: changed if name == "train" else data.split(name))


def _by_role(plan: Plan, models: Any) -> dict[str, Any]:
    if models is None or isinstance(models, Mapping):
        return dict(models or {})
    return {plan.objective.roles[0]: models}


def _given_models(plan: Plan, models: Any) -> dict[str, Network]:
    """What was handed in, by role. Raises `InputError` for a role that is none, for one module in two roles, and where the headline model is missing."""
    roles, given = plan.objective.roles, _by_role(plan, models)
    if unknown := sorted(given.keys() - set(roles)):
        raise InputError(f"the objective has no role {unknown[0]!r}", help=f"its roles are {', '.join(roles)}")
    if roles[0] not in given and (given or plan.run is None):
        raise InputError(
            f"there is no model for the headline role {roles[0]!r}",
            help="give a module, or a backbone's name such as 'resnet18'",
        )
    networks = {name: one if isinstance(one, (str, Spec)) else network_of(one) for name, one in given.items()}
    modules = [id(one) for one in networks.values() if isinstance(one, nn.Module)]
    if len(set(modules)) < len(modules):
        raise InputError("two roles are the same module", help="hand in a copy: copy.deepcopy(model)")
    return networks


def _for_models(data: Data, given: Mapping[str, Network]) -> Data:
    """The data with as many classes as the modules tell apart, where labels alone say how many there are. Raises `InputError` where they do not fit."""
    for name, one in given.items():
        if not isinstance(one, nn.Module):
            continue
        width = classes_of(as_role(one, name), data.shape)
        if width > data.num_classes and say_nothing(data.classes):
            data = dataclasses.replace(data, classes=tuple(map(str, range(width))))
        if width != data.num_classes:
            raise InputError(f"{name} gives logits of {width} classes, {data.name} has {data.num_classes}")
    return data


def _networks(plan: Plan, given: Mapping[str, Network], data: Data) -> tuple[dict[str, nn.Module], list[str]]:
    """A network for each role: as handed in, built by name, or like the headline's with new weights; and what is to be said of that."""
    made: dict[str, nn.Module] = {}
    notes: list[str] = []
    first = plan.objective.roles[0]
    for name in plan.objective.roles:
        one, seed = given.get(name, given[first]), seed_for(plan.seed, *name.encode())
        if not isinstance(one, nn.Module):
            spec = spec_of("backbone", one)
            made[name] = _built(spec, data, seed)
            notes.append(f"{name:<10} {spec!r}: {_counted(made[name])}")
        elif name in given:
            made[name] = one
            notes.append(f"{name:<10} {type(one).__name__}, as it was handed in, trained in place: {_counted(one)}")
        else:
            made[name] = copy_with_new_weights(one, seed=seed, name=name)
            notes.append(
                f"{name:<10} {type(one).__name__}, a copy of {first}'s network with new weights: {_counted(one)}"
            )
    return made, notes


def _counted(network: nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()):,} parameters"


def _built(spec: Spec, data: Data, seed: int) -> nn.Module:
    """A backbone for these data; its first weights are those of a recipe with the same seed."""
    channels, height, width = data.shape
    return initialise(
        spec.build(), num_classes=data.num_classes, in_chans=channels, image_size=(height, width), seed=seed
    )


# -- carrying it out -----------------------------------------------------------------------------------------------------


def _target(given: Mapping[str, Network], device: str | torch.device | None) -> torch.device:
    """Where the training runs: as said, where the handed-in module is, or on the first GPU."""
    if device is not None:
        return device if isinstance(device, torch.device) else pick_device(device)
    for one in given.values():
        if isinstance(one, nn.Module) and (parameter := next(one.parameters(), None)) is not None:
            return parameter.device
    return pick_device("auto")


def _roles_and_notes(
    plan: Plan, given: Mapping[str, Network], data: Data, device: torch.device, stack: contextlib.ExitStack
) -> tuple[dict[str, Role], list[str]]:
    """The roles, and what is to be said of each; what was handed in is put back as it was, but for its values, when the stack ends."""
    if not given and plan.run is not None:
        roles = plan.run.make_roles(data, device)
        backbones = {name: config.backbone.spec for name, config in plan.run.roles.items()}
        return roles, [f"{name:<10} {backbones[name]!r}: {_counted(role.model)}" for name, role in roles.items()]
    networks, notes = _networks(plan, given, data)
    for name in given:
        stack.enter_context(_as_it_was(networks[name]))
    return _roles(plan, networks, data, device), notes


def _roles(plan: Plan, networks: Mapping[str, nn.Module], data: Data, device: torch.device) -> dict[str, Role]:
    """The networks as the loop trains them; parameters that the caller has frozen stay as they are, unless all are."""
    batches = -(-data.sizes["train"] // plan.batch_size)
    length = {"epoch": plan.epochs, "batch": plan.epochs * batches}
    made = {}
    for name, network in networks.items():
        config = plan.role(name)
        frozen = [p for p in network.parameters() if not p.requires_grad]
        if len(frozen) == len(list(network.parameters())):
            frozen = []
        role = config.around(name, network.to(device), length=length, precision=plan.precision, frozen=frozen)
        assert_takes(role, _Called(name, network), data.shape, data.num_classes, in_training=role.trained)
        made[name] = role
    return made


def _assert_last_batch(plan: Plan, data: Data, roles: dict[str, Role]) -> None:
    """Raise `InputError` where an epoch ends in a batch of one image that a network cannot train on."""
    try:
        assert_last_batch(plan, data, roles)
    except InputError as error:
        raise InputError(error.message, help=(error.help or "").removeprefix("run.")) from error


@dataclass(frozen=True)
class _Called:
    """What a message calls a module."""

    name: str
    network: nn.Module

    def __repr__(self) -> str:
        return f"{self.name} ({type(self.network).__name__})"


def _history(plan: Plan, roles: dict[str, Role], data: Data, display: Display) -> list[dict[str, Any]]:
    """Train to the end; a line an epoch."""
    lines: list[dict[str, Any]] = []
    began, images = time.monotonic(), 0
    batches = fit(
        *(plan.objective, roles, data.train),
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        seed=plan.seed,
        steps=plan.steps,
        accumulate=plan.accumulate,
    )
    record = None
    with display.training(plan) as shown:
        for record in batches:
            shown.batch(record)
            images += record.images
            if record.epoch_ended:
                assert_finite(record, roles)
                rate = images / max(time.monotonic() - began, 1e-9)
                line = EpochLine(record.position.epoch, record.position.step, round(rate, 1), record.lr, record.losses)
                shown.epoch(line)
                lines.append(line.to_json())
                began, images = time.monotonic(), 0
    if record is not None and not record.epoch_ended:
        assert_finite(record, roles)
    return lines


@contextlib.contextmanager
def _as_it_was(network: nn.Module) -> Iterator[None]:
    """Afterwards all but the values is as it was: modes, frozen parameters, memory layout, device, hooks that the layout needs."""
    modes = {module: module.training for module in network.modules()}
    hooks = {module: set(module._forward_pre_hooks) for module in modes}
    needs_gradient = {parameter: parameter.requires_grad for parameter in network.parameters()}
    strides = {name: tensor.stride() for name, tensor in _tensors(network)}
    device = next((tensor.device for _, tensor in _tensors(network)), torch.device("cpu"))
    try:
        yield
    finally:
        network.to(device)
        for module, training in modes.items():
            module.training = training
            for key in module._forward_pre_hooks.keys() - hooks[module]:
                del module._forward_pre_hooks[key]
        for name, tensor in _tensors(network):
            if tensor.stride() != strides[name]:
                tensor.data = tensor.data.new_empty_strided(tensor.shape, strides[name]).copy_(tensor.data)
        for parameter, needed in needs_gradient.items():
            parameter.requires_grad_(needed)
            parameter.grad = None


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()

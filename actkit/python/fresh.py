"""A second network like the first: for objectives that train a pair."""

from __future__ import annotations

import copy

import torch
from torch import nn

from actkit.errors import InputError
from actkit.networks.frozen import without_history


def copy_with_new_weights(model: nn.Module, *, seed: int, name: str) -> nn.Module:
    """A copy of a network, every layer initialised anew by its own `reset_parameters`, as a function of the seed; nothing of the model is touched.

    Raises `InputError` where a parameter belongs to a module that has none: it would keep the first network's value.
    """
    with without_history(model):
        made = copy.deepcopy(model)
    renewed: set[int] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in made.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                renewed |= {id(p) for p in module.parameters(recurse=False)}
    left = [where for where, parameter in made.named_parameters() if id(parameter) not in renewed]
    if left:
        raise InputError(
            f"{name} cannot be made from the model that was handed in: {left[0]} has no way to be initialised anew",
            help=f"hand it in: actkit.train(..., {{'...': model, {name!r}: another}}, ...)",
        )
    for parameter in made.parameters():
        parameter.grad = None
    return made

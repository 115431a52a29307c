"""The view of a frozen model that attacks and probes are handed, and the features that enter a network's last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from actkit.errors import InputError


class View:
    """A frozen model as attacks and probes see it: its outputs depend on the inputs alone, and differentiate with respect to them."""

    def __init__(self, forward: Callable[..., Tensor], module: nn.Module) -> None:
        self._forward, self._module = forward, module

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Logits (B, classes) in fp32 of images (B, C, H, W) in [0,1]; of a network that takes more inputs, what it gives for them."""
        return self._forward(*inputs)

    def features(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and what enters the last layer: features (B, features) in fp32. One forward pass; both differentiate with respect to the inputs."""
        return with_features(lambda: self(*inputs), self._module)


def with_features(forward: Callable[[], Tensor], module: nn.Module) -> tuple[Tensor, Tensor]:
    """What a forward pass gives, and what entered the last of the module's layers with a weight matrix, flattened: (B, features) in fp32.

    Raises `InputError` for a network without such a layer.
    """
    matrices = {
        name.rpartition(".")[0] for name, p in module.named_parameters() if name.endswith("weight") and p.dim() > 1
    }
    entered: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Of the last layer, once all have run.
        entered[:] = inputs[:1]

    handles = [m.register_forward_pre_hook(keep) for name, m in module.named_modules() if name in matrices]
    try:
        outputs = forward()
    finally:
        for handle in handles:
            handle.remove()
    if not entered:
        raise InputError(
            f"{type(module).__name__} has no layer with a weight matrix, and features are what enters the last of them"
        )
    return outputs, entered[0].flatten(1).float()


def described(outputs: Any) -> str:
    """What a network gives, in words: 'a tuple of (2, 10) and (2, 64)', 'a dict of logits (2, 10)'."""
    if isinstance(outputs, Tensor):
        return str(tuple(outputs.shape))
    if isinstance(outputs, Mapping):
        return "a dict of " + " and ".join(f"{key} {described(value)}" for key, value in outputs.items())
    if isinstance(outputs, (tuple, list)):
        kind = (
            "a list" if isinstance(outputs, list) else "a tuple" if type(outputs) is tuple else type(outputs).__name__
        )
        return f"{kind} of " + " and ".join(described(value) for value in outputs)
    return "nothing" if outputs is None else type(outputs).__name__

"""Memory layout: channels-last, but for the layers for which torch is unsafe in it on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Crashes were seen with up to 15 input channels, never with 16, which is one block of fp32 in 512 bits; docs/models.md has what was tried.
SAFE_CHANNELS = 16


def unsafe_in_channels_last(module: nn.Module) -> bool:
    """Whether torch's CPU backward of this layer may write outside its memory for a channels-last input.

    It is that of convolutions with a 1x1 kernel, a stride and few input channels, in fp32. Depending on the CPU, the process ends ("double free",
    SIGSEGV) or the damage is silent. The input and the weight must both be contiguous: either alone makes torch choose channels-last.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < SAFE_CHANNELS
    )


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x, *rest = inputs
    if isinstance(x, Tensor) and x.device.type == "cpu":
        return (x.contiguous(), *rest)
    return inputs


def channels_last(model: nn.Module) -> nn.Module:
    """The model itself, its weights in channels-last; unsafe layers stay contiguous, and are given contiguous inputs from now on."""
    model.to(memory_format=torch.channels_last)
    for module in filter(unsafe_in_channels_last, model.modules()):
        # A clone: of a 1x1 kernel `contiguous` believes that it is so already.
        weight = module.weight
        assert isinstance(weight, Tensor)
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
        if _contiguous not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_contiguous)
    return model

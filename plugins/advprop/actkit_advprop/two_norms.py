from __future__ import annotations

import copy
from typing import Literal

from torch import Tensor, nn

from actkit import Backbone, InputError, register

BRANCHES = ("main", "adversarial")


class NormPair(nn.Module):
    """A BatchNorm and its twin, with weights and statistics of its own; `branch` says which one normalises."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.main, self.adversarial, self.branch = norm, copy.deepcopy(norm), "main"

    def forward(self, x: Tensor) -> Tensor:
        return (self.adversarial if self.branch == "adversarial" else self.main)(x)


class TwoNorms(nn.Module):
    def __init__(self, net: nn.Module, served: str) -> None:
        super().__init__()
        self.net, self.served = net, served

    def forward(self, x: Tensor, branch: str | None = None) -> Tensor:
        branch = branch or self.served
        if branch not in BRANCHES:
            raise InputError(f"two_norms has no branch {branch!r}", help="it has 'main' and 'adversarial'")
        for module in self.modules():
            if isinstance(module, NormPair):
                module.branch = branch
        return self.net(x)


@register("backbone")
def two_norms(
    num_classes: int, *, in_chans: int = 3, net: Backbone, served: Literal["main", "adversarial"] = "main"
) -> nn.Module:
    """Another backbone, each BatchNorm of which becomes two (Xie et al. 2020): `main`, and `adversarial` by branch="adversarial".

    All other layers are shared. `served` is the branch of whoever names none: what evaluations see, and exports. Both begin alike.

    Raises `InputError` for a network without BatchNorm.
    """
    model = net(num_classes, in_chans=in_chans)
    norms = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        raise InputError(f"two_norms: the network ({type(model).__name__}) has no BatchNorm to double")
    for parent, name in norms:
        setattr(parent, name, NormPair(getattr(parent, name)))
    return TwoNorms(model, served)

"""Averages of a role's weights over its training: EMA and SWA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from actkit.networks.frozen import without_history


class Average:
    """A running average of a model's weights and running statistics, by torch's own `AveragedModel`.

    'ema': exponential, after every batch, w <- d w + (1 - d) w_now with d = min(decay, (1 + t) / (10 + t)) at the t-th, so that a short training does not
    keep its first weights (as in the code of Gowal et al. 2020 and Rebuffi et al. 2021, which copies BatchNorm's statistics instead).
    'swa': with equal weights, after every epoch (Izmailov et al. 2018). Both begin once `first` epochs are finished, with a copy.
    BatchNorm's running statistics are averaged as the weights are; they are not computed anew on the training images.
    """

    def __init__(self, model: nn.Module, kind: Literal["ema", "swa"], *, decay: float, first: int) -> None:
        # torch's fast rule for SWA stumbles over BatchNorm's count of batches, an integer.
        rule: dict[str, Any] = {"multi_avg_fn": _ema(decay)} if kind == "ema" else {"avg_fn": _mean}
        self.kind, self.first = kind, first
        with without_history(model):
            self._averaged = AveragedModel(model, use_buffers=True, **rule)
        self._averaged.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        found: nn.Module = self._averaged.module
        return found

    @property
    def count(self) -> int:
        """How many states it is the average of."""
        return int(self._averaged.n_averaged)

    @count.setter
    def count(self, number: int) -> None:
        self._averaged.n_averaged.fill_(number)

    def end(self, model: nn.Module, what: Literal["epoch", "batch"], *, epochs: int) -> None:
        if what == ("batch" if self.kind == "ema" else "epoch") and epochs >= self.first + (what == "epoch"):
            self._averaged.update_parameters(model)


def _ema(decay: float) -> Callable[[list[Tensor], list[Tensor], Any], None]:
    def rule(averaged: list[Tensor], now: list[Tensor], count: Any) -> None:
        share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, now, share)
        else:
            torch._foreach_copy_(averaged, now)

    return rule


def _mean(averaged: Tensor, now: Tensor, count: Any) -> Tensor:
    return averaged + (now - averaged) / (count + 1)

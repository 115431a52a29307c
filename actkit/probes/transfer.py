"""Black-box attacks by transfer (ACT, Table 3)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from actkit.attacks import threat
from actkit.attacks.goals import Loss
from actkit.config.registry import Attack, Model, register
from actkit.datasets import Data
from actkit.errors import InputError
from actkit.probes import chance
from actkit.probes.protocols import (
    AttackRun,
    Examples,
    goal_for,
    perturb,
    predict,
    settings_problems,
    title,
    tolerance_of,
)
from actkit.probes.result import Column, Flag, Progress, Result, share


@register("probe", check=settings_problems, models=2)
def transfer(
    models: Mapping[str, Model],
    data: Data,
    *,
    attack: Attack,
    loss: Loss = "cross_entropy",
    tolerance: float = 0.002,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """How often adversarial examples made on one model (the surrogate) fool another: the matrix of the paper's Table 3.

    Examples are made once for each surrogate, from one random start, last iterate, and shown to every model. A number is the success rate
    as the paper counts it: over all examples, those that the model gets wrong unattacked included. The number under a model's own name is the
    white-box attack; where a surrogate beats it by more than `tolerance` (at least one and a half images), a flag says so: red beyond chance (McNemar's exact
    test on the same images, level 0.01), when the model's gradients mislead, and yellow where they may.
    """
    if len(models) < 2:
        raise InputError(
            "transfer needs at least two models", help="give --ckpt several times, or a run with two roles"
        )
    device = next(iter(models.values())).device
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=device)
    progress = progress or Progress()
    run = AttackRun(attack, goal_for(loss), (seed, 0), "0")
    fooled = {
        name: examples.each(name, progress, functools.partial(_fooled_by, source, models, run))
        for name, source in models.items()
    }
    return {
        target: _row(
            target, {name: hits[i] for name, hits in fooled.items()}, attack, loss, tolerance_of(tolerance, examples)
        )
        for i, target in enumerate(models)
    }


def _fooled_by(source: Model, models: Mapping[str, Model], run: AttackRun, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
    """Which of the examples made on `source` fool each model, shape (models, B)."""
    with source.frozen("eval") as f:
        x_adv = perturb(f, x, y, ids, run)
    fooled = []
    for target in models.values():
        with target.frozen("eval") as g:
            fooled.append(predict(g, x_adv) != y)
    return torch.stack(fooled)


def _row(target: str, fooled: dict[str, Tensor], attack: Attack, loss: str, tolerance: float) -> Result:
    rates = {name: share(hits) for name, hits in fooled.items()}
    images = len(fooled[target])
    # On how many images each surrogate wins alone, and on how many the white-box attack does.
    against = {name: chance.compared(~fooled[target], ~hits) for name, hits in fooled.items() if name != target}
    name, counts = max(against.items(), key=lambda one: one[1].net)
    level = chance.level(counts, tolerance)
    own = int(fooled[target].sum())
    if level == "green":
        said = f"no surrogate beats the white-box attack ({own} of {images} images)"
    else:
        said = (
            f"examples made on {name} fool {target} on {int(fooled[name].sum())} of {images} images, its own on {own}; "
            f"{counts.against} fall to {name}'s alone, {counts.in_favour} to its own alone"
        )
    flag = Flag("transfer", level, said + chance.judged(counts, level, f"the gradients of {target} mislead"), counts)
    first = next(iter(rates))
    columns = tuple(
        Column(name, f"{title(attack, loss)} from {name}" if name == first else f"from {name}") for name in rates
    )
    return Result(
        rates, {"fooled": torch.stack(list(fooled.values()))}, columns, threat(attack), (flag,), attacked=True
    )

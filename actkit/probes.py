"""Probes: anything measured on trained models. `(model, ..., data, *, ...)` -> `Result`.

The same code measures while training and in `actkit probe` later, always in fp32, so the numbers cannot differ. What happened to each
example is kept, so that averages, the worst run and the per-example worst case come from one pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import untargeted
from actkit.datasets import Data, Split
from actkit.errors import ActkitError, InputError
from actkit.noise import Noise
from actkit.registry import Attack, Model, register


@dataclass(frozen=True)
class Result:
    """What a probe found.

    Args:
        numbers: by name; accuracies as fractions in [0,1].
        examples: what happened to each example, the examples being the last dimension; `ids` follow the order of the split.
    """

    numbers: dict[str, float]
    examples: dict[str, Tensor] = field(default_factory=dict)


def _examined(data: Data, split: str, *, limit: int | None, batch_size: int, starts: int = 1) -> Split:
    for name, value in (("limit", limit), ("batch_size", batch_size), ("starts", starts)):
        if value is not None and value < 1:
            raise InputError(f"a probe's {name} must be at least 1, got {value}")
    return data.split(split).sample(limit)


def batches(split: Split, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """x in [0,1], y and ids of every example, in order, once."""
    names = torch.arange(len(split)) if split.ids is None else split.ids
    for places in torch.arange(len(split)).split(batch_size):
        yield *split.batch(places, device=device), names[places].to(device)


@register("probe")
def accuracy(
    model: Model, data: Data, *, split: str = "test", limit: int | None = None, batch_size: int = 256
) -> Result:
    """Accuracy on clean examples, A_nat in the paper."""
    examined, correct = _examined(data, split, limit=limit, batch_size=batch_size), []
    with model.frozen("eval") as f, torch.no_grad():
        for x, y, _ in batches(examined, batch_size, model.device):
            correct.append(f(x).argmax(1) == y)
    hits = torch.cat(correct).cpu()
    return Result({"clean": _mean(hits)}, {"correct": hits})


@register("probe")
def pgd(
    model: Model,
    data: Data,
    *,
    attack: Attack,
    starts: int = 5,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Result:
    """Accuracy under an untargeted attack from several random starts, at its last iterate; every example counts (ACT, section 4.1).

    `mean` and `std` over the starts; `worst_run`, the lowest of the accuracies (the paper's A_rob); `worst_case`, an example counts only
    if no start fools the model. The random starts depend on (seed, example, start) alone.
    """
    examined = _examined(data, split, limit=limit, batch_size=batch_size, starts=starts)
    correct: list[Tensor] = []
    with model.frozen("eval") as g:
        for x, y, ids in batches(examined, batch_size, model.device):
            goal, outcome = untargeted(g, y), []
            for start in range(starts):
                x_adv = attack(goal, x, noise=Noise(ids, seed, start))
                _assert_allowed(x_adv)
                with torch.no_grad():
                    outcome.append(g(x_adv).argmax(1) == y)
            correct.append(torch.stack(outcome))
    hits = torch.cat(correct, dim=1).cpu()
    runs = hits.double().mean(1)
    return Result(
        {
            "mean": float(runs.mean()),
            "std": float(runs.std()) if starts > 1 else 0.0,
            "worst_run": float(runs.min()),
            "worst_case": _mean(hits.all(0)),
        },
        {"correct": hits},
    )


def _assert_allowed(x_adv: Tensor) -> None:
    if not ((x_adv >= 0) & (x_adv <= 1)).all():
        raise ActkitError("the attack left [0,1] (or gave NaN); its result would be no robustness and is not reported")


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean())


def models_of(probe: Any) -> int:
    """How many models a probe takes at once."""
    return len(probe.spec.entry.positional) - 1


def measure(
    probes: Iterable[Any], models: Mapping[str, Model], data: Data, tell: Callable[[str], Any] = lambda what: None
) -> dict[str, Result]:
    """Run every probe on every model (every ordered group, if it takes several); results by '<role>.<probe>'."""
    results = {}
    for probe in probes:
        for group in itertools.permutations(models, models_of(probe)):
            name = ">".join(group) + "." + probe.spec.name
            tell(name)
            results[name] = probe(*(models[role] for role in group), data)
    return results

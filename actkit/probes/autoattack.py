"""An ensemble of parameter-free attacks: our own quick tier, or the official AutoAttack package."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actkit.attacks import Norm, Threat, apgd, budget_problems, square
from actkit.datasets import Data
from actkit.errors import ActkitError, InputError
from actkit.probes.attacking import Attempt, Examples, any_iterate, attempts
from actkit.probes.result import Column, Progress, Result, share
from actkit.registry import Model, register


@register("probe", check=budget_problems)
def autoattack(
    model: Model,
    data: Data,
    *,
    eps: float,
    norm: Norm = "linf",
    tier: Literal["quick", "official"] = "quick",
    steps: int = 100,
    targets: int = 9,
    queries: int = 5000,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Accuracy under an ensemble of attacks that need no tuning (Croce and Hein 2020), the per-example worst case.

    The quick tier is ours: APGD on the cross-entropy, then targeted APGD on the DLR loss towards each of the `targets` best wrong classes,
    then (linf) Square, each on what the ones before left. It leaves out FAB-T, which with Square lowered none of nine published
    AutoAttack logs by more than 0.02 points. With fewer than 4 classes, where the targeted loss does not exist, APGD on the margin
    takes its place. The tier `official` runs the standard version of the AutoAttack package (`pip install 'actkit[autoattack]'`)
    with its own settings (`steps`, `targets` and `queries` do not apply), and counts what the model then says.

    Raises `InputError` where the official tier is asked for and its package is not installed.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress, allowed = progress or Progress(), Threat(norm, eps)
    if tier == "official":
        return _official(model, examples, allowed, seed, progress)
    plan = _plan(eps, norm, steps, targets, queries, seed, data.num_classes)
    numbers: dict[str, float] = {}
    columns: list[Column] = []
    with model.frozen("eval") as g:
        alive = examples.correct(g, progress)
        numbers["clean"] = share(alive)
        for name, runs in plan.items():
            for _, still in any_iterate(g, examples, runs, alive, progress):
                alive = still
            numbers[name] = share(alive)
            columns.append(Column(name, name if not columns else f"+ {name}"))
    numbers["worst_case"] = share(alive)
    return Result(numbers, {"correct": alive}, tuple(columns), allowed, attacked=True)


def _plan(
    eps: float, norm: Norm, steps: int, targets: int, queries: int, seed: int, classes: int
) -> dict[str, list[Attempt]]:
    """The attacks in order, by their published names."""
    adaptive = functools.partial(apgd, eps=eps, norm=norm, steps=steps)
    make = functools.partial(attempts, starts=1, targets=targets, seed=seed, classes=classes)
    plan = {"APGD-CE": make(adaptive, loss="cross_entropy", name="ce/")}
    if classes < 4:
        plan["APGD-margin"] = make(adaptive, loss="margin", name="margin/")
    else:
        plan["APGD-T"] = make(adaptive, loss="targeted_dlr", name="t/")
    if norm == "linf" and queries:
        searching = functools.partial(square, eps=eps, queries=queries, rescale=False)
        plan["Square"] = make(searching, loss="margin", name="square/")
    return plan


class _Module(nn.Module):
    """The frozen view as a module, which the package expects."""

    def __init__(self, view: Any) -> None:
        super().__init__()
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.view(x)
        return logits


def _official(model: Model, examples: Examples, allowed: Threat, seed: int, progress: Progress) -> Result:
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise InputError(
            "the official AutoAttack is not installed", help="pip install 'actkit[autoattack]', or use tier = 'quick'"
        ) from error
    if examples.data.num_classes < 4:
        raise InputError(
            f"the official AutoAttack needs 4 classes, {examples.data.name} has {examples.data.num_classes}",
            help="use tier = 'quick'",
        )
    with model.frozen("eval") as g:
        clean = examples.correct(g, progress)

        def survive(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            devices = [x.device] if x.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):  # it seeds the global generator
                adversary = AutoAttack(
                    _Module(g).eval(), norm={"linf": "Linf", "l2": "L2"}[allowed.norm], eps=float(allowed.eps), seed=seed,
                    device=x.device,
                )  # fmt: skip
                x_adv, _ = adversary.run_standard_evaluation(x, y, batch_size=len(x))
            if not allowed.allows(x_adv, x).all():
                raise ActkitError(f"AutoAttack left [0,1] or its ball ({allowed}); its result is not reported")
            with torch.no_grad():
                return g(x_adv).argmax(1) == y

        alive = examples.each("official", progress, survive) & clean
    numbers = {"clean": share(clean), "worst_case": share(alive)}
    return Result(numbers, {"correct": alive}, (Column("worst_case", "AutoAttack"),), allowed, attacked=True)

"""An ensemble of parameter-free attacks: our own quick tier, or the official AutoAttack package."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actkit.attacks import Norm, Threat, apgd, budget_problems, square
from actkit.config.registry import Model, register
from actkit.datasets import Data
from actkit.errors import ActkitError, InputError, raise_first
from actkit.probes.protocols import AttackRun, Examples, attack_runs, evaluate_any_iterate, predict, settings_problems
from actkit.probes.result import Column, Progress, Result, share

# What the package calls the norms in which it was tried here.
_OFFICIAL_NORMS = {"linf": "Linf", "l2": "L2"}


def ensemble_problems(
    *, eps: float, norm: str, steps: int, targets: int, queries: int, limit: int | None, batch_size: int, tier: str
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the ensemble's settings."""
    yield from budget_problems(eps=eps, norm=norm, steps=steps)
    yield from settings_problems(targets=targets, limit=limit, batch_size=batch_size)
    if queries < 0:
        yield "queries", InputError(f"queries must not be negative, got {queries}", help="0 leaves Square out")
    if tier == "official" and norm not in _OFFICIAL_NORMS:
        known = " and ".join(_OFFICIAL_NORMS)
        yield (
            "norm",
            InputError(f"the official AutoAttack is run in {known} here, not in {norm}", help="use tier = 'quick'"),
        )
    if tier == "official" and importlib.util.find_spec("pyautoattack") is None:
        yield (
            "tier",
            InputError(
                "the official AutoAttack is not installed",
                help="pip install 'actkit[autoattack]', or use tier = 'quick'",
            ),
        )


@register("probe", check=ensemble_problems, attacks=True)
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
    with its own settings (`steps` and `queries` do not apply), and counts what the model then says. It draws its random starts for a whole
    batch at once, so there, and only there, they depend on `batch_size`.

    Raises `InputError` where the official tier is asked for and its package is not installed.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress, allowed = progress or Progress(), Threat(norm, eps)
    raise_first(
        ensemble_problems(
            eps=eps,
            norm=norm,
            steps=steps,
            targets=targets,
            queries=queries,
            limit=limit,
            batch_size=batch_size,
            tier=tier,
        )
    )
    if tier == "official":
        return _official(model, examples, allowed, seed, progress)
    ensemble = _quick_ensemble(eps, norm, steps, targets, queries, seed, data.num_classes)
    numbers: dict[str, float] = {}
    columns: list[Column] = []
    with model.frozen("eval") as g:
        alive = examples.correct(g, progress)
        numbers["clean"] = share(alive)
        for name, runs in ensemble.items():
            for _, still in evaluate_any_iterate(g, examples, runs, alive, progress):
                alive = still
            numbers[name] = share(alive)
            columns.append(Column(name, name if not columns else f"+ {name}"))
    numbers["worst_case"] = share(alive)
    return Result(numbers, {"correct": alive}, tuple(columns), allowed, attacked=True, headline="worst_case")


def _quick_ensemble(
    eps: float, norm: Norm, steps: int, targets: int, queries: int, seed: int, classes: int
) -> dict[str, list[AttackRun]]:
    """The attacks in order, by their published names."""
    adaptive = functools.partial(apgd, eps=eps, norm=norm, steps=steps)
    runs = functools.partial(attack_runs, starts=1, targets=targets, seed=seed, classes=classes)
    ensemble = {"APGD-CE": runs(adaptive, loss="cross_entropy", name="ce/")}
    if classes < 4:
        ensemble["APGD-margin"] = runs(adaptive, loss="margin", name="margin/")
    else:
        ensemble["APGD-T"] = runs(adaptive, loss="targeted_dlr", name="t/")
    if norm == "linf" and queries:
        search = functools.partial(square, eps=eps, queries=queries, rescale=False)
        ensemble["Square"] = runs(search, loss="margin", name="square/")
    return ensemble


class _ViewModule(nn.Module):
    """The frozen view as a module, which the package expects."""

    def __init__(self, view: Any) -> None:
        super().__init__()
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.view(x)
        return logits


def _official(model: Model, examples: Examples, allowed: Threat, seed: int, progress: Progress) -> Result:
    from pyautoattack import AutoAttack

    classes = examples.data.num_classes
    if classes < 4:
        raise InputError(
            f"the official AutoAttack needs 4 classes, {examples.data.name} has {classes}", help="use tier = 'quick'"
        )
    with model.frozen("eval") as g:
        clean = examples.correct(g, progress)

        def survive(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            devices = [x.device] if x.device.type == "cuda" else []
            # It seeds the global generator.
            with torch.random.fork_rng(devices=devices):
                adversary = AutoAttack(
                    _ViewModule(g).eval(),
                    norm=_OFFICIAL_NORMS[allowed.norm],
                    eps=float(allowed.eps),
                    seed=seed,
                    device=x.device,
                )
                # Its nine targets are one too many where there are fewer than ten classes.
                adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = min(9, classes - 1)
                x_adv, _ = adversary.run_standard_evaluation(x, y, batch_size=len(x))
            if not allowed.allows(x_adv, x).all():
                raise ActkitError(f"AutoAttack left [0,1] or its ball ({allowed}); its result is not reported")
            return predict(g, x_adv) == y

        alive = examples.each("official", progress, survive) & clean
    numbers = {"clean": share(clean), "worst_case": share(alive)}
    columns = (Column("worst_case", "AutoAttack"),)
    return Result(numbers, {"correct": alive}, columns, allowed, attacked=True, headline="worst_case")

"""Accuracy: clean, under an attack, and as a function of the attack's budget."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from actkit.attacks import Threat, threat
from actkit.attacks.goals import Loss
from actkit.attacks.norms import setting
from actkit.config.registry import Attack, Model, register
from actkit.config.spec import Quantity
from actkit.datasets import Data
from actkit.errors import InputError, raise_first
from actkit.probes.pictures import OWN, Picture
from actkit.probes.protocols import (
    AttackRun,
    Examples,
    View,
    attack_runs,
    evaluate_any_iterate,
    evaluate_last_iterate,
    settings_problems,
    starts_of,
    title,
    with_setting,
)
from actkit.probes.result import Column, Progress, Result, share

Mode = Literal["paper", "worst_case"]
VALUES: dict[str, list[float]] = {
    "eps": [Quantity(f"{n}/255") for n in (1, 5, 10, 15, 20, 25, 50, 100)],
    "steps": [1, 2, 5, 10, 20, 50, 100],
}


@register("probe", check=settings_problems)
def accuracy(
    model: Model,
    data: Data,
    *,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Result:
    """Accuracy on clean examples, A_nat in the paper."""
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    with model.frozen("eval") as f:
        hits = examples.correct(f, progress or Progress())
    return Result({"clean": share(hits)}, {"correct": hits}, (Column("clean", "clean"),), headline="clean")


@register("probe", check=settings_problems)
def robust_accuracy(
    model: Model,
    data: Data,
    *,
    attack: Attack,
    loss: Loss = "cross_entropy",
    mode: Mode = "paper",
    starts: int = 5,
    targets: int = 9,
    draws: int = 1,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Accuracy under an attack from several random starts; every example counts, those misclassified unattacked too.

    Mode `paper` (ACT, section 4.1): the attack's last iterate, on every example. `mean` and `std` over the starts; `worst_run`, the lowest
    of the accuracies (the paper's A_rob); `per_example_worst`, an example counts only if no start fools the model. Mode
    `worst_case`: an example is broken when any iterate within the budget fools the model, and is then left alone; `worst_case` is at most
    the other mode's numbers, and much cheaper. The random starts depend on (seed, example, start) alone. An attack that draws no random numbers (fgsm, pgd
    with start = 'none') is run once, whatever `starts` says; the number `starts` is then 1.

    Args:
        loss: what the attack raises: 'cross_entropy'; 'margin'; 'dlr' (Croce and Hein 2020); 'targeted_dlr', in mode `worst_case`, which
            attacks towards each of the `targets` best wrong classes.
        draws: of a model that answers at random (dropout at test time, random resizing): the attack raises the mean of so many answers to the same images
            (expectation over transformation, Athalye et al. 2018), and in mode `worst_case` an image is broken where more than half of them are wrong. Whether
            it is right unattacked, and in mode `paper` at the last iterate, is judged by one answer. These are drawn from a generator of `seed`; an
            examination that was interrupted draws others in what is left.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress, allowed, name = progress or Progress(), threat(attack), title(attack, loss)
    raise_first(settings_problems(loss=loss, mode=mode, draws=draws))
    different = starts_of(attack, starts, data)
    runs = attack_runs(
        attack, loss=loss, starts=different, targets=targets, seed=seed, classes=data.num_classes, draws=draws
    )
    with _drawing(model.device, seed, draws), model.frozen("eval") as g:
        if mode == "worst_case":
            found = _worst_case(g, examples, runs, progress, allowed, name)
        else:
            found = _worst_run(evaluate_last_iterate(g, examples, runs, progress), examples, allowed, name)
    return found if different == starts else _from_one_start(found)


@contextlib.contextmanager
def _drawing(device: torch.device, seed: int, draws: int) -> Iterator[None]:
    """For a model that answers at random, torch's generator stands at `seed`, and then where it stood."""
    if draws == 1:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _from_one_start(result: Result) -> Result:
    """The same, saying that other starts would have been equal."""
    columns = [
        dataclasses.replace(column, title=f"{column.title} (no random start)") for column in result.columns or ()
    ]
    return dataclasses.replace(result, numbers={**result.numbers, "starts": 1.0}, columns=tuple(columns))


def _worst_run(correct: Tensor, examples: Examples, allowed: Threat, name: str) -> Result:
    """Mode `paper`; `correct` of shape (starts, n)."""
    starts, by_run, never_fooled = len(correct), correct.double().mean(1), correct.all(0)
    columns: tuple[Column, ...] = (Column("worst_run", name),)
    shown = name
    if starts > 1:
        columns = (
            Column("worst_run", f"{name} worst run"),
            Column("per_example_worst", f"{name} per-example worst"),
        )
        shown = f"{name}, worst of {starts} starts"
    return Result(
        {
            "mean": float(by_run.mean()),
            "std": float(by_run.std()) if starts > 1 else 0.0,
            "worst_run": float(by_run.min()),
            "per_example_worst": share(never_fooled),
        },
        {"correct": correct},
        columns,
        allowed,
        attacked=True,
        pictures=(_by_class(never_fooled, examples, examples.data, shown),),
        headline="worst_run",
    )


def _by_class(correct: Tensor, examples: Examples, data: Data, name: str) -> Picture:
    labels = examples.split.labels
    there = [c for c in range(data.num_classes) if (labels == c).any()]
    return Picture(
        "by-class",
        "bars",
        f"Accuracy of each class under {name}",
        {
            "groups": [data.classes[c] for c in there],
            "series": {OWN: {"y": [share(correct[labels == c]) for c in there]}},
            "percent": True,
            "y_label": "per-example worst",
        },
    )


def _worst_case(
    g: View, examples: Examples, runs: list[AttackRun], progress: Progress, allowed: Threat, name: str
) -> Result:
    alive = clean = examples.correct(g, progress)
    # The number of the start (or start and target) that broke each example; -1 for none, -2 for misclassified unattacked.
    broken_by = torch.where(clean, -1, -2)
    for i, (_, still) in enumerate(evaluate_any_iterate(g, examples, runs, clean, progress)):
        broken_by[alive & ~still] = i
        alive = still
    return Result(
        {"clean": share(clean), "worst_case": share(alive)},
        {"correct": alive, "broken_by": broken_by},
        (Column("worst_case", f"{name} any iterate"),),
        allowed,
        attacked=True,
        headline="worst_case",
    )


def sweep_problems(
    *, values: list[float] | None, starts: int, targets: int, limit: int | None, batch_size: int, loss: str, mode: str
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with a sweep's settings."""
    if values is not None and (not values or any(b <= a for a, b in itertools.pairwise(values))):
        yield "values", InputError(f"the values of a sweep must rise, got {[str(v) for v in values]}")
    yield from settings_problems(
        starts=starts, targets=targets, limit=limit, batch_size=batch_size, loss=loss, mode=mode
    )


@register("probe", check=sweep_problems)
def sweep(
    model: Model,
    data: Data,
    *,
    attack: Attack,
    over: str = "eps",
    values: list[float] | None = None,
    scale_step: bool = False,
    mode: Mode = "worst_case",
    loss: Loss = "cross_entropy",
    starts: int = 1,
    targets: int = 9,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Accuracy under an attack as one of its settings takes several values: eps (ACT, Table 5), steps, step_size.

    Mode `worst_case`: any iterate counts, and with `over` eps or steps what is broken at one value is broken at every later one, so that only
    the survivors are attacked further; the accuracies cannot rise. Mode `paper`: each value on every example, last iterate, the
    worst run of `starts`; they can rise.

    Args:
        over, values: the setting and its values, rising; by default the eight eps of Table 5, or steps from 1 to 100.
        scale_step: with `over` eps, make the step size grow with eps. The paper prints no step size for Table 5; at its 0.003 a hundred
            steps move a pixel by 0.3, less than its largest eps of 100/255.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    progress = progress or Progress()
    values = VALUES.get(over, []) if values is None else values
    raise_first(
        sweep_problems(
            values=values, starts=starts, targets=targets, limit=limit, batch_size=batch_size, loss=loss, mode=mode
        )
    )
    attacks = [with_setting(attack, over, value, scale_step=scale_step) for value in values]
    starts = starts_of(attack, starts, data)
    runs = [
        attack_runs(a, loss=loss, starts=starts, targets=targets, seed=seed, classes=data.num_classes, name=f"{v}/")
        for a, v in zip(attacks, values, strict=True)
    ]
    with model.frozen("eval") as g:
        if mode == "worst_case":
            nested = over in ("eps", "steps", "queries")
            outcomes = _any_iterate_at_each_value(g, examples, runs, nested, progress)
        else:
            outcomes = _worst_run_at_each_value(g, examples, runs, progress)
    numbers = {f"{over} {value}": share(outcome) for value, outcome in zip(values, outcomes, strict=True)}
    allowed, name = threat(attack), _swept_title(attack, loss, over, mode)
    columns = tuple(Column(number, f"{name} {number}" if i == 0 else number) for i, number in enumerate(numbers))
    return Result(
        numbers,
        {"correct": torch.stack(outcomes)},
        columns,
        Threat(allowed.norm, math.nan) if over == "eps" else allowed,
        attacked=True,
        pictures=(_curve(name, over, values, list(numbers.values()), allowed, data),),
    )


def _any_iterate_at_each_value(
    g: View, examples: Examples, runs: Sequence[list[AttackRun]], nested: bool, progress: Progress
) -> list[Tensor]:
    """Which examples hold at each value, any iterate counting. `nested`: what breaks at one value counts as broken at the later ones."""
    alive = clean = examples.correct(g, progress)
    outcomes = []
    for runs_of_value in runs:
        alive = alive if nested else clean
        for _, still in evaluate_any_iterate(g, examples, runs_of_value, alive, progress):
            alive = still
        outcomes.append(alive)
    return outcomes


def _worst_run_at_each_value(
    g: View, examples: Examples, runs: Sequence[list[AttackRun]], progress: Progress
) -> list[Tensor]:
    """Which examples hold at each value, at the last iterate of the run that leaves least."""
    outcomes = []
    for runs_of_value in runs:
        correct = evaluate_last_iterate(g, examples, runs_of_value, progress)
        outcomes.append(correct[correct.double().mean(1).argmin()])
    return outcomes


def _swept_title(attack: Any, loss: str, over: str, mode: Mode) -> str:
    """What the literature calls the attack, without the number of steps where it is what changes."""
    name = title(attack, loss)
    if over == "steps":
        name = name.removesuffix(f"-{setting(attack, 'steps')}")
    return name + (" any iterate" if mode == "worst_case" else "")


def _curve(
    name: str, over: str, values: Sequence[float], accuracies: list[float], allowed: Threat, data: Data
) -> Picture:
    return Picture(
        f"sweep-{over}",
        "lines",
        f"Accuracy under {name} as {over} grows",
        {
            "series": {OWN: {"x": [float(v) for v in values], "y": accuracies}},
            "percent": True,
            "y_label": "accuracy",
            "x_label": f"eps ({allowed.norm}, pixels in [0,1])" if over == "eps" else over,
            "log": over == "steps" and values[0] > 0,
            "levels": [{"value": 1 / data.num_classes, "text": "chance"}],
        },
    )

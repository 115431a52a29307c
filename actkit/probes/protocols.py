"""How probes attack: the examples, the runs of an attack on them, and the two protocols.

`evaluate_last_iterate`: what an attack returns counts, every example is attacked, nothing is dropped. `evaluate_any_iterate`: an example is
broken as soon as any input within the budget that the attack asked about was misclassified; it then leaves the attack and all later runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import Goal, Rows, Threat, targeted, threat, untargeted
from actkit.attacks.goals import ascend, expectation, with_loss
from actkit.attacks.norms import setting
from actkit.config import registry
from actkit.datasets import Data
from actkit.errors import ActkitError, InputError, nearest
from actkit.findings import Counts, Flag, Level
from actkit.noise import Drawn, Noise, Untouched
from actkit.probes.result import Progress

# The frozen model: logits of x in [0,1].
View = Callable[[Tensor], Tensor]
# (model, x, y) -> goal
GoalFor = Callable[[View, Tensor, Tensor], Goal]

NAN = "the model gives NaN, in its outputs or its gradient; no result is reported"


def predict(g: View, x: Tensor) -> Tensor:
    """The predicted classes, shape (B,). Raises `ActkitError` where the model's outputs are not numbers: argmax would still name a class."""
    with torch.no_grad():
        logits = g(x)
    if logits.isnan().any():
        raise ActkitError(NAN)
    return logits.argmax(1)


def no_gradient(g: View, x: Tensor, y: Tensor) -> tuple[Flag, ...]:
    """A flag where not one of these images, of those that the model gets right, has a gradient (of the margin, which does not saturate)."""
    right = (predict(g, x) == y).nonzero()[:, 0]
    if not len(right):
        return ()
    x, y = x[right], y[right]
    if ascend(untargeted(g, y, loss="margin"), x, slice(None))[2].any():
        return ()
    said = (
        f"none of {len(right)} images has a gradient: what follows gradients cannot move them; attack.square needs none"
    )
    # One image may be an accident.
    level: Level = "red" if len(right) > 1 else "yellow"
    return (Flag("zero gradients", level, said, Counts(len(right), len(right))),)


def settings_problems(
    *,
    starts: int = 1,
    targets: int = 1,
    limit: int | None = None,
    batch_size: int = 1,
    tries: int = 1,
    draws: int = 1,
    loss: str = "cross_entropy",
    mode: str = "worst_case",
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with a probe's settings: pairs of the parameter and the error."""
    sizes = {
        "starts": starts,
        "targets": targets,
        "limit": limit,
        "batch_size": batch_size,
        "tries": tries,
        "draws": draws,
    }
    for name, value in sizes.items():
        if value is not None and value < 1:
            yield name, InputError(f"a probe's {name} must be at least 1, got {value}")
    if loss == "targeted_dlr" and mode == "paper":
        yield (
            "loss",
            InputError("a targeted loss needs mode = 'worst_case': an attack towards each class is no run of its own"),
        )


class Examples:
    """The examples that a probe looks at, in batches.

    Raises `InputError` for a split that is not there and for sizes below 1.
    """

    def __init__(self, data: Data, split: str, *, limit: int | None, batch_size: int, device: torch.device) -> None:
        for name, value in (("limit", limit), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise InputError(f"a probe's {name} must be at least 1, got {value}")
        self.data, self.split = data, data.split(split).sample(limit)
        self.batch_size, self.device = batch_size, device
        if not len(self.split):
            raise InputError(f"{data.name} has no examples in {split!r}")

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """x in [0,1], y and ids of each group of places."""
        for some, (x, y) in zip(groups, self.split.batches(groups, device=self.device), strict=True):
            yield x, y, self.split.names(some).to(self.device)

    def first(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first batch."""
        return next(self.batches([torch.arange(min(self.batch_size, len(self)))]))

    def count(self, examples: int | None = None) -> int:
        """How many batches so many examples make."""
        return -(-(len(self) if examples is None else examples) // self.batch_size)

    def each(
        self,
        name: str,
        progress: Progress,
        compute: Callable[[Tensor, Tensor, Tensor], Tensor],
        places: Tensor | None = None,
        *,
        announced: bool = False,
    ) -> Tensor:
        """`compute(x, y, ids)` of every batch, resumably; the examples are the last dimension."""
        groups = (torch.arange(len(self.split)) if places is None else places).split(self.batch_size)
        if not announced:
            progress.expect(len(groups))
        missing = [group for i, group in enumerate(groups) if not progress.has(f"{name}/{i}")]
        ready = self.batches(missing)
        parts = [progress.part(f"{name}/{i}", lambda: compute(*next(ready))) for i in range(len(groups))]
        return torch.cat(parts, dim=-1)

    def correct(self, g: View, progress: Progress, name: str = "clean") -> Tensor:
        """Which examples the model gets right unattacked, shape (n,)."""

        def right(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            return predict(g, x) == y

        return self.each(name, progress, right)


def tolerance_of(tolerance: float, examples: Examples) -> float:
    """How far an accuracy may be off: as given, but on few images at least one and a half of them."""
    return max(tolerance, 1.5 / len(examples))


def goal_for(loss: str, rank: int | None = None) -> GoalFor:
    """The goal of a run. `rank` is for 'targeted_dlr': towards the class that the clean image's logits rank so, 1 being the best wrong one."""
    if loss != "targeted_dlr":
        return lambda g, x, y: untargeted(g, y, loss=loss)

    def towards(g: View, x: Tensor, y: Tensor) -> Goal:
        with torch.no_grad():
            ranked = g(x).scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
        return targeted(g, y, ranked[:, (rank or 1) - 1])

    return towards


def _averaged(made: GoalFor, draws: int, seed: int) -> GoalFor:
    """The same goal, its expectation over so many draws of the model's randomness."""
    if draws == 1:
        return made
    return lambda g, x, y: expectation(made(g, x, y), draws, seed=seed)


@dataclass(frozen=True)
class AttackRun:
    """One attack on every example. `key`: what its random start depends on, besides the example."""

    attack: Any
    goal_for: GoalFor
    key: tuple[int, ...]
    name: str


def attack_runs(
    attack: Any, *, loss: str, starts: int, targets: int, seed: int, classes: int, name: str = "", draws: int = 1
) -> list[AttackRun]:
    """An attack from several random starts, and, for a targeted loss, towards several classes; `draws`: of a model that answers at random."""
    if starts < 1:
        raise InputError(f"a probe's starts must be at least 1, got {starts}")
    if targets < 1:
        raise InputError(f"a probe's targets must be at least 1, got {targets}")
    if classes < 2:
        raise InputError("with a single class there is nothing to attack")
    ranks: list[int | None] = [None]
    if loss == "targeted_dlr":
        ranks = list(range(1, min(targets, classes - 1) + 1))
    return [
        AttackRun(
            attack,
            _averaged(goal_for(loss, rank), draws, seed),
            (seed, start, rank) if rank else (seed, start),
            f"{name}{start}/{rank or 0}",
        )
        for start in range(starts)
        for rank in ranks
    ]


def is_random(attack: Any, shape: tuple[int, int, int]) -> bool:
    """Whether a built attack draws random numbers, so that its starts differ; tried on a made-up image, up a slope and on a plain where nothing can be gained."""

    def goal(slope: float, told: bool) -> Goal:
        def ask(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
            return slope * x.flatten(1).sum(1), torch.zeros(len(x), dtype=torch.bool) if told else None

        return ask

    try:
        for slope, told in ((1.0, False), (0.0, True)):
            attack(goal(slope, told), torch.full((1, *shape), 0.5), noise=Untouched(torch.zeros(1, dtype=torch.long)))
    except Drawn:
        return True
    # It may need more of a goal than that: then nothing is known.
    except Exception:
        return True
    return False


def starts_of(attack: Any, starts: int, data: Data) -> int:
    """From how many starts an attack is to be run: a single one where they would all be the same."""
    return starts if starts == 1 or is_random(attack, data.shape) else 1


def assert_allowed(allowed: Threat, x_adv: Tensor, x: Tensor) -> None:
    """Raises `ActkitError` where an attack's result lies outside its threat model, or is no number."""
    if not allowed.allows(x_adv, x).all():
        raise ActkitError(
            f"the attack left [0,1] or its ball ({allowed}), or gave NaN; its result would be no robustness and is not reported"
        )


class RecordingGoal:
    """A goal that remembers who was ever fooled by an allowed input, and whether all values were numbers.

    Args:
        allowed: the threat model that an input must obey to count; None where the attack has no budget.
        early_stopping: whether the attack learns who is fooled and may stop there; in the protocol of the last iterate it may not.
    """

    def __init__(self, goal: Goal, x: Tensor, allowed: Threat | None, *, early_stopping: bool = True) -> None:
        self.goal, self.x, self.allowed, self.early_stopping = goal, x, allowed, early_stopping
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._has_nan = torch.zeros((), dtype=torch.bool, device=x.device)

    def __call__(self, x_adv: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
        value, fooled = self.goal(x_adv, rows)
        assert fooled is not None
        self._has_nan |= value.detach().isnan().any()
        if not self.early_stopping:
            return value, None
        if self.allowed is not None:
            fooled = fooled & self.allowed.allows(x_adv.detach(), self.x[rows])
        self.fooled[rows] = self.fooled[rows] | fooled
        return value, fooled

    def assert_numbers(self) -> None:
        """Raises `ActkitError` where a value was NaN: an attack that follows it stands still, and the model would look robust."""
        if self._has_nan:
            raise ActkitError(NAN)


def perturb(g: View, x: Tensor, y: Tensor, ids: Tensor, run: AttackRun) -> Tensor:
    """The attack's last point: x_adv, shape of x. The attack does not learn who is fooled, so nothing is dropped."""
    goal = RecordingGoal(run.goal_for(g, x, y), x, None, early_stopping=False)
    x_adv: Tensor = run.attack(goal, x, noise=Noise(ids, *run.key))
    goal.assert_numbers()
    assert_allowed(threat(run.attack), x_adv, x)
    return x_adv


def evaluate_last_iterate(g: View, examples: Examples, runs: list[AttackRun], progress: Progress) -> Tensor:
    """Which examples survive each run's last point, shape (runs, n)."""
    progress.expect(len(runs) * examples.count())

    def survive(x: Tensor, y: Tensor, ids: Tensor, run: AttackRun) -> Tensor:
        return predict(g, perturb(g, x, y, ids, run)) == y

    return torch.stack(
        [examples.each(run.name, progress, functools.partial(survive, run=run), announced=True) for run in runs]
    )


def evaluate_any_iterate(
    g: View, examples: Examples, runs: list[AttackRun], alive: Tensor, progress: Progress
) -> Iterator[tuple[AttackRun, Tensor]]:
    """After each run, which examples are still unbroken, shape (n,). `alive` says which to begin with."""
    progress.expect(len(runs) * examples.count(int(alive.sum())))

    def broken(x: Tensor, y: Tensor, ids: Tensor, run: AttackRun) -> Tensor:
        allowed = threat(run.attack)
        goal = RecordingGoal(run.goal_for(g, x, y), x, allowed)
        x_adv = run.attack(goal, x, noise=Noise(ids, *run.key))
        goal.assert_numbers()
        assert_allowed(allowed, x_adv, x)
        rows = (~goal.fooled).nonzero()[:, 0]
        if len(rows):
            # PGD's last point has not been looked at yet.
            with torch.no_grad():
                goal(x_adv[rows], rows)
        return goal.fooled

    for run in runs:
        places = alive.nonzero()[:, 0]
        if len(places):
            fooled = examples.each(run.name, progress, functools.partial(broken, run=run), places, announced=True)
            alive = alive.clone()
            alive[places[fooled]] = False
        yield run, alive


def with_setting(attack: Any, name: str, value: float, *, scale_step: bool = False) -> Any:
    """The built attack with another value of one setting; `scale_step`: with eps, the step size changes in proportion.

    Raises `InputError` when the attack has no such setting, or the value is wrong for it.
    """
    before, step_size = setting(attack, name), setting(attack, "step_size")
    if before is None:
        known = attack.spec.entry.parameters if hasattr(attack, "spec") else []
        raise InputError(f"the attack has no setting {name!r} to change", help=nearest(name, known))
    changed = {name: int(value) if isinstance(before, int) and float(value).is_integer() else value}
    if scale_step and name == "eps" and step_size is not None:
        if not before:
            raise InputError("the step size cannot be scaled from an attack whose eps is 0")
        changed["step_size"] = step_size * value / before
    if hasattr(attack, "spec"):
        return attack.spec.replace(**changed).build()
    return functools.partial(attack, **changed)


def title(attack: Any, loss: str = "cross_entropy") -> str:
    """What the literature calls an attack: PGD-20, FGSM, APGD-CE, APGD-T, Square; of one that does not say, its name and steps."""
    function = getattr(attack, "func", attack)
    name = attack.spec.name if hasattr(attack, "spec") else getattr(function, "__name__", "attack")
    entry = registry.registered.get(f"attack.{name}")
    if entry is not None and entry.title is not None:
        return entry.title(attack, loss)
    steps = setting(attack, "steps")
    return with_loss(f"{name}-{steps}" if isinstance(steps, int) else name, loss)

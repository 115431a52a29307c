"""The checks of the audit, one function each: (what is audited, what was measured before) -> flags and numbers.

Each is a line of the evaluation checklists of Carlini et al. (2019) and Athalye et al. (2018), made automatic. `actkit.probes.audit` says
which there are and in which order they run. No check changes anything that another reads.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import NORMS, Norm, Threat, apgd, fgsm, square
from actkit.attacks.goals import CLASSES_NEEDED, ascend
from actkit.attacks.norms import setting
from actkit.config.registry import Model
from actkit.findings import Flag, Level
from actkit.noise import Noise
from actkit.probes.protocols import (
    AttackRun,
    Examples,
    View,
    attack_runs,
    evaluate_any_iterate,
    evaluate_last_iterate,
    goal_for,
    perturb,
    predict,
    title,
    with_setting,
)
from actkit.probes.result import Progress, share

# -- what is audited, and what a check returns ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Of the checks; `audit` says what each is. `tolerance` is at least one and a half examples."""

    starts: int
    queries: int
    targets: int
    steps: int
    tolerance: float
    gap: float
    seed: int


@dataclass(frozen=True)
class Audited:
    """What every check looks at: a model's frozen view under an attack and its loss."""

    view: View
    examples: Examples
    attack: Any
    loss: str
    threat: Threat
    settings: Settings
    progress: Progress

    @property
    def largest_eps(self) -> float:
        """The eps whose ball holds the whole of [0,1] from anywhere in it."""
        return 1.0 if self.threat.norm == "linf" else math.sqrt(math.prod(self.examples.data.shape))

    def first_run(self, attack: Any, name: str) -> AttackRun:
        """An attack from its first random start."""
        return AttackRun(attack, goal_for(self.loss), (self.settings.seed, 0), name)

    def last_iterate(self, attack: Any, name: str) -> Tensor:
        """Which examples hold at the last iterate of the first start, shape (n,)."""
        return evaluate_last_iterate(self.view, self.examples, [self.first_run(attack, name)], self.progress)[0]

    def any_iterate(
        self, attack: Any, name: str, clean: Tensor, *, loss: str | None = None, starts: int = 1, targets: int = 1
    ) -> list[float]:
        """Accuracy after each run, any iterate counting; of the examples that are `clean`, right unattacked."""
        runs = attack_runs(
            attack,
            loss=self.loss if loss is None else loss,
            starts=starts,
            targets=targets,
            seed=self.settings.seed,
            classes=self.examples.data.num_classes,
            name=f"{name}/",
        )
        return [share(held) for _, held in evaluate_any_iterate(self.view, self.examples, runs, clean, self.progress)]


@dataclass(frozen=True)
class Finding:
    """What a check returns: flags, and the numbers that it measured."""

    flags: tuple[Flag, ...]
    numbers: dict[str, float] = field(default_factory=dict)


class Surrogate:
    """One model's adversarial examples, to be shown to the others: made once a batch, when they are first wanted."""

    def __init__(self, model: Model, examples: Examples, run: AttackRun) -> None:
        self.model, self.examples, self.run = model, examples, run
        # By the first id of a batch, on the CPU.
        self._x_adv: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        key = int(ids[0])
        if key not in self._x_adv:
            with self.model.frozen("eval") as f:
                self._x_adv[key] = perturb(f, x, y, ids, self.run).cpu()
        return self._x_adv[key].to(x.device)


def _flag(check: str, failed: bool, level: Level, if_failed: str, if_passed: str) -> Flag:
    return Flag(check, level if failed else "green", if_failed if failed else if_passed)


# -- the model's outputs -------------------------------------------------------------------------------------------------


def outputs_are_logits(logits: Tensor) -> Finding:
    """Whether the outputs are logits."""
    probabilities = ((logits >= 0) & (logits <= 1)).all() and ((logits.sum(1) - 1).abs() < 1e-5).all()
    flag = _flag(
        "logits",
        bool(probabilities),
        "red",
        "the outputs are probabilities: an attack on their cross-entropy sees hardly any gradient; return logits",
        "the outputs are logits",
    )
    return Finding((flag,))


def same_outputs(audited: Audited, x: Tensor, logits: Tensor) -> Finding:
    """Whether the same images have the same outputs, in another forward and without their neighbours; `logits` are those of a first forward."""
    g = audited.view
    with torch.no_grad():
        size = logits.norm(dim=1).clamp_min(1e-10)
        spread = max(float(((g(x) - logits).norm(dim=1) / size).max()) for _ in range(4))
        alone = float(((g(x[:1]) - logits[:1]).norm(dim=1) / size[:1]).max())
    deterministic = _flag(
        "deterministic",
        not spread <= 1e-4,
        "red",
        f"five forwards of the same images differ by up to {spread:.2g} of their length: an attack must average over the randomness",
        "five forwards of the same images agree",
    )
    independent = _flag(
        "independent",
        spread <= 1e-4 and not alone <= 1e-3,
        "red",
        f"an image's outputs differ by {alone:.2g} of their length when it is alone in its batch: its neighbours change the answer",
        "an image's outputs do not depend on its neighbours",
    )
    return Finding((deterministic, independent), {"forward_spread": spread})


def plain_forward(audited: Audited, x: Tensor) -> Finding:
    """Whether the forward pass works where no gradient can be taken."""
    try:
        with torch.inference_mode():
            audited.view(x)
        problem = ""
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    flag = _flag(
        "plain forward",
        bool(problem),
        "red",
        f"the forward pass needs gradients of its own ({problem}): the defence optimises at inference",
        "the forward pass needs no gradients",
    )
    return Finding((flag,))


def gradients(audited: Audited, clean: Tensor) -> Finding:
    """Inputs, of those that the model gets right, whose gradient is zero everywhere. Raises `NoGradient` where there is none to take."""
    places = clean.nonzero()[:, 0]
    if not len(places):
        return Finding(
            (Flag("zero gradients", "yellow", "the model gets no image right, so there is nothing to attack"),)
        )

    def zero(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        goals = [goal_for(loss)(audited.view, x, y) for loss in ("cross_entropy", "margin")]
        gradients = [ascend(goal, x, slice(None))[2].flatten(1) for goal in goals]
        return torch.stack([(gradient == 0).all(1) | gradient.isnan().any(1) for gradient in gradients])

    entropy, margin = audited.examples.each("zero", audited.progress, zero, places)
    saturated = entropy & ~margin
    vanishing = _flag(
        "zero gradients",
        bool(margin.any()),
        "red",
        f"{int(margin.sum())} of {len(places)} images have no gradient at all: gradient attacks cannot move them",
        "every image has a gradient",
    )
    saturation = _flag(
        "saturation",
        bool(saturated.any()),
        "red" if audited.loss == "cross_entropy" else "yellow",
        f"the cross-entropy of {int(saturated.sum())} of {len(places)} images is saturated, its gradient zero in fp32: attack the margin or DLR loss",
        "the cross-entropy is not saturated",
    )
    numbers = {"zero_gradients": share(entropy), "zero_margin_gradients": share(margin)}
    return Finding((vanishing, saturation), numbers)


# -- the attack itself ---------------------------------------------------------------------------------------------------


def step_size(audited: Audited) -> Finding:
    """The step size against the ball."""
    attack, eps = audited.attack, audited.threat.eps
    step, steps = setting(attack, "step_size"), setting(attack, "steps") or 1
    if step is None or not float(eps):
        return Finding(())
    large, short = step > float(eps), step * steps < float(eps)
    too_large = f"the step size {step} is larger than eps {eps}: every step ends on the border of the ball"
    too_short = f"{steps} steps of {step} reach {steps * step:.3g}, not eps {eps}"
    flag = _flag(
        "step size",
        large or short,
        "yellow",
        too_large if large else too_short,
        "the steps can reach the ball's border and are no longer than eps",
    )
    return Finding((flag,))


def restarts(audited: Audited, by_start: Sequence[float]) -> Finding:
    """Whether the last start still breaks examples; `by_start`: accuracy after each."""
    starts, gain = len(by_start), by_start[-2] - by_start[-1]
    flag = _flag(
        "restarts",
        gain > audited.settings.tolerance,
        "yellow",
        f"start {starts} still breaks {100 * gain:.1f} % more: {starts} starts are not enough",
        f"start {starts} breaks {100 * gain:.1f} % more ({100 * (by_start[0] - by_start[-1]):.1f} % since the first)",
    )
    return Finding((flag,), {"last_start_gain": gain})


def more_steps(audited: Audited, any_iterate: float) -> Finding:
    """The last iterate against any iterate of the same start, whose accuracy is handed in, and against that of twice the steps."""
    settings, steps = audited.settings, setting(audited.attack, "steps")
    twice = with_setting(audited.attack, "steps", 2 * steps)
    few = share(audited.last_iterate(audited.attack, f"last {steps}"))
    many = share(audited.last_iterate(twice, f"last {2 * steps}"))
    over = few - any_iterate
    level: Level = "red" if over > settings.gap else "yellow" if over > settings.gap / 2 else "green"
    last_iterate = Flag(
        "last iterate",
        level,
        f"the last iterate shows {100 * few:.1f} %, any iterate of the same start leaves {100 * any_iterate:.1f} %",
    )
    helped = "the defender" if many > few else "the attack"
    more_steps = _flag(
        "more steps",
        many - few > 2 * settings.tolerance or few - many > settings.gap / 4 + 1e-9,
        "yellow",
        f"twice the steps help {helped}: {100 * few:.1f} % at {steps}, {100 * many:.1f} % at {2 * steps}",
        f"twice the steps change little: {100 * few:.1f} % at {steps}, {100 * many:.1f} % at {2 * steps}",
    )
    return Finding((last_iterate, more_steps), {"last_iterate": few, "last_iterate_twice": many})


# -- its radius ----------------------------------------------------------------------------------------------------------


def _with_eps(attack: Any, eps: float) -> Any:
    """The attack with another eps; its step size grows with it."""
    return with_setting(attack, "eps", eps, scale_step=True)


def eps_0(audited: Audited, clean: Tensor) -> Finding:
    """With eps 0 the accuracy is the clean one, example by example."""
    held = audited.last_iterate(_with_eps(audited.attack, 0.0), "eps 0")
    flag = _flag(
        "eps 0",
        not bool(held.equal(clean)),
        "red",
        f"with eps 0 accuracy is {100 * share(held):.1f} %, unattacked {100 * share(clean):.1f} %: they must be the same",
        "with eps 0 nothing changes",
    )
    return Finding((flag,), {"eps_0": share(held)})


def eps_1(audited: Audited, clean: Tensor) -> Finding:
    """With the whole of [0,1] to itself an attack leaves no more than chance."""
    unbounded, eps = _with_eps(audited.attack, audited.largest_eps), audited.largest_eps
    step, steps = setting(unbounded, "step_size"), setting(unbounded, "steps") or 1
    if step is not None and step * steps < 2 * eps:
        unbounded = with_setting(unbounded, "step_size", 2.5 * eps / steps)
    left, chance = audited.any_iterate(unbounded, "eps_1", clean)[-1], 1 / audited.examples.data.num_classes
    flag = _flag(
        "eps 1",
        left > chance + audited.settings.tolerance,
        "red",
        f"with the whole of [0,1] to itself the attack leaves {100 * left:.1f} %, more than chance ({100 * chance:.1f} %)",
        f"with the whole of [0,1] to itself the attack leaves {100 * left:.1f} % (chance is {100 * chance:.1f} %)",
    )
    return Finding((flag,), {"eps_1": left})


def monotone(audited: Audited, clean: Tensor, first: float) -> Finding:
    """Accuracy falls from no attack to half the eps, the eps (`first`, from one start) and twice the eps."""
    eps = float(audited.threat.eps)
    measured = {
        factor: audited.any_iterate(_with_eps(audited.attack, factor * eps), f"eps_x{factor:g}", clean)[-1]
        for factor in (0.5, 2.0)
        if factor * eps <= audited.largest_eps
    }
    curve = dict(sorted({0.0: share(clean), 1.0: first, **measured}.items()))
    rises = any(after > before + audited.settings.tolerance for before, after in itertools.pairwise(curve.values()))
    shown = ", ".join(f"{100 * accuracy:.1f} % at {factor:g} eps" for factor, accuracy in curve.items())
    flag = _flag("monotone", rises, "red", f"accuracy rises with eps: {shown}", f"accuracy falls with eps: {shown}")
    return Finding((flag,), {f"eps_x{factor:g}": accuracy for factor, accuracy in measured.items()})


# -- other attacks -------------------------------------------------------------------------------------------------------


def weaker_attacks(audited: Audited) -> dict[str, tuple[Any, str]]:
    """By name, the attacks that must not beat the one in question, and the loss of each: a single step, noise, search without gradients."""
    norm, eps = audited.threat.norm, audited.threat.eps
    rivals: dict[str, tuple[Any, str]] = {
        "one step": (functools.partial(fgsm, eps=eps, norm=norm), "cross_entropy"),
        "random noise": (functools.partial(_random_points, eps=eps, norm=norm), "cross_entropy"),
    }
    if norm == "linf":
        rivals["Square"] = (functools.partial(square, eps=eps, queries=audited.settings.queries), "margin")
    return rivals


def _random_points(goal: Any, x: Tensor, *, noise: Noise, eps: float, norm: Norm, draws: int = 10) -> Tensor:
    """Random points of the ball, as an attack."""
    x_adv = x
    with torch.no_grad():
        for _ in range(draws):
            x_adv = NORMS[norm].project(x + eps * NORMS[norm].uniform(noise, x), x, eps)
            goal(x_adv, slice(None))
    return x_adv


def weaker(audited: Audited, clean: Tensor, attacked: float, name: str, rival: Any, loss: str) -> Finding:
    """A weaker attack leaves no less than the attack itself, which leaves the accuracy `attacked`."""
    number = name.lower().replace(" ", "_")
    left = audited.any_iterate(rival, number, clean, loss=loss)[-1]
    return Finding((_compared(audited, attacked, name, left),), {number: left})


def transfer(audited: Audited, attacked: float, name: str, surrogate: Surrogate) -> Finding:
    """Another model's examples break no more than the attack itself."""

    def held(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        return predict(audited.view, surrogate(x, y, ids)) == y

    left = share(audited.examples.each(f"transfer {name}", audited.progress, held))
    flag = _compared(audited, attacked, f"transfer from {name}", left)
    return Finding((flag,), {f"transfer_from_{name}": left})


def _compared(audited: Audited, attacked: float, name: str, left: float) -> Flag:
    """Red where a weaker attack beats the attack by more than the tolerance."""
    said = f"{name} leaves {100 * left:.1f} %, {title(audited.attack)} {100 * attacked:.1f} %"
    return _flag(name, left < attacked - audited.settings.tolerance, "red", f"{said}: the gradients mislead", said)


def targeted_apgd(audited: Audited, clean: Tensor, attacked: float) -> Finding:
    """Targeted APGD, which looks at the margin and adapts its steps, against the attack itself."""
    settings, allowed = audited.settings, audited.threat
    adaptive = functools.partial(apgd, eps=allowed.eps, norm=allowed.norm, steps=settings.steps)
    loss = "targeted_dlr" if audited.examples.data.num_classes >= CLASSES_NEEDED["targeted_dlr"] else "margin"
    left = audited.any_iterate(adaptive, "apgd", clean, loss=loss, targets=settings.targets)[-1]
    drop, own, name = attacked - left, title(audited.attack), title(adaptive, loss)
    level: Level = "green"
    if drop > settings.gap / 2:
        level = "red" if drop > settings.gap or left < attacked / 2 else "yellow"
    said = f"{name} leaves {100 * left:.1f} %, {own} {100 * attacked:.1f} %"
    flag = Flag(name, level, said if level == "green" else f"{said}: {own} overrates this model")
    return Finding((flag,), {"apgd": left})

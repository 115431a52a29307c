"""The audit: does the robustness that was measured come from the model, or from gradients that mislead the attack?

Each check is a line of the evaluation checklists of Carlini et al. (2019) and Athalye et al. (2018), made automatic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import NORMS, Norm, Threat, apgd, fgsm, square, threat
from actkit.attacks.goals import Loss, NoGradient, ascend
from actkit.attacks.norms import setting
from actkit.config.registry import Attack, Model, register
from actkit.datasets import Data
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
    settings_problems,
    title,
    tolerance_of,
    with_setting,
)
from actkit.probes.result import Flag, Level, Progress, Result, share


@register("probe", check=settings_problems)
def audit(
    models: Mapping[str, Model],
    data: Data,
    *,
    attack: Attack,
    loss: Loss = "cross_entropy",
    starts: int = 5,
    queries: int = 300,
    targets: int = 3,
    steps: int = 50,
    tolerance: float = 0.005,
    gap: float = 0.1,
    split: str = "test",
    limit: int | None = 200,
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Checks of `attack` on each model; every other model serves as a surrogate. A red flag marks the model's robust accuracies UNVERIFIED.

    Red: outputs that are probabilities; outputs that differ between forwards; a forward pass that needs gradients; inputs without a
    gradient, of the cross-entropy (it saturates) or of the margin too (there is none); eps 0 that is not clean accuracy; eps 1 (the whole
    of [0,1]) that leaves more than chance; accuracy that rises with eps; one step, random noise, black-box search (Square) or transfer
    that beats the attack; targeted APGD that beats it by more than `gap`, or halves it; a last iterate that shows more than `gap` above what any
    iterate of the same start leaves; an example whose outputs depend on its neighbours in the batch. Yellow: a step larger than eps, or steps too few to
    reach the ball's border; twice the steps that help the attack or the defender; a last restart that still breaks examples; targeted
    APGD that beats the attack by more than half of `gap`.

    Args:
        attack, loss: what the accuracies in question were measured with.
        queries, targets, steps: of Square, and of targeted APGD.
        tolerance: how far an accuracy may be off before a check complains; at least one and a half examples.
        gap: see above. Cross-entropy PGD commonly overrates an honest robust model by 2 to 5 points.
    """
    progress = progress or Progress()
    device = next(iter(models.values())).device
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=device)
    # Every model's own examples, to be shown to the others: made once, when they are first wanted.
    made = {
        name: _Surrogate(model, examples, AttackRun(attack, goal_for(loss), (seed, 0), "surrogate"))
        for name, model in models.items()
    }
    found = {}
    for name, model in models.items():
        with model.frozen("eval") as g:
            one = _Audit(
                g, examples, attack, loss, threat(attack), starts, queries, targets, steps, tolerance_of(tolerance, examples), gap,
                seed, progress.of(name),
            )  # fmt: skip
            flags = tuple(one.flags({other: made[other] for other in models if other != name}))
        levels = {level: float(sum(flag.level == level for flag in flags)) for level in ("green", "yellow", "red")}
        found[name] = Result({**levels, **one.numbers}, {}, (), one.allowed, flags)
    return found


class _Surrogate:
    """One model's adversarial examples, batch by batch."""

    def __init__(self, model: Model, examples: Examples, attempt: AttackRun) -> None:
        self.model, self.examples, self.attempt = model, examples, attempt
        self._made: dict[int, Tensor] = {}  # by the first id of a batch, on the CPU

    def __call__(self, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        key = int(ids[0])
        if key not in self._made:
            with self.model.frozen("eval") as f:
                self._made[key] = perturb(f, x, y, ids, self.attempt).cpu()
        return self._made[key].to(x.device)


@dataclass
class _Audit:
    """The audit of one model. The checks are methods that yield flags; `numbers` fills as they measure."""

    g: View
    examples: Examples
    attack: Any
    loss: str
    allowed: Threat
    starts: int
    queries: int
    targets: int
    steps: int
    tolerance: float
    gap: float
    seed: int
    progress: Any

    def __post_init__(self) -> None:
        self.numbers: dict[str, float] = {}
        self.blind = False

    def flags(self, others: Mapping[str, _Surrogate]) -> Iterator[Flag]:
        checks = 10 + self.starts + len(others) + self.targets  # as many passes over the examples, at most
        self.progress.expect(checks * self.examples.count(), in_all=True)
        self.clean = self.examples.correct(self.g, self.progress)
        self.numbers["clean"] = share(self.clean)
        yield from self.outputs()
        yield from self.gradients()
        if self.blind:
            return
        yield from self.budget()
        yield from self.attacked()
        yield from self.radius()
        yield from self.weaker(others)
        yield from self.stronger()

    # -- measuring ---------------------------------------------------------------------------------------------------------

    def broken(
        self, name: str, attack: Any, *, loss: str | None = None, starts: int = 1, targets: int = 1
    ) -> list[float]:
        """Accuracy after each start, any iterate counting."""
        loss = self.loss if loss is None else loss
        runs = attack_runs(
            attack, loss=loss, starts=starts, targets=targets, seed=self.seed, classes=self.examples.data.num_classes,
            name=f"{name}/",
        )  # fmt: skip
        after = [
            share(still) for _, still in evaluate_any_iterate(self.g, self.examples, runs, self.clean, self.progress)
        ]
        self.numbers[name] = after[-1]
        return after

    def once(self, attack: Any, name: str = "once") -> AttackRun:
        """The attack from its first random start."""
        return AttackRun(attack, goal_for(self.loss), (self.seed, 0), name)

    def changed(self, **settings: Any) -> Any:
        """The attack with other settings; its step size grows with eps."""
        made = self.attack
        for name, value in settings.items():
            made = with_setting(made, name, value, scale_step=True)
        return made

    def say(self, check: str, wrong: bool, bad: Level, if_wrong: str, if_right: str) -> Flag:
        return Flag(check, bad if wrong else "green", if_wrong if wrong else if_right)

    # -- the checks --------------------------------------------------------------------------------------------------------

    def outputs(self) -> Iterator[Flag]:
        """Logits, the same ones every time, without gradients at inference."""
        x, _, _ = self.examples.first()
        with torch.no_grad():
            logits = self.g(x)
            size = logits.norm(dim=1).clamp_min(1e-10)
            spread = max(float(((self.g(x) - logits).norm(dim=1) / size).max()) for _ in range(4))
            alone = float(((self.g(x[:1]) - logits[:1]).norm(dim=1) / size[:1]).max())
        between = ((logits >= 0) & (logits <= 1)).all() and ((logits.sum(1) - 1).abs() < 1e-5).all()
        yield self.say(
            "logits", bool(between), "red",
            "the outputs are probabilities: an attack on their cross-entropy sees hardly any gradient; return logits",
            "the outputs are logits",
        )  # fmt: skip
        self.numbers["forward_spread"] = spread
        yield self.say(
            "deterministic", not spread <= 1e-4, "red",
            f"five forwards of the same images differ by up to {spread:.2g} of their length: an attack must average over the randomness",
            "five forwards of the same images agree",
        )  # fmt: skip
        yield self.say(
            "independent", spread <= 1e-4 and not alone <= 1e-3, "red",
            f"an image's outputs differ by {alone:.2g} of their length when it is alone in its batch: its neighbours change the answer",
            "an image's outputs do not depend on its neighbours",
        )  # fmt: skip
        try:
            with torch.inference_mode():
                self.g(x)
            needs = ""
        except RuntimeError as error:
            needs = str(error).splitlines()[0]
        yield self.say(
            "plain forward", bool(needs), "red",
            f"the forward pass needs gradients of its own ({needs}): the defence optimises at inference",
            "the forward pass needs no gradients",
        )  # fmt: skip

    def gradients(self) -> Iterator[Flag]:
        """Inputs, of those that the model gets right, whose gradient is zero everywhere."""
        places = self.clean.nonzero()[:, 0]
        if not len(places):
            yield Flag("zero gradients", "yellow", "the model gets no image right, so there is nothing to attack")
            return

        def zero(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            rows = [ascend(goal_for(loss)(self.g, x, y), x, slice(None))[2] for loss in ("cross_entropy", "margin")]
            return torch.stack(
                [(gradient.flatten(1) == 0).all(1) | gradient.flatten(1).isnan().any(1) for gradient in rows]
            )

        try:
            entropy, margin = self.examples.each("zero", self.progress, zero, places)
        except NoGradient as error:
            yield Flag(
                "zero gradients",
                "red",
                f"{error.message}: a gradient attack cannot work, and nothing more can be checked",
            )
            self.blind = True
            return
        self.numbers["zero_gradients"], self.numbers["zero_margin_gradients"] = share(entropy), share(margin)
        saturated = entropy & ~margin
        attacked = self.loss == "cross_entropy"
        yield self.say(
            "zero gradients", bool(margin.any()), "red",
            f"{int(margin.sum())} of {len(places)} images have no gradient at all: gradient attacks cannot move them",
            "every image has a gradient",
        )  # fmt: skip
        yield self.say(
            "saturation", bool(saturated.any()), "red" if attacked else "yellow",
            f"the cross-entropy of {int(saturated.sum())} of {len(places)} images is saturated, its gradient zero in fp32: attack the "
            "margin or DLR loss",
            "the cross-entropy is not saturated",
        )  # fmt: skip

    def budget(self) -> Iterator[Flag]:
        """The step size against the ball."""
        eps, step, steps = float(self.allowed.eps), setting(self.attack, "step_size"), setting(self.attack, "steps")
        if step is None or not eps:
            return
        steps = steps or 1
        large, short = step > eps, step * steps < eps
        yield self.say(
            "step size", large or short, "yellow",
            f"the step size {step} is larger than eps {self.allowed.eps}: every step ends on the border of the ball"
            if large
            else f"{steps} steps of {step} reach {steps * step:.3g}, not eps {self.allowed.eps}",
            "the steps can reach the ball's border and are no longer than eps",
        )  # fmt: skip

    def attacked(self) -> Iterator[Flag]:
        """The attack itself: from several starts, and with twice the steps."""
        after = self.broken("attack", self.attack, starts=self.starts)
        self.accuracy = after[-1]
        self.numbers["first_start"] = after[0]
        if self.starts > 1:
            gain = after[-2] - after[-1]
            self.numbers["last_start_gain"] = gain
            yield self.say(
                "restarts", gain > self.tolerance, "yellow",
                f"start {self.starts} still breaks {100 * gain:.1f} % more: {self.starts} starts are not enough",
                f"start {self.starts} breaks {100 * gain:.1f} % more ({100 * (after[0] - after[-1]):.1f} % since the first)",
            )  # fmt: skip
        steps = setting(self.attack, "steps")
        if steps is None:
            return
        twice = with_setting(self.attack, "steps", 2 * steps)
        few, many = (
            share(evaluate_last_iterate(self.g, self.examples, [self.once(a, f"last {n}")], self.progress))
            for a, n in ((self.attack, steps), (twice, 2 * steps))
        )
        self.numbers["last_iterate"], self.numbers["last_iterate_twice"] = few, many
        any_of_it = self.numbers["first_start"]
        over = few - any_of_it
        level: Level = "red" if over > self.gap else "yellow" if over > self.gap / 2 else "green"
        yield Flag(
            "last iterate", level,
            f"the last iterate shows {100 * few:.1f} %, any iterate of the same start leaves {100 * any_of_it:.1f} %",
        )  # fmt: skip
        helps = "the defender" if many > few else "the attack"
        yield self.say(
            "more steps", many - few > 2 * self.tolerance or few - many > self.gap / 4 + 1e-9, "yellow",
            f"twice the steps help {helps}: {100 * few:.1f} % at {steps}, {100 * many:.1f} % at {2 * steps}",
            f"twice the steps change little: {100 * few:.1f} % at {steps}, {100 * many:.1f} % at {2 * steps}",
        )  # fmt: skip

    def radius(self) -> Iterator[Flag]:
        """eps 0, eps 1, and that accuracy falls in between."""
        eps = float(self.allowed.eps)
        if not eps:
            return
        still, whole = (
            self.changed(eps=0.0),
            1.0 if self.allowed.norm == "linf" else math.sqrt(math.prod(self.examples.data.shape)),
        )
        hits = evaluate_last_iterate(self.g, self.examples, [self.once(still, "eps 0")], self.progress)[0]
        at_zero = share(hits)
        self.numbers["eps_0"] = at_zero
        yield self.say(
            "eps 0", not bool(hits.equal(self.clean)), "red",
            f"with eps 0 accuracy is {100 * at_zero:.1f} %, unattacked {100 * self.numbers['clean']:.1f} %: they must be the same",
            "with eps 0 nothing changes",
        )  # fmt: skip
        unbound = self.changed(eps=whole)
        step, steps = setting(unbound, "step_size"), setting(unbound, "steps") or 1
        if step is not None and step * steps < 2 * whole:
            unbound = with_setting(unbound, "step_size", 2.5 * whole / steps)
        left, chance = self.broken("eps_1", unbound)[-1], 1 / self.examples.data.num_classes
        yield self.say(
            "eps 1", left > chance + self.tolerance, "red",
            f"with the whole of [0,1] to itself the attack leaves {100 * left:.1f} %, more than chance ({100 * chance:.1f} %)",
            f"with the whole of [0,1] to itself the attack leaves {100 * left:.1f} % (chance is {100 * chance:.1f} %)",
        )  # fmt: skip
        first = self.numbers["first_start"]
        curve = {f: self.broken(f"eps_x{f:g}", self.changed(eps=f * eps))[-1] for f in (0.5, 2.0) if f * eps <= whole}
        curve = dict(sorted({0.0: self.numbers["clean"], 1.0: first, **curve}.items()))
        rises = [(a, b) for a, b in zip(curve, list(curve)[1:], strict=False) if curve[b] > curve[a] + self.tolerance]
        shown = ", ".join(f"{100 * v:.1f} % at {f:g} eps" for f, v in curve.items())
        yield self.say(
            "monotone", bool(rises), "red", f"accuracy rises with eps: {shown}", f"accuracy falls with eps: {shown}"
        )

    def weaker(self, others: Mapping[str, _Surrogate]) -> Iterator[Flag]:
        """What must not beat the attack: a single step, noise, search without gradients, other models' examples."""
        norm, eps = self.allowed.norm, self.allowed.eps
        rivals: dict[str, Any] = {
            "one step": functools.partial(fgsm, eps=eps, norm=norm),
            "random noise": functools.partial(_noise, eps=eps, norm=norm),
        }
        if norm == "linf":
            rivals["Square"] = functools.partial(square, eps=eps, queries=self.queries)
        for name, rival in rivals.items():
            loss = "margin" if name == "Square" else "cross_entropy"
            left = self.broken(name.lower().replace(" ", "_"), rival, loss=loss)[-1]
            yield self._beaten(name, left)
        for name, other in others.items():
            yield self._beaten(f"transfer from {name}", self._transferred(name, other))

    def _beaten(self, name: str, left: float) -> Flag:
        own = title(self.attack)
        return self.say(
            name, left < self.accuracy - self.tolerance, "red",
            f"{name} leaves {100 * left:.1f} %, {own} {100 * self.accuracy:.1f} %: the gradients mislead",
            f"{name} leaves {100 * left:.1f} %, {own} {100 * self.accuracy:.1f} %",
        )  # fmt: skip

    def _transferred(self, name: str, other: _Surrogate) -> float:
        def survive(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            return predict(self.g, other(x, y, ids)) == y

        left = share(self.examples.each(f"transfer {name}", self.progress, survive))
        self.numbers[f"transfer_from_{name}"] = left
        return left

    def stronger(self) -> Iterator[Flag]:
        """Targeted APGD, which looks at the margin and adapts its steps."""
        adaptive = functools.partial(apgd, eps=self.allowed.eps, norm=self.allowed.norm, steps=self.steps)
        classes = self.examples.data.num_classes
        loss = "targeted_dlr" if classes >= 4 else "margin"
        left = self.broken("apgd", adaptive, loss=loss, targets=self.targets)[-1]
        drop, own, name = self.accuracy - left, title(self.attack), title(adaptive, loss)
        said = f"{name} leaves {100 * left:.1f} %, {own} {100 * self.accuracy:.1f} %"
        level: Level = "green"
        if drop > self.gap / 2:
            level = "red" if drop > self.gap or left < self.accuracy / 2 else "yellow"
        yield Flag(name, level, said + ("" if level == "green" else f": {own} overrates this model"))


def _noise(goal: Any, x: Tensor, *, noise: Noise, eps: float, norm: Norm, draws: int = 10) -> Tensor:
    """Random points of the ball, as an attack."""
    x_adv = x
    with torch.no_grad():
        for _ in range(draws):
            x_adv = NORMS[norm].project(x + eps * NORMS[norm].uniform(noise, x), x, eps)
            goal(x_adv, slice(None))
    return x_adv

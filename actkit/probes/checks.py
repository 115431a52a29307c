"""The checks of the audit, one function each: (what is audited, what was measured before) -> flags and numbers.

Each is a line of the evaluation checklists of Carlini et al. (2019) and Athalye et al. (2018), made automatic. `actkit.probes.audit` says
which there are and in which order they run. No check changes anything that another reads. What compares two counts of images is red only
beyond chance (`actkit.probes.chance`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import Norm, apgd, fgsm, norm_named, square
from actkit.attacks.goals import CLASSES_NEEDED, ascend
from actkit.attacks.norms import setting
from actkit.findings import Counts, Flag, Level
from actkit.noise import Noise
from actkit.probes import chance
from actkit.probes.audited import Audited, Finding, Surrogate
from actkit.probes.protocols import goal_for, predict, title, with_setting
from actkit.probes.result import share


def _flag(check: str, failed: bool, level: Level, if_failed: str, if_passed: str, counts: Counts | None = None) -> Flag:
    return Flag(check, level if failed else "green", if_failed if failed else if_passed, counts)


def _of(held: Tensor) -> str:
    """'63 of 100 images'."""
    return f"{int(held.sum())} of {len(held)} images"


# -- how much there is to see --------------------------------------------------------------------------------------------


def images(audited: Audited, clean: Tensor) -> Finding:
    """How many images were looked at and how many of them are right, and whether so few can show what the audit looks for."""
    right = int(clean.sum())
    few = audited.settings.gap * right < chance.NEEDED
    said = f"{len(clean)} images were looked at, {right} of them right unattacked"
    part = f", {100 * chance.NEEDED / right:.0f} % of the right ones" if right >= chance.NEEDED else ""
    little = f"{said}: few show little; only from {chance.NEEDED} images on that fall to one attack alone is chance ruled out{part}"
    return Finding((_flag("images", few, "yellow", little, said, Counts(len(clean), len(clean) - right)),))


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
        f"five forwards of the same images differ by up to {spread:.2g} of their length: the model answers at random, and an attack must average over that "
        "(expectation over transformation: -s probe.robust_accuracy.draws=20, or actkit.expectation(goal, 20) around an attack's goal)",
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
    none, flat = (chance.shared(int(some.sum()), len(places), audited.settings.share) for some in (margin, saturated))
    vanishing = _flag(
        "zero gradients",
        bool(none.against),
        _level_of_share(none, audited),
        f"{none.against} of {len(places)} images have no gradient at all: gradient attacks cannot move them",
        "every image has a gradient",
        none,
    )
    saturation = _flag(
        "saturation",
        bool(flat.against),
        _level_of_share(flat, audited) if audited.loss == "cross_entropy" else "yellow",
        f"the cross-entropy of {flat.against} of {len(places)} images is saturated, its gradient zero in fp32: attack the margin or DLR loss",
        "the cross-entropy is not saturated",
        flat,
    )
    numbers = {"zero_gradients": share(entropy), "zero_margin_gradients": share(margin)}
    return Finding((vanishing, saturation), numbers)


def _level_of_share(counts: Counts, audited: Audited) -> Level:
    """Red where more than the tolerance of all images are so beyond chance, and yellow where some are."""
    red = counts.against > audited.settings.tolerance * counts.images and counts.beyond(chance.LEVEL)
    return "red" if red else "yellow"


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


def restarts(audited: Audited, by_start: Sequence[Tensor], wanted: int) -> Finding:
    """Whether the last start still breaks examples; `by_start`: which hold after each. An attack without random numbers has one start, however many are `wanted`."""
    if len(by_start) < wanted:
        said = f"{title(audited.attack)} draws no random numbers: it was run once, not from {wanted} equal starts"
        return Finding((Flag("restarts", "green", said),))
    counts = Counts(len(by_start[0]), int((by_start[-2] & ~by_start[-1]).sum()))
    gain, since = share(by_start[-2]) - share(by_start[-1]), int((by_start[0] & ~by_start[-1]).sum())
    flag = _flag(
        "restarts",
        gain > audited.settings.tolerance,
        "yellow",
        f"start {wanted} still breaks {counts.against} of {counts.images} images more: {wanted} starts are not enough",
        f"start {wanted} breaks {counts.against} of {counts.images} images more ({since} since the first)",
        counts,
    )
    return Finding((flag,), {"last_start_gain": gain})


def more_steps(audited: Audited, any_iterate: Tensor) -> Finding:
    """The last iterate against any iterate of the same start, after which `any_iterate` hold, and against that of twice the steps."""
    settings, steps = audited.settings, setting(audited.attack, "steps")
    twice = with_setting(audited.attack, "steps", 2 * steps)
    last = audited.last_iterate(audited.attack, f"last {steps}")
    longer = audited.last_iterate(twice, f"last {2 * steps}")
    few, many = share(last), share(longer)
    level, counts = _overrates(audited, last, any_iterate)
    said = f"the last iterate leaves {_of(last)}, any iterate of the same start {int(any_iterate.sum())}"
    why = "the number of the last iterate is too high"
    last_iterate = Flag("last iterate", level, said + chance.judged(counts, level, why), counts)
    helped, counts = "the attack", chance.compared(last, longer)
    if many > few:
        helped, counts = "the defender", chance.compared(longer, last)
    shown = f"{_of(last)} are left at {steps}, {int(longer.sum())} at {2 * steps}"
    more_steps = _flag(
        "more steps",
        many - few > 2 * settings.tolerance or few - many > max(settings.gap / 4, settings.tolerance) + 1e-9,
        "yellow",
        f"twice the steps help {helped}: {shown}",
        f"twice the steps change little: {shown}",
        counts,
    )
    return Finding((last_iterate, more_steps), {"last_iterate": few, "last_iterate_twice": many})


def _overrates(audited: Audited, shown: Tensor, left: Tensor) -> tuple[Level, Counts]:
    """Whether what an attack shows is above what a stronger one leaves, by more than an honest model's commonly is: half of `gap`.

    Red where it is by more than the gap, and by more than half of it beyond chance; or where the stronger attack breaks more than half of what was
    shown, beyond chance too. Yellow from half of the gap on; the p of its counts is then that of any difference.
    """
    settings, size = audited.settings, len(shown)
    seen = chance.compared(shown, left)
    drop = seen.net / size
    by_gap = chance.at_least(seen.net, size, settings.gap / 2) if drop > settings.gap else 1.0
    by_half = chance.at_least(seen.net, int(shown.sum()), 0.5)
    counts = dataclasses.replace(seen, p=min(by_gap, by_half))
    if drop <= max(settings.gap / 2, settings.tolerance):
        return "green", seen
    return ("red", counts) if counts.beyond(chance.LEVEL) else ("yellow", seen)


# -- its radius ----------------------------------------------------------------------------------------------------------


def _with_eps(attack: Any, eps: float) -> Any:
    """The attack with another eps; its step size grows with it."""
    return with_setting(attack, "eps", eps, scale_step=True)


def eps_0(audited: Audited, clean: Tensor) -> Finding:
    """With eps 0 every example comes out as it does unattacked: no chance is in that."""
    held = audited.last_iterate(_with_eps(audited.attack, 0.0), "eps 0")
    counts = Counts(len(clean), int((held != clean).sum()))
    flag = _flag(
        "eps 0",
        bool(counts.against),
        "red",
        f"with eps 0 {_of(held)} are right, unattacked {int(clean.sum())}; {counts.against} come out otherwise, and none may",
        "with eps 0 nothing changes",
        counts,
    )
    return Finding((flag,), {"eps_0": share(held)})


def eps_1(audited: Audited, clean: Tensor) -> Finding:
    """With the whole of [0,1] to itself an attack leaves no more than chance; of a norm that never gives it that (a patch) there is nothing to check."""
    if not audited.holds_every_image:
        said = f"no eps of {audited.threat.norm} holds the whole of [0,1]: what an attack would leave there was not checked"
        return Finding((Flag("eps 1", "green", said),))
    unbounded, eps = _with_eps(audited.attack, audited.largest_eps), audited.largest_eps
    step, steps = setting(unbounded, "step_size"), setting(unbounded, "steps") or 1
    if step is not None and step * steps < 2 * eps:
        unbounded = with_setting(unbounded, "step_size", 2.5 * eps / steps)
    held, guessed = audited.any_iterate(unbounded, "eps_1", clean)[-1], 1 / audited.examples.data.num_classes
    counts = chance.shared(int(held.sum()), len(held), guessed)
    level: Level = "green"
    if share(held) > guessed + audited.settings.tolerance:
        level = "red" if counts.beyond(chance.LEVEL) else "yellow"
    said = f"with the whole of [0,1] to itself the attack leaves {_of(held)} (a guess is right on {guessed * len(held):.3g})"
    flag = Flag("eps 1", level, said + chance.judged(counts, level, "it cannot find what is there"), counts)
    return Finding((flag,), {"eps_1": share(held)})


def monotone(audited: Audited, clean: Tensor, first: Tensor) -> Finding:
    """Fewer examples hold from no attack to half the eps, the eps (`first` hold, from one start) and twice the eps."""
    eps = float(audited.threat.eps)
    measured = {
        factor: audited.any_iterate(_with_eps(audited.attack, factor * eps), f"eps_x{factor:g}", clean)[-1]
        for factor in (0.5, 2.0)
        if factor * eps <= audited.largest_eps
    }
    curve = dict(sorted({0.0: clean, 1.0: first, **measured}.items()))
    rises = [chance.compared(after, before) for before, after in itertools.pairwise(curve.values())]
    tolerance = audited.settings.tolerance
    counts = max(rises, key=lambda one: (_RANK[chance.level(one, tolerance)], one.net))
    level = chance.level(counts, tolerance)
    shown = ", ".join(f"{int(held.sum())} at {factor:g} eps" for factor, held in curve.items())
    said = f"of {len(clean)} images the attack leaves {shown}"
    flag = Flag("monotone", level, said + chance.judged(counts, level, "accuracy rises with eps"), counts)
    return Finding((flag,), {f"eps_x{factor:g}": share(held) for factor, held in measured.items()})


_RANK = {"green": 0, "yellow": 1, "red": 2}


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
    x_adv, ball = x, norm_named(norm)
    with torch.no_grad():
        for _ in range(draws):
            x_adv = ball.project(x + eps * ball.uniform(noise, x), x, eps)
            goal(x_adv, slice(None))
    return x_adv


def weaker(audited: Audited, clean: Tensor, attacked: Tensor, name: str, rival: Any, loss: str) -> Finding:
    """A weaker attack leaves no less than the attack itself, under which `attacked` hold."""
    number = name.lower().replace(" ", "_")
    left = audited.any_iterate(rival, number, clean, loss=loss)[-1]
    return Finding((_compared(audited, attacked, name, left),), {number: share(left)})


def transfer(audited: Audited, attacked: Tensor, name: str, surrogate: Surrogate) -> Finding:
    """Another model's examples break no more than the attack itself."""

    def held(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        return predict(audited.view, surrogate(x, y, ids)) == y

    left = audited.examples.each(f"transfer {name}", audited.progress, held)
    flag = _compared(audited, attacked, f"transfer from {name}", left)
    return Finding((flag,), {f"transfer_from_{name}": share(left)})


def _compared(audited: Audited, attacked: Tensor, name: str, left: Tensor) -> Flag:
    """Whether a weaker attack beats the attack by more than the tolerance: on the same images, beyond chance or perhaps by it."""
    counts, own = chance.compared(attacked, left), title(audited.attack)
    level = chance.level(counts, audited.settings.tolerance)
    said = f"{name} leaves {_of(left)}, {own} {int(attacked.sum())}"
    if level != "green":
        said += f"; {counts.against} fall to {name} alone, {counts.in_favour} to {own} alone"
    return Flag(name, level, said + chance.judged(counts, level, "the gradients mislead"), counts)


def targeted_apgd(audited: Audited, clean: Tensor, attacked: Tensor) -> Finding:
    """Targeted APGD, which looks at the margin and adapts its steps, against the attack itself."""
    settings, allowed = audited.settings, audited.threat
    adaptive = functools.partial(apgd, eps=allowed.eps, norm=allowed.norm, steps=settings.steps)
    loss = "targeted_dlr" if audited.examples.data.num_classes >= CLASSES_NEEDED["targeted_dlr"] else "margin"
    left = audited.any_iterate(adaptive, "apgd", clean, loss=loss, targets=settings.targets)[-1]
    level, counts = _overrates(audited, attacked, left)
    own, name = title(audited.attack), title(adaptive, loss)
    said = f"{name} leaves {_of(left)}, {own} {int(attacked.sum())}"
    said += chance.judged(counts, level, f"{own} overrates this model")
    return Finding((Flag(name, level, said, counts),), {"apgd": share(left)})

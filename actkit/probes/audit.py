"""The audit: does the robustness that was measured come from the model, or from gradients that mislead the attack?

Each check is a line of the evaluation checklists of Carlini et al. (2019) and Athalye et al. (2018), made automatic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from actkit.attacks import threat
from actkit.attacks.goals import Loss, NoGradient
from actkit.attacks.norms import setting
from actkit.config.registry import Attack, Model, register
from actkit.datasets import Data
from actkit.probes import checks
from actkit.probes.audited import Audited, Finding, Settings, Surrogate
from actkit.probes.protocols import AttackRun, Examples, goal_for, settings_problems, starts_of, tolerance_of
from actkit.probes.result import Flag, Progress, Result, share


@register("probe", check=settings_problems, attacks=False)
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

    Red: outputs that are probabilities; outputs that differ between forwards; an example whose outputs depend on its neighbours in the batch; a
    forward pass that needs gradients; eps 0 that is not clean accuracy. And, beyond chance: inputs without a gradient, of the cross-entropy (it
    saturates) or of the margin too (there is none); eps 1 (the whole of [0,1]) that leaves more than a guess; accuracy that rises with eps; one step,
    random noise, black-box search (Square) or transfer that beats the attack; targeted APGD that beats it by more than `gap`, or breaks more than half
    of what it leaves; a last iterate that shows more than `gap` above what any iterate of the same start leaves. Yellow: what of these may be chance,
    by exact tests on the same images (level 0.01); too few images to show a gap; a step larger than eps, or steps too few to reach the ball's border;
    twice the steps that help the attack or the defender; a last restart that still breaks examples; targeted APGD that beats the attack by more than
    half of `gap`. An attack that draws no random numbers is run once.

    Args:
        attack, loss: what the accuracies in question were measured with.
        queries, targets, steps: of Square, and of targeted APGD.
        tolerance: how far an accuracy may be off before a check complains; at least one and a half examples.
        gap: see above. Cross-entropy PGD commonly overrates an honest robust model by 2 to 5 points.
    """
    progress = progress or Progress()
    device = next(iter(models.values())).device
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=device)
    settings = Settings(starts, queries, targets, steps, tolerance_of(tolerance, examples), tolerance, gap, seed)
    run = AttackRun(attack, goal_for(loss), (seed, 0), "surrogate")
    surrogates = {name: Surrogate(model, examples, run) for name, model in models.items()}
    results = {}
    for name, model in models.items():
        others = {other: surrogate for other, surrogate in surrogates.items() if other != name}
        with model.frozen("eval") as g:
            audited = Audited(g, examples, attack, loss, threat(attack), settings, progress.of(name))
            results[name] = _result(audited, list(_findings(audited, others)))
    return results


def _findings(audited: Audited, surrogates: Mapping[str, Surrogate]) -> Iterator[Finding]:
    """All checks in order. What several of them need is measured here and handed down."""
    settings, examples = audited.settings, audited.examples
    # As many passes over the examples, at most.
    passes = 10 + settings.starts + len(surrogates) + settings.targets
    audited.progress.expect(passes * examples.count(), in_all=True)

    clean = examples.correct(audited.view, audited.progress)
    yield Finding((), {"clean": share(clean)})
    yield checks.images(audited, clean)
    x, _, _ = examples.first()
    with torch.no_grad():
        logits = audited.view(x)
    yield checks.outputs_are_logits(logits)
    yield checks.same_outputs(audited, x, logits)
    yield checks.plain_forward(audited, x)
    try:
        gradients = checks.gradients(audited, clean)
    except NoGradient as error:
        said = f"{error.message}: a gradient attack cannot work, and nothing more can be checked"
        yield Finding((Flag("zero gradients", "red", said),))
        return
    yield gradients
    yield checks.step_size(audited)

    # Which examples hold under the attack after each of its starts.
    starts = starts_of(audited.attack, settings.starts, examples.data)
    by_start = audited.any_iterate(audited.attack, "attack", clean, starts=starts)
    first, attacked = by_start[0], by_start[-1]
    yield Finding((), {"attack": share(attacked), "first_start": share(first)})
    if settings.starts > 1:
        yield checks.restarts(audited, by_start, settings.starts)
    if setting(audited.attack, "steps") is not None:
        yield checks.more_steps(audited, first)
    if float(audited.threat.eps):
        yield checks.eps_0(audited, clean)
        yield checks.eps_1(audited, clean)
        yield checks.monotone(audited, clean, first)
    for name, (rival, loss) in checks.weaker_attacks(audited).items():
        yield checks.weaker(audited, clean, attacked, name, rival, loss)
    for name, surrogate in surrogates.items():
        yield checks.transfer(audited, attacked, name, surrogate)
    yield checks.targeted_apgd(audited, clean, attacked)


def _result(audited: Audited, findings: Sequence[Finding]) -> Result:
    """How many flags there are of each level, then the numbers of all checks."""
    flags = tuple(flag for finding in findings for flag in finding.flags)
    numbers = {level: float(sum(flag.level == level for flag in flags)) for level in ("green", "yellow", "red")}
    for finding in findings:
        numbers |= finding.numbers
    return Result(numbers, {}, (), audited.threat, flags, headline=None)

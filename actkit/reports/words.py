"""An examination and a training in words: what was trained, against what, how it was measured, how sure the numbers are, what the checks are worth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from actkit.config.spec import Spec, amount
from actkit.errors import InputError
from actkit.evaluation.summary import Found, Summary
from actkit.findings import headline_among, wilson
from actkit.reports.rows import percent

# Below so many images, or so many that the model gets right, checks that find nothing say little.
FEW_IMAGES, FEW_RIGHT = 100, 50


# -- numbers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A number that is a share of images."""

    hits: int
    images: int

    @staticmethod
    def of(value: float, images: int | None) -> Share | None:
        """None of what is no whole number of so many images, such as a mean over random starts."""
        if not images or not 0 <= value <= 1 or abs(value * images - round(value * images)) > 1e-6 * images:
            return None
        return Share(round(value * images), images)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927): where the share of all such images lies, these being drawn at random."""
        return wilson(self.hits, self.images)

    @property
    def interval_shown(self) -> str:
        low, high = self.interval
        return f"{100 * low:.1f} to {100 * high:.1f}"


@dataclass(frozen=True)
class Shown:
    """A number of a model that a probe wants shown, with what it was measured under."""

    title: str
    value: float
    in_percent: bool
    found: Found

    @property
    def share(self) -> Share | None:
        return Share.of(self.value, self.found.images) if self.in_percent else None

    @property
    def text(self) -> str:
        return f"{percent(self.value)} %" if self.in_percent else f"{self.value:.4g}"

    @property
    def allowed(self) -> str:
        """'linf eps 8/255'; '' where nothing was attacked, or under several budgets."""
        threat = self.found.threat
        return f"{threat.norm} eps {threat.written}" if threat is not None and threat.written else ""


def numbers_of(summary: Summary, model: str) -> list[Shown]:
    """What is shown of a model, as far as it is a number."""
    return [
        Shown(column.title, value, column.percent, found)
        for found in summary.of(model).values()
        for column in found.columns
        if (value := found.numbers.get(column.number)) is not None
    ]


def strongest(shown: Iterable[Shown]) -> list[Shown]:
    """Of what was measured under attack the lowest accuracy, for each threat model. A probe without a number to watch tells of something else (transfer's rates of success)."""
    by_threat: dict[str, Shown] = {}
    for one in shown:
        if one.allowed and one.in_percent and one.found.verified is not None and headline_among(one.found.numbers):
            before = by_threat.get(one.allowed)
            by_threat[one.allowed] = one if before is None or one.value < before.value else before
    return list(by_threat.values())


def verdict(summary: Summary, model: str) -> str:
    """What a model withstands: how many images it gets right, unattacked and under the strongest attack; and whether its checks hold."""
    shown = numbers_of(summary, model)
    clean = next((one for one in shown if one.found.verified is None and one.in_percent), None)
    said = [f"the {model} model gets {_counted(clean)} right"] if clean else []
    for one in strongest(shown):
        doubt = ", which cannot be believed" if one.found.unverified else ""
        said.append(f"at most {_counted(one)} stay right within {one.allowed} (by {one.title}){doubt}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}. {_checks_hold(summary, model)}" if said else ""


def _checks_hold(summary: Summary, model: str) -> str:
    levels = [flag.level for flag in summary.flags.get(model, [])]
    cautions = levels.count("yellow")
    # Other probes have flags too; the audit counts its own.
    audited = any("green" in found.numbers for found in summary.of(model).values())
    if not audited and not levels.count("red") + cautions:
        return "Nothing was checked for gradient masking."
    if failed := levels.count("red"):
        return f"{failed} of {len(levels)} checks for gradient masking failed."
    if cautions:
        return f"No check for gradient masking failed; {cautions} of {len(levels)} ask{'s' if cautions == 1 else ''} for caution."
    if thin := thin_evidence(summary, model):
        return f"No check for gradient masking failed, but that says little: {thin}."
    return "Nothing that was checked suggests gradient masking."


def _counted(one: Shown) -> str:
    share = one.share
    if share is None:
        return f"{one.text} of the images"
    return f"{share.hits:,} of {share.images:,} images ({100 * one.value:.1f} %, 95 % interval {share.interval_shown})"


# -- checks --------------------------------------------------------------------------------------------------------------


def thin_evidence(summary: Summary, model: str) -> str:
    """Why checks of a model that found nothing say little: few images, or few that it gets right; '' where they say something."""
    said = []
    for spec in summary.evaluation:
        found = summary.of(model).get(spec.title)
        if found is None or not found.flags or found.numbers.get("clean") is None:
            continue
        images = found.images or looked_at(spec, summary)
        if not images:
            continue
        right = round((found.numbers["clean"] or 0.0) * images)
        if images < FEW_IMAGES:
            said.append(f"few images ({images})")
        if right < min(FEW_RIGHT, images):
            said.append(f"the model gets {right} of {images} right")
    return ", and ".join(said)


# -- how it was measured -------------------------------------------------------------------------------------------------


def attack_name(attack: Spec) -> str:
    """'PGD-20'."""
    name = attack.name.upper() if len(attack.name) <= 5 else attack.name
    steps = value_of(attack, "steps")
    return f"{name}-{steps}" if isinstance(steps, int) and attack.name != "fgsm" else name


def attack_words(attack: Spec) -> str:
    """'20 steps of 0.015 within linf eps 0.15'."""
    steps, step, eps = (value_of(attack, name) for name in ("steps", "step_size", "eps"))
    way = f"{steps} steps of {step} within " if steps and step else ""
    return f"{way}{value_of(attack, 'norm') or 'linf'} eps {eps}" if amount(eps) is not None else way


def attacks_in(spec: Spec) -> Iterator[Spec]:
    for value in spec.kwargs.values():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, Spec) and one.kind == "attack":
                yield one


def value_of(spec: Spec, name: str) -> object:
    """A setting, or its default; None where there is none, or the component is not installed here."""
    with contextlib.suppress(InputError):
        return spec.get(name)
    return spec.kwargs.get(name)


def looked_at(spec: Spec, summary: Summary) -> int:
    """How many images a probe looked at, at most; 0 where it looks at none."""
    split = value_of(spec, "split")
    size = summary.sizes.get(str(split), 0)
    seen = [found.images for name, found in summary.results.items() if name.label == spec.title]
    limits = [n for n in (value_of(spec, "limit"), *seen) if isinstance(n, int)]
    return min([size, *limits])


def _images(spec: Spec, summary: Summary) -> str:
    split = str(value_of(spec, "split"))
    size, looked = summary.sizes.get(split, 0), looked_at(spec, summary)
    if not looked:
        return ""
    return f"all {size:,} {split} images" if looked == size else f"{looked:,} of the {size:,} {split} images"


def protocol(spec: Spec, summary: Summary) -> str:
    """How a probe measured, as a sentence."""
    images, attack = _images(spec, summary), next(attacks_in(spec), None)
    named = f"{attack_name(attack)} ({attack_words(attack)})" if attack is not None else ""
    on = f" on {images}" if images else ""
    if spec.name == "accuracy":
        return f"Clean: accuracy without an attack{on}."
    if spec.name == "robust_accuracy":
        return _robust_accuracy(spec, named, on)
    if spec.name == "audit":
        return f"Audit: checks for gradient masking, of {named}{on}."
    with contextlib.suppress(InputError):
        about = spec.entry.description.split(". ")[0].split(": ")[0].rstrip(".")
        ends = "; ".join(part for part in (named, images) if part)
        return f"{spec.title}: {about}{f' ({ends})' if ends else ''}."
    return f"{spec.title}: probe.{spec.name}, which is not installed here{on}."


def _robust_accuracy(spec: Spec, named: str, on: str) -> str:
    starts = value_of(spec, "starts")
    several = isinstance(starts, int) and starts > 1
    begins = f"from {starts} random starts" if several else "from one start"
    said = f"{named}: accuracy under this attack {begins}{on}"
    if value_of(spec, "mode") == "worst_case":
        return f"{said}; an image is broken as soon as any point that the attack visits fools the model."
    said += "; every image is attacked, and the attack's last point counts."
    if several:
        said += " Worst run: the lowest accuracy of a start. Per-example worst: an image counts only if no start fools the model."
    return said


def component(spec: Spec) -> str:
    """A component without the look of a call: 'resnet (layers 1, 1; width 16)'."""
    parts = []
    for name, value in spec.kwargs.items():
        if isinstance(value, Spec):
            shown = component(value)
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return f"{spec.name} ({'; '.join(parts)})" if parts else spec.name


def method(objective: Spec) -> str:
    """What a defence is called, by the first words of its description: 'TRADES (Zhang et al. 2019, eq. 5)'; its name where it is not installed."""
    with contextlib.suppress(InputError):
        return objective.entry.description.split(": ")[0].rstrip(".")
    return objective.name


def listed(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))

"""One line that says what an examination came to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from actkit.attacks import Threat
from actkit.evaluation.summary import Found
from actkit.findings import headline_among
from actkit.probes import Flag, Result

# What tables add to an attack's name.
_PROTOCOL = re.compile(r"^\+ |( worst run| per-example worst| any iterate)$")


@dataclass(frozen=True)
class _Attack:
    """How many images stayed right under one attack, and what the attack is called."""

    title: str
    held: float


def verdict_of(found: Mapping[str, Found], results: Mapping[str, Result]) -> str:
    """Of one model's results, by probe: how many images stay right under the strongest attack, which one that is, and whether checks object.

    Attacks on the same images are counted together, image by image. An attack gives an upper bound: 'at most'.
    """
    groups = _by_threat(found, results)
    parts = [_robust(threat, found, results, labels) for threat, labels in groups.items()]
    checked = any(one.flags or one.because for one in found.values())
    if not parts and not checked:
        return f"{_clean(found)}no attack ran"
    return "; ".join([*(parts or [f"{_clean(found)}no attack is told of"]), _masking(found)])


def _by_threat(found: Mapping[str, Found], results: Mapping[str, Result]) -> dict[Threat, list[str]]:
    """The probes that attacked within one budget, by that budget."""
    groups: dict[Threat, list[str]] = {}
    for label, one in found.items():
        # A probe without a number to watch tells of something else: transfer's rates of success.
        told = one.verified is not None and headline_among(one.numbers) is not None
        if told and one.threat is not None and one.threat.written and one.images:
            groups.setdefault(one.threat, []).append(label)
    return groups


def _robust(threat: Threat, found: Mapping[str, Found], results: Mapping[str, Result], labels: list[str]) -> str:
    most = max(found[label].images or 0 for label in labels)
    together = [held_by_all(results[label]) for label in labels if found[label].images == most]
    counted = [one for one in together if one is not None]
    attacks = [attack for label in labels for attack in _attacks(found[label])]
    strongest = min(attacks, key=lambda attack: attack.held) if attacks else None
    right = _count(counted) if counted else round((strongest.held if strongest else 0.0) * most)
    said = f"at most {right:,} of {most:,} images stay right under {threat.norm} {threat.written}"
    return said + (f"; strongest: {strongest.title}" if strongest else "")


def _count(outcomes: list[Tensor]) -> int:
    alive = outcomes[0]
    for other in outcomes[1:]:
        alive = alive & other
    return int(alive.sum())


def held_by_all(result: Result) -> Tensor | None:
    """Which examples stay right in every run of a probe, (n,) bool; None where it does not say that."""
    correct = result.examples.get("correct")
    return None if correct is None else correct.bool().reshape(-1, correct.shape[-1]).all(0)


def _attacks(found: Found) -> list[_Attack]:
    """The attacks that the columns tell of, each with what it left; of an ensemble, each with what it left of what those before had left."""
    made: list[_Attack] = []
    for column in found.columns:
        value = found.numbers.get(column.number)
        if value is not None and column.percent:
            title = column.title
            while (shorter := _PROTOCOL.sub("", title)) != title:
                title = shorter
            made.append(_Attack(title, value))
    return made


def _clean(found: Mapping[str, Found]) -> str:
    for one in found.values():
        value = one.numbers.get("clean")
        if value is not None and one.images:
            return f"{round(value * one.images):,} of {one.images:,} images are right unattacked; "
    return ""


def _masking(found: Mapping[str, Found]) -> str:
    """Whether checks suggest that the gradients mislead."""
    flags = [flag for one in found.values() for flag in one.flags]
    red, yellow = _named(flags, "red"), _named(flags, "yellow")
    # Flags of an audit that was made before, of these very weights.
    earlier = list(dict.fromkeys(why for one in found.values() for why in one.because))
    if red:
        return f"red flags: {red}; what an attack leaves cannot be believed"
    if earlier:
        return f"an earlier audit raised red flags ({len(earlier)}); what an attack leaves cannot be believed"
    # Other probes have flags too; the audit counts its own.
    if not yellow and not any("green" in one.numbers for one in found.values()):
        return "no audit ran: whether gradients mislead was not checked"
    if yellow:
        return f"yellow flags: {yellow}; look at them"
    return "nothing suggests masking"


def _named(flags: list[Flag], level: str) -> str:
    return ", ".join(dict.fromkeys(flag.check for flag in flags if flag.level == level))

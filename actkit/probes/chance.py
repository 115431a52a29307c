"""What chance alone does to counts of images: exact tests, so that a check on few images knows how little it has seen."""

from __future__ import annotations

import math

from torch import Tensor

from actkit.findings import Counts, Level

# A check is red only where chance alone would show as much in fewer than one of a hundred cases.
LEVEL = 0.01


def at_least(count: int, of: int, share: float) -> float:
    """The probability that at least `count` of so many independent images are what each is with probability `share`: the binomial's upper tail."""
    if count <= 0:
        return 1.0
    if count > of or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    ways = math.lgamma(of + 1)
    yes, no = math.log(share), math.log1p(-share)
    terms = (
        math.exp(ways - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * yes + (of - k) * no)
        for k in range(count, of + 1)
    )
    return min(math.fsum(terms), 1.0)


# On how many images one outcome must differ from another, all in one direction, before chance is ruled out.
NEEDED = next(n for n in range(1, 64) if at_least(n, n, 0.5) < LEVEL)


def compared(one: Tensor, other: Tensor) -> Counts:
    """Two outcomes of the same images, of shape (n,): on how many the second is worse, and on how many better; McNemar's exact test, one-sided.

    Where the outcomes are equally good, an image on which they differ is as likely to favour either.
    """
    worse, better = int((one & ~other).sum()), int((~one & other).sum())
    return Counts(len(one), worse, better, at_least(worse, worse + better, 0.5))


def shared(count: int, of: int, share: float) -> Counts:
    """That something holds of `count` of so many images, where it may of a `share` of all: the exact binomial test, one-sided."""
    return Counts(of, count, 0, at_least(count, of, share))


def level(counts: Counts, tolerance: float) -> Level:
    """Red beyond chance, yellow where it may be no more than that; green where the difference is no more than `tolerance` (a share of the images)."""
    if counts.net <= tolerance * counts.images:
        return "green"
    return "red" if counts.beyond(LEVEL) else "yellow"


def judged(counts: Counts, level: Level, why: str) -> str:
    """What to say after the counts: nothing where it is well, `why` beyond chance, and that it may be so where chance alone does as much. A
    difference beyond chance may still be too small to doubt the model by.

    `why`: 'the gradients mislead'.
    """
    if level == "green":
        return ""
    p = counts.p if counts.p is not None else 0.0
    said = f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
    if level == "red":
        return f": {why} ({said})"
    if counts.beyond(LEVEL):
        return f": {why} ({said}), by less than masked gradients would make it"
    return f": perhaps {why}, perhaps chance ({said})"

"""How sure a share of some images is."""

from __future__ import annotations

import math

# Of the standard normal distribution, two-sided 95 %.
_Z = 1.959963984540054


def wilson(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate that was seen as `hits` of `count` (Wilson 1927): fractions in [0,1], also sensible at 0 and at all."""
    if count < 1:
        return 0.0, 1.0
    share, z2 = hits / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return (0.0 if hits <= 0 else max(0.0, middle - half)), (1.0 if hits >= count else min(1.0, middle + half))

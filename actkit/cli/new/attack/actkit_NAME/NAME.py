from __future__ import annotations

import torch

from actkit import InputError, register


def problems(*, eps: float, tries: int):
    if eps < 0:
        yield "eps", InputError(f"eps must not be negative, got {eps}")
    if tries < 1:
        yield "tries", InputError(f"at least 1 try is needed, got {tries}")


# An attack sees a goal, never a model or labels: goal(x, rows) gives, for those rows of the batch, the value to maximise and whether the
# attacker has won already (None in training). Random numbers come from `noise` alone.
@register("attack", check=problems)
def NAME(goal, x, *, noise, eps: float, tries: int = 10):
    """The best of several random corners of the linf ball: x of shape (B, C, H, W) in [0,1], eps in the same unit."""
    best, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
    for _ in range(tries):
        candidate = (x + eps * (2 * noise.integers(2, *x.shape[1:]).to(x) - 1)).clamp(0, 1)
        with torch.no_grad():
            value, _ = goal(candidate, slice(None))
        better = value > highest
        best, highest = torch.where(better[:, None, None, None], candidate, best), torch.maximum(value, highest)
    return best

from __future__ import annotations

import torch

from actkit import Column, Data, InputError, Model, Result, register


def problems(*, limit: int | None):
    if limit is not None and limit < 1:
        yield "limit", InputError(f"limit must be at least 1, got {limit}")


# A probe measures something on a trained model. `limit` takes part of the split: a random choice that is always the same (folders come sorted by class).
# What it stores of each example has the examples as its last dimension, in the order of `images`.
@register("probe", check=problems)
def NAME(model: Model, data: Data, *, split: str = "test", limit: int | None = None) -> Result:
    """Mean confidence: the largest probability of the posterior, over a split."""
    images = data.split(split).sample(limit)
    found = []
    with model.frozen("eval") as f, torch.no_grad():
        for x, _ in images.batches(torch.arange(len(images)).split(256), device=model.device):
            found.append(f(x).softmax(1).amax(1).cpu())
    confidence = torch.cat(found)
    return Result({"mean": float(confidence.mean())}, {"confidence": confidence}, (Column("mean", "confidence"),))

from __future__ import annotations

import torch

from actkit import Result, register


# A probe measures something on a trained model; what it stores of each example has the examples as its last dimension.
@register("probe")
def NAME(model, data, *, split: str = "test", limit: int | None = None) -> Result:
    """Mean confidence: the largest probability of the posterior, over a split."""
    images = data.split(split)
    places = torch.arange(len(images) if limit is None else min(limit, len(images)))
    found = []
    with model.frozen("eval") as f, torch.no_grad():
        for x, _ in images.batches(places.split(256), device=model.device):
            found.append(f(x).softmax(1).amax(1).cpu())
    confidence = torch.cat(found)
    return Result({"mean": float(confidence.mean())}, {"confidence": confidence})

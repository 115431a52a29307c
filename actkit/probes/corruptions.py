"""Accuracy on corrupted images (Hendrycks and Dietterich 2019): the mean, and by kind of corruption."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from actkit.config.registry import Model, register
from actkit.datasets import Data
from actkit.datasets.corruptions import KINDS, SEVERITIES, corrupted
from actkit.errors import InputError
from actkit.probes.pictures import OWN, Picture
from actkit.probes.protocols import Examples, settings_problems
from actkit.probes.result import Column, Progress, Result, share


def corruptions_problems(
    *, severities: list[int] | None, limit: int | None, batch_size: int
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the settings."""
    if severities is not None and (not severities or not set(severities) <= set(SEVERITIES)):
        yield "severities", InputError(f"severities are some of 1 to 5, got {severities}")
    yield from settings_problems(limit=limit, batch_size=batch_size)


@register("probe", check=corruptions_problems)
def corruptions(
    model: Model,
    data: Data,
    *,
    root: str,
    kinds: list[str] | None = None,
    severities: list[int] | None = None,
    limit: int | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Result:
    """Accuracy on CIFAR-10-C, CIFAR-100-C or ImageNet-C: `mean` over kinds and severities, and of each kind over its severities.

    Args:
        root: the folder with `<kind>.npy` and `labels.npy`, or with `<kind>/<severity>/<class>/*`.
        kinds: by default the paper's fifteen, where they are there, and else all that are. Its four others are not in the mean.
        severities: by default all five.
        limit: images of each kind and severity, the same ones in each; at most as many as the test split has.
    """
    progress = progress or Progress()
    there = corrupted(root, data)
    chosen = kinds or ([kind for kind in there.kinds if kind in KINDS] or list(there.kinds))
    severities = severities or list(SEVERITIES)
    most = data.sizes.get("test")
    limit = most if limit is None else limit if most is None else min(limit, most)
    outcomes = {}
    with model.frozen("eval") as f:
        for kind in chosen:
            found = []
            for severity in severities:
                some = Examples(
                    there.of(kind, severity), "test", limit=limit, batch_size=batch_size, device=model.device
                )
                found.append(some.correct(f, progress, f"{kind} {severity}"))
            outcomes[kind] = torch.stack(found)
    by_kind = {kind: share(hits) for kind, hits in outcomes.items()}
    numbers = {"mean": sum(by_kind.values()) / len(by_kind), **by_kind}
    return Result(
        numbers,
        outcomes,
        (Column("mean", f"{len(by_kind)} corruptions"),),
        pictures=(_picture(by_kind),),
        headline="mean",
    )


def _picture(by_kind: dict[str, float]) -> Picture:
    return Picture(
        "corruptions",
        "bars",
        "Accuracy under each corruption",
        {
            "groups": list(by_kind),
            "series": {OWN: {"y": list(by_kind.values())}},
            "percent": True,
            "y_label": "accuracy",
        },
    )

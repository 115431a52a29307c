"""Run probes on models: the one place where a training and `actkit probe` measure."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actkit.config.registry import Model
from actkit.datasets import Data
from actkit.errors import InputError
from actkit.findings import ResultName
from actkit.probes.result import Progress, Result


def labels(probes: Sequence[Any]) -> list[str]:
    """What the probes' results are called. Raises `InputError` when two share a name."""
    titles = [probe.spec.title for probe in probes]
    if twice := [t for t in dict.fromkeys(titles) if titles.count(t) > 1]:
        name = probes[titles.index(twice[0])].spec.name
        raise InputError(
            f"two probes are called {twice[0]!r}, and one result would replace the other",
            help=f"a probe is called by the scope it is in, such as @pgd100/probe.{name}()",
        )
    return titles


def measure(
    probes: Iterable[Any],
    models: Mapping[str, Model],
    data: Data,
    progress: Progress | None = None,
    results: dict[str, Result] | None = None,
) -> dict[str, Result]:
    """Run every probe on every model (every ordered group, if it takes several); results by '<model>.<probe>', a `ResultName` as text.

    Args:
        results: filled as probes are done, so that whoever is interrupted has those.
    """
    probes, progress = list(probes), progress or Progress()
    results = {} if results is None else results
    for probe, label in zip(probes, labels(probes), strict=True):
        target = probe.func if hasattr(probe, "func") else probe.__call__
        asks = "progress" in inspect.signature(target).parameters
        count = probe.spec.entry.takes
        if count is None:
            supplied = {"progress": progress.of(label)} if asks else {}
            found = probe(models, data, **supplied)
            results |= {str(ResultName(name, label)): _result(result, probe) for name, result in found.items()}
            continue
        for group in itertools.permutations(models, count):
            name = str(ResultName(">".join(group), label))
            supplied = {"progress": progress.of(name)} if asks else {}
            results[name] = _result(probe(*(models[role] for role in group), data, **supplied), probe)
    return results


def _result(found: Any, probe: Any) -> Result:
    """Raises `InputError` where a probe gives something else."""
    if not isinstance(found, Result):
        raise InputError(
            f"probe.{probe.spec.name} must return a Result, it returned {type(found).__name__}",
            help="Result({'mean': 0.5}, {'each': tensor_of_every_example}, (Column('mean', 'title'),))",
        )
    return found

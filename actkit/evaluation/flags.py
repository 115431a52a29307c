"""Flags of checks, kept beside the models that they were made of.

A flag stands, for these very weights, until the same probe, on the same data and beside the same other models, no longer raises it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actkit.config.spec import Spec
from actkit.config.typed import typed
from actkit.display import Display
from actkit.evaluation.run_files import run_of
from actkit.files import locked_file, sha256, write_json
from actkit.findings import Flag, ResultName
from actkit.networks.checkpoints import EXAMPLES

if TYPE_CHECKING:
    from actkit.probes import Result

# By the sum of the weights, then by what was checked.
Kept = dict[str, dict[str, list[Flag]]]


def keep_flags(
    results: Mapping[str, Result],
    files: Mapping[str, Path],
    evaluation: Sequence[Spec],
    tested: Mapping[str, str],
    display: Display,
) -> None:
    """Keep what was checked of each model beside its file, where that lies in a run; what a probe of several models found, beside each of them.

    Args:
        files: the models' files, by what results call them.
        tested: the fingerprints of the data, by split.
    """
    specs = {spec.title: spec for spec in evaluation}
    for model, file in files.items():
        others = sorted(sha256(other) for name, other in files.items() if name != model)
        new: dict[str, list[Flag]] = {}
        for name, result in results.items():
            named = ResultName.parse(name)
            if model in named.models and result.flags:
                checked = json.dumps([specs[named.label].to_json(), tested, others], sort_keys=True)
                new.setdefault(checked, []).extend(result.flags)
        if new:
            _keep(file, new, display)


def _keep(file: Path, new: dict[str, list[Flag]], display: Display) -> None:
    kept = _flags_file(file)
    if kept is None or kept.is_relative_to(EXAMPLES):
        return
    own = sha256(file)
    try:
        kept.parent.mkdir(exist_ok=True)
        with locked_file(kept):
            everything = _read_flags(kept)
            everything[own] = {**everything.get(own, {}), **new}
            write_json(
                kept, {sum: {c: [f.to_json() for f in fs] for c, fs in of.items()} for sum, of in everything.items()}
            )
    except OSError as error:
        display.warn(f"what was checked could not be kept: {error.strerror}: {kept}")


def standing_flags(file: Path) -> list[Flag]:
    """The flags that checks have left for these very weights."""
    kept = _flags_file(file)
    if kept is None or not kept.is_file() or not file.is_file():
        return []
    return [flag for flags in _read_flags(kept).get(sha256(file), {}).values() for flag in flags]


def _flags_file(file: Path) -> Path | None:
    run = run_of(file)
    return run / "probes" / f"flags-{file.stem}.json" if run else None


def _read_flags(kept: Path) -> Kept:
    """Nothing where the file cannot be read."""
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        return {
            weights: {checked: [typed(Flag, flag) for flag in flags] for checked, flags in of.items()}
            for weights, of in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}

"""What a red flag does: checks are kept beside the models that they were made of, and mark their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actkit.config.spec import Spec
from actkit.display import Display
from actkit.files import locked_file, sha256, write_json
from actkit.networks import model_files
from actkit.probes import Flag, Result


@dataclass(frozen=True)
class Judge:
    """Keeps what was checked beside the models, and marks their numbers.

    A flag stands, for these very weights, until the same probe, on the same data and beside the same other models, no longer raises it.

    Args:
        files: the models' files, by what results call them.
    """

    files: Mapping[str, Path]
    evaluation: Sequence[Spec]
    tested: Mapping[str, str]  # fingerprints of the data, by split
    display: Display

    def __call__(self, results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
        """Results as JSON; those that an attack gave are not `verified` where a model of theirs has a red flag, `because` of which."""
        for model in self.files:
            self._keep(model, results)
        red = {model: red_of(standing_flags(file)) for model, file in self.files.items()}
        for name, result in results.items():  # of models that no run holds
            for model in name.rpartition(".")[0].split(">"):
                red[model] = list(dict.fromkeys([*red.get(model, []), *red_of(result.flags)]))
        found = {}
        for name, result in results.items():
            because = [f"{model}, {said}" for model in name.rpartition(".")[0].split(">") for said in red[model]]
            found[name] = {
                **result.about(),
                **({"verified": not because, "because": because} if result.attacked else {}),
            }
        return found

    def _keep(self, model: str, results: Mapping[str, Result]) -> None:
        file = self.files[model]
        kept, specs = _flags_file(file), {spec.title: spec for spec in self.evaluation}
        others = sorted(sha256(other) for name, other in self.files.items() if name != model)
        new = {
            json.dumps([specs[name.rpartition(".")[2]].to_json(), self.tested, others], sort_keys=True): [
                vars(flag) for flag in result.flags
            ]
            for name, result in results.items()
            if name.rpartition(".")[0] == model and result.flags
        }
        if not new or kept is None or kept.is_relative_to(model_files.EXAMPLES):
            return
        own = sha256(file)
        try:
            kept.parent.mkdir(exist_ok=True)
            with locked_file(kept):
                everything = _read_flags(kept)
                write_json(kept, {**everything, own: {**everything.get(own, {}), **new}})
        except OSError as error:
            self.display.warn(f"what was checked could not be kept: {error.strerror}: {kept}")


def red_of(flags: Sequence[Flag]) -> list[str]:
    return [f"{flag.check}: {flag.said}" for flag in flags if flag.level == "red"]


def standing_flags(file: Path) -> list[Flag]:
    """The flags that checks have left for these very weights."""
    kept = _flags_file(file)
    if kept is None or not kept.is_file():
        return []
    return [Flag(**flag) for flags in _read_flags(kept).get(sha256(file), {}).values() for flag in flags]


def run_of(file: Path) -> Path | None:
    """The run's folder that a model file lies in."""
    parents = file.resolve().parents
    return parents[2] if len(parents) > 2 and (parents[2] / "config.json").is_file() else None


def _flags_file(file: Path) -> Path | None:
    run = run_of(file)
    return run / "probes" / f"flags-{file.stem}.json" if run else None


def _read_flags(kept: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By the sum of the weights, then by what was checked."""
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        return dict(found) if all(isinstance(flags, dict) for flags in found.values()) else {}
    except (OSError, ValueError, AttributeError):
        return {}

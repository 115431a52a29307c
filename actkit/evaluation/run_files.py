"""A run's files: its recipe as a Spec, and where its models lie."""

from __future__ import annotations

import json
from pathlib import Path

from actkit.config.spec import Spec
from actkit.config.typed import spec_from
from actkit.errors import InputError
from actkit.files import sha256
from actkit.networks.checkpoints import best, find, newest
from actkit.networks.headers import header


def spec_of_run(folder: Path) -> Spec:
    """What a run's recipe says, by its `config.json`. Raises `InputError` where that is damaged."""
    file = folder / "config.json"
    try:
        spec = spec_from(json.loads(file.read_text(encoding="utf-8")))
        if spec.selector != "run":
            raise ValueError(f"it declares {spec.selector}, not a run")
        return spec
    except (OSError, ValueError) as error:
        raise InputError(
            f"this run's config.json cannot be read: {error}",
            where=str(folder),
            help="put it back, or train the run again",
        ) from error


def run_of(file: Path) -> Path | None:
    """The run's folder that a model file lies in."""
    parents = file.resolve().parents
    return parents[2] if len(parents) > 2 and (parents[2] / "config.json").is_file() else None


def files_of_run(folder: Path) -> dict[str, Path]:
    """The files of a run's models that are examined, by role and in the objective's order: of its best checkpoint where one was chosen, else of
    its newest."""
    files = _models_in(find(folder)[0].parent)
    order = header(files[0]).roles
    ordered = sorted(files, key=lambda file: order.index(file.stem))
    return {file.stem: file for file in ordered if header(file).classifies}


def _models_in(checkpoint: Path) -> list[Path]:
    """The model files that a whole checkpoint's manifest names: what else lies in the folder is none of it."""
    names = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["files"]
    return [
        checkpoint / name for name in sorted(names) if name.endswith(".safetensors") and name != "state.safetensors"
    ]


def last_files_of_run(folder: Path) -> dict[str, Path]:
    """Where a run chose another checkpoint than its last: the last's model files, as `<role>.last`."""
    chosen, (last, _) = best(folder / "checkpoints"), newest(folder / "checkpoints")
    if chosen is None or last is None or last == chosen:
        return {}
    found = {}
    for name in header(_models_in(last)[0]).roles:
        own, before = last / f"{name}.safetensors", chosen / f"{name}.safetensors"
        # A helper's weights are those of the chosen checkpoint: nothing to examine twice.
        same = before.is_file() and sha256(own) == sha256(before)
        if not same and header(own).classifies:
            found[f"{name}.last"] = own
    return found

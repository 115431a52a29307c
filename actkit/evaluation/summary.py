"""What an examination found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actkit.errors import CHECK_FAILED, OK, InputError
from actkit.evaluation.flags import red_of, standing_flags
from actkit.files import sha256
from actkit.networks import model_files


def remarked(summary: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """A summary whose numbers are marked where a later check of its models (by name) has raised a red flag."""
    red = {name: red_of(standing_flags(file)) for name, file in files.items()}
    for name, result in summary["results"].items():
        because = [f"{model}, {said}" for model in name.rpartition(".")[0].split(">") for said in red.get(model, [])]
        if "verified" in result and because:
            result["verified"], result["because"] = False, because
    return summary


def unverified(summary: Mapping[str, Any]) -> bool:
    """Whether a check raised a red flag, here or in an earlier audit of these models."""
    return any(flag["level"] == "red" for _, flag in flags(summary)) or any(
        not result.get("verified", True) for result in summary["results"].values()
    )


def flags(summary: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """(model, flag) of everything that was checked."""
    return [(name.rpartition(".")[0], flag) for name, r in summary["results"].items() for flag in r["flags"]]


def robust_number(found: Mapping[str, float]) -> Any:
    """Of the numbers of a probe under attack, the one to watch: the worst run, or, in the other mode, the worst case."""
    return found.get("worst_run", found.get("worst_case"))


_NEEDED = (
    "recipe", "command", "data", "data_fingerprint", "sizes", "seed", "epochs", "steps", "evaluation", "results", "stopped_early",
)  # fmt: skip  # of a summary


_OF_RESULT = ("numbers", "columns", "threat", "images", "flags")


def summary_of(folder: Path) -> dict[str, Any]:
    """What a finished run found, marked where a later check has raised a red flag. Raises `InputError` for a file that cannot be used."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        missing = [key for key in _NEEDED if key not in summary]
        missing += [f"{n}: {key}" for n, r in summary.get("results", {}).items() for key in _OF_RESULT if key not in r]
        if missing:
            raise ValueError(f"it lacks {missing[0]!r}")
        return marked(folder, summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"this run's summary.json cannot be read: {error}", where=str(folder),
            help="remove that file; the same `actkit run` again examines the models anew",
        ) from error  # fmt: skip


def code_of(folder: Path) -> int:
    """The exit code of a run that is done: that of its own command, or of a check since."""
    return exit_code_of(summary_of(folder))


def exit_code_of(summary: Mapping[str, Any]) -> int:
    return CHECK_FAILED if summary["stopped_early"] or unverified(summary) else OK


def files_of_run(folder: Path) -> dict[str, Path]:
    """The model files of a run, by role and in the objective's order: of its best checkpoint where one was chosen, else of its newest."""
    files = model_files.find(folder)
    order: list[str] = model_files.header(files[0])["roles"]
    return {file.stem: file for file in sorted(files, key=lambda file: order.index(file.stem))}


def last_files_of_run(folder: Path) -> dict[str, Path]:
    """Where a run chose another checkpoint than its last: the last's model files, as `<role>.last`."""
    chosen, (newest, _) = model_files.best(folder / "checkpoints"), model_files.newest(folder / "checkpoints")
    if chosen is None or newest is None or newest == chosen:
        return {}
    found = {}
    files = [file for file in sorted(newest.glob("*.safetensors")) if file.name != "state.safetensors"]
    for name in model_files.header(files[0])["roles"]:
        own, before = newest / f"{name}.safetensors", chosen / f"{name}.safetensors"
        # A helper's weights are those of the chosen checkpoint: nothing to examine twice.
        same = before.is_file() and sha256(own) == sha256(before)
        if not same:
            found[f"{name}.last"] = own
    return found


def marked(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """A finished run's summary, marked where a later check has raised a red flag."""
    try:
        files = {**files_of_run(folder), **last_files_of_run(folder)}
    except InputError:  # its checkpoint is damaged or gone: what the run itself found still stands
        return summary
    return remarked(summary, files)

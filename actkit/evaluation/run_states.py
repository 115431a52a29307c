"""How far a run is, by what lies in its folder: done, training, examining, stopped at some epoch, failed and why."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actkit.config.spec import Spec
from actkit.errors import ActkitError, first_line
from actkit.evaluation.looks import EpochLine
from actkit.evaluation.summary import FILE
from actkit.files import in_use, write_json
from actkit.networks.checkpoints import newest_first

# What is left of a run that ended by an error, until it goes on.
FAILURE = "failure.json"
# What an examination has so far, in a run's `probes`.
UNFINISHED = ".unfinished.safetensors"

Name = Literal["done", "training", "examining", "stopped", "failed"]


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Args:
        name: 'training' and 'examining' of one that a process is at now.
        epoch, epochs: how many epochs have ended, and of how many.
        trained: whether nothing but the examination is left.
        why: of one that failed, what it said.
    """

    name: Name
    epoch: int
    epochs: int
    trained: bool = False
    why: str = ""

    def __str__(self) -> str:
        return f"{self.brief}: {self.why}" if self.why else self.brief

    @property
    def brief(self) -> str:
        """How far it is, without why."""
        at = f"at epoch {self.epoch} of {self.epochs}" if self.epoch else f"in the first epoch of {self.epochs}"
        at = "when it was examined" if self.trained else at
        match self.name:
            case "training":
                return f"training, epoch {min(self.epoch + 1, self.epochs)} of {self.epochs}"
            case "stopped":
                return "trained, not examined" if self.trained else f"stopped {at}"
            case "failed":
                return f"failed {at}"
        return self.name


def state_of(folder: Path, spec: Spec) -> RunState:
    """How far a run is.

    Args:
        spec: what its recipe says.
    """
    epochs, steps = _count(spec, "epochs"), _count(spec, "steps")
    if (folder / FILE).is_file():
        return RunState("done", epochs, epochs, trained=True)
    epoch = _epochs_ended(folder)
    saved = next((int(kept.name.removeprefix("step-")) for kept in newest_first(folder / "checkpoints")), 0)
    trained = 0 < epochs <= epoch or 0 < steps <= saved or (folder / "probes" / UNFINISHED).is_file()
    if in_use(folder):
        return RunState("examining" if trained else "training", epoch, epochs, trained)
    if why := _failure(folder):
        return RunState("failed", epoch, epochs, trained, why)
    return RunState("stopped", epoch, epochs, trained)


def _count(spec: Spec, name: str) -> int:
    """A setting that is a number; 0 where it is none, or not said."""
    value = spec.kwargs.get(name)
    return value if isinstance(value, int) else 0


def _epochs_ended(folder: Path) -> int:
    """By the last line of the metrics that can be read."""
    found = 0
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found = EpochLine.from_json(json.loads(line)).epoch
    return found


def _failure(folder: Path) -> str:
    """What a run that ended by an error said, with the log where it is a study's; '' of one that did not."""
    log = folder.with_name(f"{folder.name}.log")
    where = f" ({log})" if log.is_file() else ""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("error"), str):
            return first_line(ActkitError(found["error"])) + where
    # One that could not keep it.
    with contextlib.suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace")
        if errors := [line for line in text.splitlines() if line.startswith("error:")]:
            return errors[-1].removeprefix("error:").strip() + where
    return ""


def keep_failure(folder: Path, error: Exception) -> None:
    """Say in a run's folder why it ended; where that cannot be written, the error itself is enough."""
    said = error.message if isinstance(error, ActkitError) else f"{type(error).__name__}: {first_line(error)}"
    with contextlib.suppress(OSError):
        write_json(folder / FAILURE, {"error": said})


def forget_failure(folder: Path) -> None:
    """Of a run that goes on."""
    (folder / FAILURE).unlink(missing_ok=True)

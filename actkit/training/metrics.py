"""A training's metrics: a line an epoch as JSON, the same as CSV, and on request TensorBoard's events."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actkit.errors import InputError
from actkit.evaluation.looks import EpochLine
from actkit.files import write_text, writing
from actkit.training.loop import Position


class Metrics:
    """`metrics.jsonl`, one line an epoch, and the same as `metrics.csv`; on request also TensorBoard's events.

    Epochs beyond the checkpoint that a run resumes from, and a torn last line, are dropped.
    """

    def __init__(self, folder: Path, position: Position, *, events: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        self.lines: list[EpochLine] = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    self.lines.append(EpochLine.from_json(json.loads(line)))
            self.lines = [line for line in self.lines if line.epoch <= position.epoch]
            write_text(self.path, "".join(json.dumps(line.to_json()) + "\n" for line in self.lines))
        self._events = _event_writer(folder / "tensorboard", position.step + 1) if events else None

    def append(self, line: EpochLine) -> None:
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line.to_json()) + "\n")
        # Which number is the one to watch is no number.
        entries = [line.to_json() for line in self.lines]
        rows = [dict(_flat({key: value for key, value in e.items() if key != "looks"})) for e in entries]
        with (
            writing(self.path.with_suffix(".csv")) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            table.writeheader()
            table.writerows(rows)
        if self._events is not None:
            for name, value in rows[-1].items():
                if name not in ("epoch", "step"):
                    self._events.add_scalar(name.replace(".", "/", 1), value, line.step)
            self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def _flat(entry: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """{'loss': {'robust': 1.0}} as ('loss.robust', 1.0)."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _event_writer(folder: Path, first_step: int) -> Any:
    """What a resumed run had written from this step on is disowned."""
    return assert_tensorboard()(str(folder), purge_step=first_step)


def assert_tensorboard() -> Any:
    """Raises `InputError` where TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs TensorBoard", help="pip install 'actkit[tensorboard]'") from error
    return SummaryWriter

"""What a study leaves of itself: which runs it is made of, in its order (`study.json`), so that tables and pages know it later."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actkit.config.typed import typed
from actkit.errors import InputError
from actkit.files import write_json

if TYPE_CHECKING:
    from actkit.training.study import Cell

FILE = "study.json"


@dataclass(frozen=True)
class RecordedCell:
    """A cell of a study; `folder` is seen from the record's."""

    title: str
    folder: str


@dataclass(frozen=True)
class StudyRecord:
    """A study's cells, in its order.

    Args:
        file: the recipe or study file that `actkit run` was given.
        place: the record's folder.
    """

    file: str
    cells: tuple[RecordedCell, ...]
    place: Path

    @property
    def folders(self) -> list[Path]:
        return [Path(os.path.normpath(self.place / cell.folder)) for cell in self.cells]

    def save(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        write_json(self.place / FILE, {"file": self.file, "cells": [vars(cell) for cell in self.cells]})

    @staticmethod
    def of(file: str, cells: Sequence[Cell], place: Path) -> StudyRecord:
        made = [RecordedCell(cell.title, os.path.relpath(cell.folder, place)) for cell in cells]
        return StudyRecord(file, tuple(made), place)

    @staticmethod
    def load(place: Path) -> StudyRecord | None:
        """None where a folder has none. Raises `InputError` for one that cannot be read."""
        file = place / FILE
        if not file.is_file():
            return None
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
            return StudyRecord(str(read["file"]), tuple(typed(RecordedCell, cell) for cell in read["cells"]), place)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"this study's {FILE} cannot be read: {error}",
                where=str(place),
                help="the same `actkit run` again writes it anew",
            ) from error


def place_of_study(file: str, out: str | None = None) -> Path:
    """The folder of a study: that of its file's name, where the runs are."""
    return Path(out or "runs") / Path(file).stem

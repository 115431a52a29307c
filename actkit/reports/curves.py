"""Pictures of runs: each training, and a number as what was swept changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actkit.config.spec import amount
from actkit.errors import InputError
from actkit.evaluation.looks import EpochLine, Look
from actkit.evaluation.summary import Summary
from actkit.probes.pictures import Picture
from actkit.reports.runs import Finished
from actkit.reports.tables import Table


def curves(folder: Path, *, percent: bool = True) -> Picture | None:
    """A run's training: what each probe of the monitor saw of each model after each epoch. None where nothing was monitored.

    The accuracies and rates or, where `percent` is False, the numbers that are none, such as an entropy.

    Of what was seen under attack the highest and the last are marked, or, where the run chose a checkpoint by it, the best.
    """
    series: dict[str, dict[str, Any]] = {}
    for epoch, look in _monitored(folder):
        if look.percent is not percent:
            continue
        model, label = look.name
        one = series.setdefault(f"{model}, {label}", {"x": [], "y": [], "dashed": not look.attacked, "as": model})
        one["x"].append(epoch)
        one["y"].append(look.value)
    if not series:
        return None
    chosen, chosen_by = _chosen(folder)
    for name, one in series.items():
        if one["dashed"] and name.rpartition(", ")[2] != chosen_by:
            continue
        top = max(range(len(one["y"])), key=one["y"].__getitem__)
        marks = {top: "highest"}
        if name.rpartition(", ")[2] == chosen_by and chosen in one["x"]:
            marks = {one["x"].index(chosen): "best"}
        last = len(one["y"]) - 1
        marks[last] = f"{marks[last]}, last" if last in marks else "last"
        one["marks"] = [{"x": one["x"][i], "y": one["y"][i], "text": text} for i, text in marks.items()]
    name = f"training-{folder.parent.name}-{folder.name}"
    data = {"series": series, "x_label": "epoch", "y_label": "accuracy" if percent else "", "percent": percent}
    caption = _looked_at(folder)
    if percent:
        return Picture(name, "lines", "Accuracy while training, as monitored", data, caption)
    return Picture(f"{name}-numbers", "lines", "Numbers while training, as monitored", data, caption)


def _looked_at(folder: Path) -> str:
    """On how many images, where the looks say it, and which line is which."""
    images = sorted({look.watched.images for _, look in _monitored(folder) if look.watched.images})
    on = f" on {' or '.join(f'{n:,}' for n in images)} images" if images else ""
    return f"What the monitor saw{on} after an epoch; dashed: unattacked."


def losses(folder: Path) -> Picture | None:
    """The loss of each role, the mean over each epoch. None where no epoch has ended."""
    series: dict[str, dict[str, Any]] = {}
    for line in lines_of(folder):
        for role, loss in line.loss.items():
            if math.isfinite(loss):
                one = series.setdefault(role, {"x": [], "y": []})
                one["x"].append(line.epoch)
                one["y"].append(loss)
    if not series:
        return None
    data = {"series": series, "x_label": "epoch", "y_label": "loss"}
    name = f"training-{folder.parent.name}-{folder.name}-loss"
    return Picture(name, "lines", "Training loss", data, "The mean over each epoch of what the objective minimises.")


def lines_of(folder: Path) -> Iterator[EpochLine]:
    """A run's metrics, a line an epoch."""
    with contextlib.suppress(OSError):
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            # The last line may be torn.
            with contextlib.suppress(ValueError):
                yield EpochLine.from_json(json.loads(line))


def _monitored(folder: Path) -> Iterator[tuple[int, Look]]:
    """The epoch and each look of it that has a headline number."""
    for line in lines_of(folder):
        yield from ((line.epoch, look) for look in line.seen if look.value is not None)


def _chosen(folder: Path) -> tuple[int | None, str | None]:
    """The epoch that the run chose, and the probe that it chose by; neither of a run that is not done."""
    with contextlib.suppress(InputError):
        run = Summary.load(folder).run
        if run is not None and run.best:
            return run.epochs, run.best
    return None, None


def sweep_of(made: Table) -> list[Picture]:
    """Each column as a function of the one number that the rows differ in, such as alpha (ACT, Table 1); none where they differ in more."""
    points = []
    for row in made.rows:
        name, _, value = row.group.rpartition(" ")[2].partition("=")
        place = amount(value)
        if place is None:
            return []
        points.append((row.group.rpartition(" ")[0], name, float(place), row))
    if len({(kin, name) for kin, name, _, _ in points}) != 1 or len({value for _, _, value, _ in points}) < 2:
        return []
    series: dict[str, dict[str, Any]] = {}
    for _, _, where, row in sorted(points, key=lambda p: p[2]):
        for column, number in row.numbers.items():
            if not number.percent:
                continue
            one = series.setdefault(f"{row.model}, {column}", {"x": [], "y": [], "low": [], "high": []})
            spread = 0.0 if math.isnan(number.std) else number.std
            for key, at in (
                ("x", where),
                ("y", number.mean),
                ("low", number.mean - spread),
                ("high", number.mean + spread),
            ):
                one[key].append(at)
    name = points[0][1]
    data = {"series": series, "x_label": name, "y_label": "mean and deviation over seeds", "percent": True}
    return [Picture(f"sweep-{name}", "lines", f"Accuracy as {name} changes", data)] if series else []


def pictures(made: Table, runs: Sequence[Finished]) -> list[Picture]:
    """Everything that there is to see of these runs: the sweep, each training, what each evaluation showed."""
    found = sweep_of(made)
    for run in runs:
        for picture in pictures_of_run(run.folder):
            name = (
                picture.name
                if picture.name.startswith("training-")
                else f"{picture.name}-{run.folder.parent.name}-{run.folder.name}"
            )
            found.append(dataclasses.replace(picture, name=name))
    return found


def pictures_of_run(folder: Path) -> list[Picture]:
    """The training, and what the evaluation showed. Raises `InputError` for a picture that cannot be read."""
    found = [drawn for percent in (True, False) if (drawn := curves(folder, percent=percent))]
    for file in sorted((folder / "probes").glob("*.picture.json")):
        try:
            found.append(Picture.from_json(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"this picture cannot be read: {error}", where=str(file), help="examine the run again"
            ) from error
    return found

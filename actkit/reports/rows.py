"""A summary as a table looks: titles, rows, units, what its numbers mean."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.evaluation.summary import Found, ModelFacts, RunFacts, Summary
from actkit.findings import ResultName

UNVERIFIED = "UNVERIFIED"

# A number by the label of its probe and its own name.
NumberName = tuple[str, str]


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def titles(results: Iterable[tuple[ResultName, Found]]) -> dict[NumberName, str]:
    """What the numbers that probes want shown are called in a table.

    What an attack gave says its norm and eps: 'PGD-20 (linf 8/255)'. Where columns were measured on different numbers of images, each title says its own.
    """
    named: dict[NumberName, str] = {}
    threats: dict[NumberName, str] = {}
    images: dict[NumberName, str] = {}
    for name, found in results:
        for column in found.columns:
            key = (name.label, column.number)
            named.setdefault(key, column.title)
            if found.threat:
                # Of several eps each stands in the number's own name.
                threats[key] = f"{found.threat.norm} {found.threat.written or ''}".strip()
            if found.images:
                images[key] = f"{found.images:,} images"
    told = [threats, *([images] if len(set(images.values())) > 1 else [])]
    made = {}
    for key, title in named.items():
        notes = [said[key] for said in told if key in said]
        made[key] = title + (f" ({', '.join(notes)})" if notes else "")
    shown = list(made.values())
    return {key: f"{key[0]}: {title}" if shown.count(title) > 1 else title for key, title in made.items()}


def rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a summary: one row a model; each probe says which of its numbers are columns, and how they are shown.

    What a red flag makes doubtful is marked.
    """
    named, in_percent = titles(summary.results.items()), percents(summary.results.items())
    body = []
    for model in summary.model_names:
        own = summary.of(model)
        if not any(found.columns for found in own.values()):
            continue
        cells = [model]
        for label, number in named:
            found = own.get(label)
            value = found.numbers.get(number) if found else None
            shown = "-" if value is None else percent(value) if in_percent[label, number] else f"{value:.4g}"
            cells.append(f"{shown} {UNVERIFIED}" if found and found.unverified else shown)
        body.append(cells)
    return ["model", *named.values()], body


def percents(results: Iterable[tuple[ResultName, Found]]) -> dict[NumberName, bool]:
    """Whether each of the numbers shown is a percentage."""
    return {(name.label, column.number): column.percent for name, found in results for column in found.columns}


def unit(titled: Mapping[str, bool]) -> str:
    """Of columns, by whether they are percentages: 'percent, except weight norm'."""
    plain = [title for title, is_percent in titled.items() if not is_percent]
    if len(plain) == len(titled):
        return "no percentages"
    return "percent" + (f", except {', '.join(plain)}" if plain else "")


def write_csv(path: Path, summaries: Sequence[Summary]) -> None:
    """Every number of every probe and model, one a line. Raises `InputError` when the file cannot be written."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["model", "probe", "number", "value", "images", "norm", "eps", "verified", "data"])
            for summary in summaries:
                for name, found in summary.results.items():
                    norm, eps = (found.threat.norm, found.threat.written) if found.threat else (None, None)
                    about = [found.images, norm, eps, found.verified, summary.data]
                    for number, value in found.numbers.items():
                        table.writerow([*name, number, value, *about])
    except OSError as error:
        raise InputError(
            f"the file cannot be written: {error.strerror}", where=str(path), help="choose another place"
        ) from error


def summary_caption(summary: Summary) -> list[str]:
    """What the numbers mean: data, seeds and every probe's settings."""
    named, in_percent = titles(summary.results.items()), percents(summary.results.items())
    how = unit({title: in_percent[key] for key, title in named.items()})
    return [*_origin(summary, how), *(_protocol(spec, summary) for spec in summary.evaluation)]


def _origin(summary: Summary, how: str) -> list[str]:
    """The unit, the data, and which trainings the models come from."""
    if run := summary.run:
        return [f"{how}; {summary.data}, {_trained(run)}{_chosen(run)}"]
    trainings = {_trained(model) for model in summary.models.values()}
    if len(trainings) == 1:
        return [f"{how}; {summary.data}, {trainings.pop()}"]
    models = [f"{name}: {_trained(model)}, {model.file}" for name, model in summary.models.items()]
    return [f"{how}; {summary.data}", *models]


def _chosen(run: RunFacts) -> str:
    """Why these models and not the last ones, where it is so."""
    if run.best:
        return f", the best of {run.trained_epochs} by {run.best}"
    if run.before_fall:
        return f", the last before robustness fell; the training went on to epoch {run.trained_epochs}"
    return ""


def collapsed(summary: Summary) -> str:
    """That robustness was lost in training, and whose numbers these are, of a summary of a training that was stopped early for it."""
    said, run = "accuracy under attack collapsed", summary.run
    if run is None or not run.before_fall:
        return said
    lost = ", ".join(name for name in summary.model_names if name.endswith(".last"))
    return f"{said} by epoch {run.trained_epochs}; the models are those of epoch {run.epochs}, before the fall" + (
        f", and after it {lost}" if lost else ""
    )


def _protocol(spec: Spec, summary: Summary) -> str:
    """A probe's settings, and how many images it looked at."""
    label = f"{spec.label}: " if spec.label else ""
    split, limit = spec.get("split"), spec.get("limit")
    # It looks at no image.
    if split is None:
        return f"{label}{spec!r}"
    size = summary.sizes.get(split, 0)
    seen = [found.images for name, found in summary.results.items() if name.label == spec.title]
    looked = min([size, *(n for n in (limit, *seen) if n is not None)])
    return f"{label}{spec!r} on {looked:,}{f' of {size:,}' if looked < size else ''} {split} images"


def _trained(facts: RunFacts | ModelFacts) -> str:
    if isinstance(facts, ModelFacts) and facts.imported:
        return f"imported from {facts.imported.file}"
    return f"seed {facts.seed}, {facts.epochs} epochs ({facts.steps:,} batches)"

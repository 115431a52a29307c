"""A summary as a table looks: titles, rows, units, what its numbers mean."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actkit.config.spec import Spec
from actkit.errors import InputError


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def titles(results: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[tuple[str, str], str]:
    """What the numbers that probes want shown are called in a table, by (label of the probe, number).

    Where columns were measured with different eps, or on different numbers of images, each title says its own.
    """
    wanted: dict[tuple[str, str], str] = {}
    eps: dict[tuple[str, str], str] = {}
    images: dict[tuple[str, str], str] = {}
    for name, result in results:
        for column in result["columns"]:
            key = (name.rpartition(".")[2], column["number"])
            wanted.setdefault(key, column["title"])
            if result["threat"]:
                eps[key] = f"{result['threat']['norm']} {result['threat']['eps'] or 'swept'}"
            if result["images"]:
                images[key] = f"{result['images']:,} images"
    apart = [said for said in (eps, images) if len(set(said.values())) > 1]
    made = {}
    for key, title in wanted.items():
        notes = [said[key] for said in apart if not said.get(key, "swept").endswith("swept")]
        made[key] = title + (f" ({', '.join(notes)})" if notes else "")
    shown = list(made.values())
    return {key: f"{key[0]}: {title}" if shown.count(title) > 1 else title for key, title in made.items()}


def rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a summary: one row a model; each probe says which of its numbers are columns, and how they are shown.

    What a red flag makes doubtful is marked.
    """
    results = summary["results"]
    named = titles(results.items())
    in_percent = percents(results.items())
    body = []
    models = dict.fromkeys(name.rpartition(".")[0] for name, r in results.items() if r["columns"])
    for model in models:
        cells = [model]
        for label, number in named:
            result = results.get(f"{model}.{label}", {})
            value = result.get("numbers", {}).get(number)
            shown = "-" if value is None else percent(value) if in_percent[label, number] else f"{value:.4g}"
            cells.append(shown if result.get("verified", True) else f"{shown} {UNVERIFIED}")
        body.append(cells)
    return ["model", *named.values()], body


def percents(results: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[tuple[str, str], bool]:
    return {
        (name.rpartition(".")[2], column["number"]): column["percent"]
        for name, result in results
        for column in result["columns"]
    }


def unit(titled: Mapping[str, bool]) -> str:
    """Of columns, by whether they are percentages: 'percent, except weight norm'."""
    plain = [title for title, is_percent in titled.items() if not is_percent]
    if len(plain) == len(titled):
        return "no percentages"
    return "percent" + (f", except {', '.join(plain)}" if plain else "")


UNVERIFIED = "UNVERIFIED"


def write_csv(path: Path, summaries: Sequence[Mapping[str, Any]]) -> None:
    """Every number of every probe and model, one a line. Raises `InputError` when the file cannot be written."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["model", "probe", "number", "value", "images", "norm", "eps", "verified", "data"])
            for summary in summaries:
                for name, result in summary["results"].items():
                    model, _, probe = name.rpartition(".")
                    threat = result["threat"] or {}
                    for number, value in result["numbers"].items():
                        table.writerow(
                            [model, probe, number, value, result["images"], threat.get("norm"), threat.get("eps"),
                             result.get("verified"), summary["data"]]
                        )  # fmt: skip
    except OSError as error:
        raise InputError(
            f"the file cannot be written: {error.strerror}", where=str(path), help="choose another place"
        ) from error


def caption(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers mean: data, seeds and every probe's settings."""
    lines = []
    named, in_percent = titles(summary["results"].items()), percents(summary["results"].items())
    how = unit({title: in_percent[key] for key, title in named.items()})
    if "models" in summary:
        trainings = {_trained(m) for m in summary["models"].values()}
        if len(trainings) == 1:
            lines.append(f"{how}; {summary['data']}, {trainings.pop()}")
        else:
            lines.append(f"{how}; {summary['data']}")
            lines += [f"{name}: {_trained(m)}, {m['file']}" for name, m in summary["models"].items()]
    else:
        best = f", the best of {summary['trained_epochs']} by {summary['best']}" if summary.get("best") else ""
        lines.append(f"{how}; {summary['data']}, {_trained(summary)}{best}")
    for probe in map(Spec.from_json, summary["evaluation"]):
        label = f"{probe.label}: " if probe.label else ""
        split, limit = probe.get("split"), probe.get("limit")
        if split is None:  # it looks at no image
            lines.append(f"{label}{probe!r}")
            continue
        size = summary["sizes"].get(split, 0)
        seen = [r.get("images") for name, r in summary["results"].items() if name.rpartition(".")[2] == probe.title]
        looked = min([size, *(n for n in (limit, *seen) if n is not None)])
        lines.append(f"{label}{probe!r} on {looked:,}{f' of {size:,}' if looked < size else ''} {split} images")
    return lines


def _trained(model: Mapping[str, Any]) -> str:
    if model.get("imported"):
        return f"imported from {model['imported']['file']}"
    return f"seed {model['seed']}, {model['epochs']} epochs ({model['steps']:,} batches)"

"""What an examination found, as files: each result, what happened to each example, the pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actkit.config.spec import Spec
from actkit.display import Display
from actkit.evaluation.summary import Found, Summary
from actkit.files import write_json
from actkit.networks import model_files
from actkit.probes import Result, ResultName
from actkit.probes.pictures import Picture, merged


def pictures_of(results: Mapping[str, Result], about: Mapping[str, Any]) -> list[Picture]:
    """What the probes' results show, a picture of several models where they share its axes; it says what made it."""
    found: dict[tuple[str, str], dict[str, Picture]] = {}
    for name, result in results.items():
        model, label = ResultName.parse(name)
        for picture in result.pictures:
            found.setdefault((label, picture.name), {})[model] = picture
    made = []
    for (label, _), by_model in found.items():
        own = next(iter(by_model.values()))
        for picture in merged(by_model):
            called = picture.name if label in (own.name, "") else f"{label}-{picture.name}"
            made.append(dataclasses.replace(picture, name=called, about=dict(about)))
    return made


def write_results(
    folder: Path,
    results: Mapping[str, Result],
    found: Mapping[ResultName, Found],
    evaluation: Sequence[Spec],
    origin: Mapping[str, Any],
) -> None:
    """Each result in two files of its own: `<model>.<probe>.json`, and `.safetensors` with what happened to each example.

    Args:
        origin: which models, data, command and machine they come from, as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = {spec.title: spec for spec in evaluation}
    for name, result in results.items():
        named = ResultName.parse(name)
        probe = specs[named.label].to_json()
        write_json(folder / f"{name}.json", {"probe": probe, **origin, **found[named].to_json()})
        if result.examples:
            model_files.save_tensors(result.examples, folder / f"{name}.safetensors")
    for picture in pictures_of(results, origin):
        write_json(folder / f"{picture.name}.picture.json", picture.to_json())


def write_summary(
    summary: Summary, results: Mapping[str, Result], folder: Path | None, pictures: Path | None, display: Display
) -> None:
    origin = {key: summary.to_json()[key] for key in _ORIGIN}
    if folder is not None:
        write_results(folder, results, summary.results, summary.evaluation, origin)
        summary.save(folder)
    if pictures is not None:
        shown = pictures_of(results, origin)
        for picture in shown:
            picture.save(pictures)
        names = ", ".join(picture.name for picture in shown)
        display.say(f"pictures   {pictures}: {names}" if shown else "these probes show no picture")


# Of a summary: which models, data, command and machine a result comes from.
_ORIGIN = ("models", "data", "data_fingerprint", "command", "device", "versions")

"""Examinations: probes on models, in fp32, resumable; of a training's models at its end, and of model files alone later."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actkit.attacks.goals import CLASSES_NEEDED
from actkit.config import registry
from actkit.config.override import override_spec
from actkit.config.registry import Model
from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.display import Display
from actkit.errors import InputError, nearest
from actkit.evaluation.flags import keep_flags
from actkit.evaluation.resume import key_of, resumable
from actkit.evaluation.summary import Found, ModelFacts, Summary, apply_flags
from actkit.files import cache_folder, locked, make_folder, sha256_of, write_json
from actkit.machine import deterministic, provenance
from actkit.networks import class_names, model_files
from actkit.networks.frozen import Mode
from actkit.networks.model_files import Header
from actkit.networks.roles import Role, assert_takes
from actkit.probes import Progress, Result, ResultName, measure
from actkit.probes.pictures import Picture, merged


def examine(
    probes: Sequence[Any], roles: Mapping[str, Role], data: Data, progress: Progress | None = None
) -> dict[str, Result]:
    """Run probes on roles, in fp32 whatever they train in: the one place where training and `actkit probe` measure."""
    models: dict[str, Model] = {
        name: role if role.precision == "fp32" else _InFp32(name, role) for name, role in roles.items()
    }
    return measure(probes, models, data, progress)


class _InFp32:
    """A role that trains in another precision, as probes are handed it: the same model in fp32. Looking leaves no trace on it."""

    def __init__(self, name: str, role: Role) -> None:
        self.name, self.role, self.model = name, role, role.model

    @property
    def device(self) -> torch.device:
        return self.role.device

    def __call__(self, x: Tensor) -> Tensor:
        return self.role(x, precision="fp32")

    def frozen(self, mode: Mode = "eval") -> contextlib.AbstractContextManager[Callable[[Tensor], Tensor]]:
        return self.role.frozen(mode, precision="fp32")

    def representation(self) -> contextlib.AbstractContextManager[Callable[[Tensor], Tensor]]:
        return self.role.representation(precision="fp32")


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


def read(data: Data, splits: Iterable[str], display: Display) -> None:
    """Read splits now, and show how far it is; whoever asks for them later has them."""
    with display.progress():
        for split in splits:
            data.split(split)


def fingerprints(data: Data, evaluation: Sequence[Spec], display: Display) -> dict[str, str]:
    """Of the splits that these probes look at."""
    splits = dict.fromkeys(str(spec.get("split", "test")) for spec in evaluation)
    read(data, splits, display)
    return {split: data.split(split).fingerprint() for split in splits}


_COUNTS = {2: "two", 3: "three", 4: "four"}


def assert_fits(probes: Sequence[Any], data: Data, models: int) -> None:
    """Raise `InputError` for a probe that cannot work on this data, or on so many models: before anything long begins."""
    for probe in probes:
        spec = probe.spec
        needed = spec.entry.models
        if models < needed:
            raise InputError(
                f"probe.{spec.name} needs at least {_COUNTS.get(needed, needed)} models, there is {models}",
                help="give --ckpt several times, or a run with two roles",
            )
        split = spec.get("split", "test")
        if split not in data.sizes:
            help = nearest(split, data.sizes)
            if split == "test":
                help = "hold some out: run.data = @dataset.holdout(), dataset.holdout.data = ..., dataset.holdout.split = 'test'"
            raise InputError(f"probe.{spec.title}: {data.name} has no split {split!r}", help=help)
        classes = CLASSES_NEEDED.get(str(spec.get("loss")), 2 if spec.get("attack") else 1)
        if data.num_classes < classes:
            raise InputError(
                f"probe.{spec.title} needs {classes} classes, {data.name} has {data.num_classes}",
                help="use the loss 'margin'" if classes > 2 else None,
            )


@dataclass
class Subject:
    """A model file that is examined; `name` is what results call it."""

    file: Path
    header: Header
    name: str
    data: Spec
    evaluation: list[Spec]


def probe_checkpoints(
    paths: Sequence[Path],
    *,
    probes: Sequence[str] = (),
    roles: Sequence[str] = (),
    evaluation: list[Spec] | None = None,
    settings: Sequence[str] = (),
    device: torch.device,
    display: Display,
    command: str = "",
    out: Path | None = None,
    pictures: Path | None = None,
    classes: class_names.Mapping | None = None,
) -> list[Summary]:
    """Rebuild models from their files alone and examine them: one summary for each group that shares its data and its evaluation.

    Args:
        probes: the probes to run, by name or label; by default the evaluation that the models were saved with.
        roles: which of the models to examine; 'headline' is the first of each training.
        evaluation: probes from a recipe, in place of the stored ones.
        settings: 'KEY=VALUE', changes of the data set or the probes.
        out: a folder for the results and what happened to each example; a numbered one in it for each group, if there are several.
        pictures: a folder for what the probes show, likewise.
        classes: how a model's classes belong to the data's, where they are called differently or come in another order.
    """
    deterministic(device)
    if out is not None:
        _assert_no_run(out)
    for folder in (out, pictures):
        if folder is not None:
            make_folder(folder)
    subjects = _subjects(paths, roles)
    for subject in subjects:
        subject.evaluation = subject.evaluation if evaluation is None else evaluation
        if probes:
            subject.evaluation = [spec for name in probes for spec in probes_named(name, subject.evaluation)]
    settings = _other_data(subjects, settings)
    changed = override_spec([{"data": s.data, "evaluation": s.evaluation} for s in subjects], settings)
    for subject, now in zip(subjects, changed, strict=True):
        subject.data, subject.evaluation = now["data"], now["evaluation"]
    groups = _groups(subjects, probes, display)
    with locked(out, warn=display.warn) if out is not None else contextlib.nullcontext():
        return _in_groups(groups, device, display, command, out, pictures, classes)


def _assert_no_run(out: Path) -> None:
    """Raise `InputError` for a folder whose own summary the results would replace."""
    if (out / "config.json").is_file():
        raise InputError(
            "a run or an export lies in this folder, and an examination would replace its files",
            where=str(out),
            help="choose another --out",
        )


def _in_groups(
    groups: list[list[Subject]],
    device: torch.device,
    display: Display,
    command: str,
    out: Path | None,
    pictures: Path | None,
    classes: class_names.Mapping | None,
) -> list[Summary]:
    places = [
        [folder and (folder if len(groups) == 1 else folder / str(i)) for folder in (out, pictures)]
        for i in range(len(groups))
    ]
    return [
        _examine_group(group, device, display, command, *place, classes=classes)
        for group, place in zip(groups, places, strict=True)
    ]


def _other_data(subjects: Sequence[Subject], settings: Sequence[str]) -> list[str]:
    """Put in the data set of `run.data=NAME`, as a training would take it; the settings that are left."""
    left = []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() != "run.data":
            left.append(setting)
            continue
        name = value.strip().strip("'\"").removeprefix("@").removesuffix("()").removeprefix("dataset.")
        registry.get(f"dataset.{name}", where=f"--set {setting}")
        for subject in subjects:
            subject.data = Spec("dataset", name)
    return left


def _subjects(paths: Sequence[Path], roles: Sequence[str]) -> list[Subject]:
    found: list[Subject] = []
    for path in paths:
        files = {file: model_files.header(file) for file in model_files.find(path)}
        # The headline model first, as in the run's own table.
        ordered = sorted(files.items(), key=lambda item: item[1].roles.index(item[1].role))
        for file, about in ordered:
            if roles and about.role not in roles and not (about.is_headline and "headline" in roles):
                continue
            if not any(file.resolve() == s.file.resolve() for s in found):
                found.append(Subject(file, about, "", about.data, list(about.evaluation)))
    if not found:
        there = {model_files.header(file).role for path in paths for file in model_files.find(path)}
        raise InputError(
            f"no model here has the role {' or '.join(roles)}",
            where=", ".join(map(str, paths)),
            help=nearest(roles[0], there),
        )
    for subject, name in zip(found, names_of(found, several=len(paths) > 1), strict=True):
        subject.name = name
    return found


def names_of(subjects: Sequence[Subject], *, several: bool) -> list[str]:
    """What results call the models: their roles, or, where several trainings meet, the objective (and the role, if it is not its first)."""

    def name(subject: Subject) -> str:
        about = subject.header
        if not several:
            return about.role
        objective = about.objective_name or subject.file.stem
        return objective if about.is_headline else f"{objective}.{about.role}"

    names = [name(subject) for subject in subjects]
    with_seed = [
        f"{name}@seed{s.header.seed}" if names.count(name) > 1 else name
        for name, s in zip(names, subjects, strict=True)
    ]
    return [
        f"{name}#{with_seed[: i + 1].count(name)}" if with_seed.count(name) > 1 else name
        for i, name in enumerate(with_seed)
    ]


def probes_named(name: str, stored: Sequence[Spec]) -> list[Spec]:
    """The probes that `--probe NAME` means: those of the stored evaluation with this label or name, or else the registered one, which takes
    the attack (or its eps and norm) from the stored evaluation, so that it fits the models' own threat model."""
    for chosen in ([s for s in stored if s.title == name], [s for s in stored if s.name == name]):
        if chosen:
            return chosen
    known = {entry.name for entry in registry.entries("probe")}
    if name not in known:
        raise InputError(f"there is no probe {name!r}", help=nearest(name, {*known, *(s.title for s in stored)}))
    spec = Spec("probe", name)
    attack = next((s.kwargs["attack"] for s in stored if isinstance(s.kwargs.get("attack"), Spec)), None)
    if attack is not None:
        offered = {"attack": attack}
        # A probe that knows one norm alone is given no eps of another.
        fits = "norm" in spec.entry.parameters or attack.kwargs.get("norm", "linf") == "linf"
        if fits and spec.entry.parameters.get("eps") and spec.entry.parameters["eps"].required:
            offered |= {key: attack.kwargs[key] for key in ("eps", "norm") if key in attack.kwargs}
        spec = spec.replace(**{key: value for key, value in offered.items() if key in spec.entry.parameters})
    return [spec]


def _groups(subjects: list[Subject], probes: Sequence[str], display: Display) -> list[list[Subject]]:
    """Models that go into one table: the same data, the same evaluation. A probe of several models, when it is asked for, needs all in one."""
    in_one_table = bool(probes) and any(spec.entry.takes != 1 for spec in subjects[0].evaluation)
    if in_one_table:
        first = subjects[0]
        for other in subjects[1:]:
            if other.data.to_json() != first.data.to_json():
                raise InputError(
                    f"the models are for different data: {first.data!r} and {other.data!r}",
                    where=str(other.file),
                    help="give -s the settings that make them one, or probe them apart",
                )
            if [s.to_json() for s in other.evaluation] != [s.to_json() for s in first.evaluation]:
                display.warn(
                    f"{other.name} was saved with another evaluation: all are examined as {first.name} was: "
                    + ", ".join(map(repr, first.evaluation))
                )
                other.evaluation = first.evaluation
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        key = json.dumps([subject.data.to_json(), [s.to_json() for s in subject.evaluation]], sort_keys=True)
        groups.setdefault(key, []).append(subject)
    if len(groups) > 1:
        display.warn(f"the models were saved with {len(groups)} different evaluations or data sets: one table for each")
    return list(groups.values())


def _examine_group(
    group: list[Subject],
    device: torch.device,
    display: Display,
    command: str,
    folder: Path | None,
    pictures: Path | None,
    *,
    classes: class_names.Mapping | None,
) -> Summary:
    """Examine models that share their data and their evaluation; write the results and the pictures where that is asked for."""
    data: Data = group[0].data.build()()
    for note in data.notes:
        display.say(f"data       {note}")
    orders = {subject.name: _order(subject, data, group[0], classes) for subject in group}
    _say_contracts(group, display)
    evaluation = group[0].evaluation
    probes = [spec.build() for spec in evaluation]
    assert_fits(probes, data, len(group))
    roles = {}
    for subject in group:
        role, about = model_files.load_role(subject.file, device=device, order=orders[subject.name])
        assert_takes(role, about.backbone, data.shape, data.num_classes)
        roles[subject.name] = role
    tested = fingerprints(data, evaluation, display)
    key = key_of([subject.file for subject in group], group[0].data, evaluation, tested, device)
    if any(order is not None for order in orders.values()):
        # The same models with their classes in another order are other models.
        key = sha256_of([key, orders], 32)
    files = {subject.name: subject.file for subject in group}
    cache = cache_folder("unfinished")
    with resumable(cache and cache / f"{key}.safetensors", key, display) as progress:
        results = examine(probes, roles, data, progress)
        keep_flags(results, files, evaluation, tested, display)
        summary = Summary(
            command=command,
            data=data.name,
            data_fingerprint=tested,
            sizes=dict(data.sizes),
            evaluation=tuple(evaluation),
            results=apply_flags(results, files),
            versions=provenance(),
            device=str(device),
            models={subject.name: ModelFacts.of(subject.file, subject.header) for subject in group},
        )
        _write(summary, results, folder, pictures, display)
    return summary


def _order(subject: Subject, data: Data, first: Subject, classes: class_names.Mapping | None) -> list[int] | None:
    """A model's classes in the data's order; None where they are that. Raises `InputError` for a model that is for other images or other classes."""
    about, where = subject.header, str(subject.file)
    if about.num_classes != data.num_classes or about.shape[0] != data.shape[0]:
        raise InputError(
            f"the model is for {about.num_classes} classes and {about.shape[0]} channels, {data.name} has {data.num_classes} and {data.shape[0]}",
            where=where,
        )
    help = "--classes by_name puts the model's outputs into the data's order, by_number takes them as they are"
    # Where the data's classes have no names, two models still must not mean different things.
    nameless = class_names.say_nothing(data.classes)
    wanted, whose = (first.header.classes, first.name) if nameless else (data.classes, data.name)
    return class_names.order(about.classes, wanted, classes, who=(subject.name, whose), where=where, help=help)


def _say_contracts(group: Sequence[Subject], display: Display) -> None:
    """What the models take and give: a line each, one line where all are alike."""
    contracts = {subject.name: subject.header.contract for subject in group}
    if len(set(contracts.values())) == 1:
        contracts = {"takes": next(iter(contracts.values()))}
    for name, contract in contracts.items():
        display.say(f"{name:<10} {contract}")


def _write(
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

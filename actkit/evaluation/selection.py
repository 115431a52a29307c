"""Which models `actkit probe` examines, what results call them, by which probes on which data, and which go into one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actkit.config import registry
from actkit.config.override import override_spec
from actkit.config.spec import Spec
from actkit.display import Display
from actkit.errors import InputError, nearest
from actkit.networks import model_files
from actkit.networks.model_files import Header


@dataclass(frozen=True)
class Subject:
    """A model file that is examined; `name` is what results call it."""

    file: Path
    header: Header
    name: str
    data: Spec
    evaluation: tuple[Spec, ...]


def selected(
    paths: Sequence[Path],
    *,
    probes: Sequence[str],
    roles: Sequence[str],
    evaluation: Sequence[Spec] | None,
    settings: Sequence[str],
) -> list[Subject]:
    """The models of these files, each with the data and the probes that it is examined by; for the parameters see `probe_checkpoints`."""
    found = _subjects(paths, roles)
    if evaluation is not None:
        found = [replace(subject, evaluation=tuple(evaluation)) for subject in found]
    if probes:
        named = [[spec for name in probes for spec in probes_named(name, subject.evaluation)] for subject in found]
        found = [replace(subject, evaluation=tuple(own)) for subject, own in zip(found, named, strict=True)]
    data, settings = _other_data(settings)
    if data is not None:
        found = [replace(subject, data=data) for subject in found]
    changed = override_spec([{"data": s.data, "evaluation": list(s.evaluation)} for s in found], settings)
    return [
        replace(subject, data=now["data"], evaluation=tuple(now["evaluation"]))
        for subject, now in zip(found, changed, strict=True)
    ]


def _other_data(settings: Sequence[str]) -> tuple[Spec | None, list[str]]:
    """The data set of `run.data=NAME`, as a training would take it, if it is there; and the settings that are left."""
    data, left = None, []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() != "run.data":
            left.append(setting)
            continue
        name = value.strip().strip("'\"").removeprefix("@").removesuffix("()").removeprefix("dataset.")
        registry.get(f"dataset.{name}", where=f"--set {setting}")
        data = Spec("dataset", name)
    return data, left


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
                found.append(Subject(file, about, "", about.data, about.evaluation))
    if not found:
        there = {model_files.header(file).role for path in paths for file in model_files.find(path)}
        raise InputError(
            f"no model here has the role {' or '.join(roles)}",
            where=", ".join(map(str, paths)),
            help=nearest(roles[0], there),
        )
    names = names_of(found, several=len(paths) > 1)
    return [replace(subject, name=name) for subject, name in zip(found, names, strict=True)]


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


def groups_of(subjects: Sequence[Subject], probes: Sequence[str], display: Display) -> list[list[Subject]]:
    """Models that go into one table: the same data, the same evaluation. A probe of several models, when it is asked for, needs all in one."""
    in_one_table = bool(probes) and any(spec.entry.takes != 1 for spec in subjects[0].evaluation)
    if in_one_table:
        _assert_one_table(subjects, display)
        subjects = [replace(subject, evaluation=subjects[0].evaluation) for subject in subjects]
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        key = json.dumps([subject.data.to_json(), [s.to_json() for s in subject.evaluation]], sort_keys=True)
        groups.setdefault(key, []).append(subject)
    if len(groups) > 1:
        display.warn(f"the models were saved with {len(groups)} different evaluations or data sets: one table for each")
    return list(groups.values())


def _assert_one_table(subjects: Sequence[Subject], display: Display) -> None:
    """Raise `InputError` for models of different data; of another evaluation than the first's there is a warning."""
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

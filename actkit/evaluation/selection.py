"""Which models `actkit probe` examines, what results call them, by which probes on which data, and which go into one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actkit.config import registry
from actkit.config.override import override_spec
from actkit.config.plugins import assert_there
from actkit.config.spec import Spec, amount
from actkit.display import Display
from actkit.errors import InputError, nearest
from actkit.evaluation import threat
from actkit.networks import model_files
from actkit.networks.model_files import Header


@dataclass(frozen=True)
class Subject:
    """A model file that is examined; `name` is what results call it. `by_file`: whether the file itself was named, not the run that it is of."""

    file: Path
    header: Header
    name: str
    data: Spec
    evaluation: tuple[Spec, ...]
    by_file: bool = False


def selected(
    paths: Sequence[Path],
    *,
    probes: Sequence[str],
    roles: Sequence[str],
    evaluation: Sequence[Spec] | None,
    settings: Sequence[str],
    display: Display,
    eps: float | str | None = None,
    norm: str | None = None,
    limit: int | None = None,
) -> list[Subject]:
    """The models of these files, each with the data and the probes that it is examined by; for the parameters see `probe_checkpoints`.

    Settings come last: they may change what `eps` and `norm` have made. Raises `InputError`, also where what was asked for made a budget
    that cannot cross its ball.
    """
    found = _subjects(paths, roles)
    if evaluation is not None:
        found = [replace(subject, evaluation=tuple(evaluation)) for subject in found]
    before = [subject.evaluation for subject in found]
    found = [replace(subject, evaluation=_chosen(subject, probes, eps, norm)) for subject in found]
    if limit is not None:
        found = [replace(one, evaluation=tuple(_limited(spec, limit) for spec in one.evaluation)) for one in found]
    for line in dict.fromkeys(_named_lines(probes, found, before)):
        display.say(line)
    data, settings = _other_data(settings)
    if data is not None:
        found = [replace(subject, data=data) for subject in found]
    for subject in found:
        needed = [subject.header.backbone, subject.data, list(subject.evaluation)]
        assert_there(needed, subject.header.plugins, where=str(subject.file))
    changed = override_spec([{"data": s.data, "evaluation": list(s.evaluation)} for s in found], settings)
    ready = [
        replace(subject, data=now["data"], evaluation=tuple(now["evaluation"]))
        for subject, now in zip(found, changed, strict=True)
    ]
    for subject, stored in zip(ready, before, strict=True):
        _assert_usable(subject, stored, asked_for_eps=eps is not None or any(".eps" in s for s in settings))
    if eps is not None or norm is not None:
        said = set(filter(threat.is_conventional, probes))
        moved = [spec for s in ready for spec in s.evaluation if spec.title not in said]
        for line in dict.fromkeys(filter(None, map(threat.described, moved))):
            display.say(f"threat     {line}")
    return ready


def _chosen(subject: Subject, probes: Sequence[str], eps: float | str | None, norm: str | None) -> tuple[Spec, ...]:
    """The probes that a model is examined by, under the threat model that was asked for."""
    chosen = subject.evaluation
    if probes:
        chosen = tuple(spec for name in probes for spec in probes_named(name, subject.evaluation, eps=eps, norm=norm))
    if eps is None and norm is None:
        return chosen
    return tuple(threat.under(spec, eps=eps, norm=norm) for spec in chosen)


def _named_lines(probes: Sequence[str], found: Sequence[Subject], stored: Sequence[Sequence[Spec]]) -> Iterator[str]:
    """What a name of the field's was taken for: the model's own probe of that label, or what the field calls so."""
    for name in filter(threat.is_conventional, probes):
        for subject, own in zip(found, stored, strict=True):
            for spec in subject.evaluation:
                if spec.title == name:
                    whose = "as it is stored with the model" if spec in own else "by that name"
                    yield f"{name:<10} {whose}: {spec!r}"


def _assert_usable(subject: Subject, stored: Sequence[Spec], *, asked_for_eps: bool) -> None:
    """Raise `InputError` for a probe whose eps or attack nothing says, and for a budget that cannot cross the ball since another eps was asked for."""
    for spec in subject.evaluation:
        for name, parameter in spec.entry.parameters.items():
            if parameter.required and name not in spec.kwargs and name in ("eps", "attack"):
                raise InputError(
                    f"{spec.selector} needs {'an' if name == 'attack' else 'its'} {name}, and nothing stored with the model says one",
                    where=str(subject.file),
                    help="give --eps 8/255, or another that the model is meant for",
                )
        spec.build()
    # What could not cross its ball as it was stored is only said: a recipe may mean it.
    were_short = {spec.title for spec in stored if any(True for _ in threat.too_short(spec))}
    for spec in subject.evaluation if asked_for_eps else ():
        if spec.title not in were_short:
            threat.assert_crosses(spec, help="--eps moves the step size with eps; or take more steps, or larger ones")


def _limited(spec: Spec, limit: int) -> Spec:
    """A probe that looks at so many images at most, where it knows a limit."""
    return spec.replace(limit=limit) if "limit" in spec.entry.parameters else spec


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
            if not about.classifies:
                if roles:
                    raise InputError(
                        f"{about.role!r} is no classifier, and probes examine classifiers", where=str(file)
                    )
                continue
            if not any(file.resolve() == s.file.resolve() for s in found):
                found.append(Subject(file, about, "", about.data, about.evaluation, by_file=path.is_file()))
    if not found:
        if not roles:
            raise InputError("none of the models here is a classifier", where=", ".join(map(str, paths)))
        there = {model_files.header(file).role for path in paths for file in model_files.find(path)}
        raise InputError(
            f"no model here has the role {' or '.join(roles)}",
            where=", ".join(map(str, paths)),
            help=nearest(roles[0], there),
        )
    names = names_of(found, several=len(paths) > 1)
    return [replace(subject, name=name) for subject, name in zip(found, names, strict=True)]


def names_of(subjects: Sequence[Subject], *, several: bool) -> list[str]:
    """What results call the models: a file by its stem; those of a run by their roles, or, where several trainings meet, by the objective (and the
    role, if it is not its first). Equal names are told apart by the seed, files by their folder, and else by a number."""

    def name(subject: Subject) -> str:
        about = subject.header
        # In a run's folder a file is called after its role: that says nothing.
        if subject.by_file and subject.file.stem != about.role:
            return subject.file.stem.replace(">", "-")
        if not several:
            return about.role
        objective = about.objective_name or subject.file.stem
        return objective if about.is_headline else f"{objective}.{about.role}"

    def told_apart(name: str, subject: Subject) -> str:
        if subject.by_file and subject.file.stem == name:
            return f"{subject.file.absolute().parent.name}.{name}"
        return f"{name}@seed{subject.header.seed}"

    names = [name(subject) for subject in subjects]
    apart = [
        told_apart(name, subject) if names.count(name) > 1 else name
        for name, subject in zip(names, subjects, strict=True)
    ]
    return [f"{name}#{apart[: i + 1].count(name)}" if apart.count(name) > 1 else name for i, name in enumerate(apart)]


def probes_named(
    name: str,
    stored: Sequence[Spec],
    *,
    eps: float | str | None = None,
    norm: str | None = None,
) -> list[Spec]:
    """The probes that `--probe NAME` means: those of the stored evaluation with this label or name; or what the field calls so ('pgd20'); or the
    registered one. What is not stored takes the attack (or its eps and norm) from the stored evaluation, so that it fits the models' own threat model.

    A stored 'pgd20' gives way to the field's where another eps or norm is asked for. Raises `InputError` for a name that is none.
    """
    by_name = threat.is_conventional(name)
    for chosen in ([s for s in stored if s.title == name], [s for s in stored if s.name == name and not by_name]):
        if chosen and not (by_name and any(threat.says_otherwise(spec, eps, norm) for spec in chosen)):
            return chosen
    known = {entry.name for entry in registry.entries("probe")}
    if name not in known and not by_name:
        words = {*known, *threat.CONVENTIONAL, *(s.title for s in stored)}
        if any(entry.name == name for entry in registry.entries("attack")):
            help = f"{name} is an attack: --probe robust_accuracy -s probe.robust_accuracy.attack={name}"
            raise InputError(f"there is no probe {name!r}", help=help)
        raise InputError(f"there is no probe {name!r}", help=nearest(name, words))
    attack = next((s.kwargs["attack"] for s in stored if isinstance(s.kwargs.get("attack"), Spec)), None)
    if by_name:
        return [_by_the_fields_name(name, attack, eps, norm)]
    return [_registered(name, attack, eps, norm)]


def _by_the_fields_name(name: str, attack: Spec | None, eps: float | str | None, norm: str | None) -> Spec:
    """'pgd20' under the threat model that was asked for, or else under that of the stored attack. Raises `InputError` where neither says an eps."""
    stored = None if attack is None else attack.get("norm", "linf")
    if eps is None and attack is not None and norm in (None, stored):
        eps = attack.get("eps")
    if isinstance(eps, str) and amount(eps) is None:
        raise InputError(f"eps should be a number such as 8/255, got {eps!r}")
    if eps is None:
        raise InputError(
            f"{name} needs an eps" + (f" for {norm}" if norm else ", and nothing stored with the model says one"),
            help=f"give --eps {'0.5' if norm == 'l2' else '8/255'}",
        )
    made = threat.named_probe(name, eps=eps, norm=norm or stored or "linf")
    assert made is not None
    return made


def _registered(name: str, attack: Spec | None, eps: float | str | None, norm: str | None) -> Spec:
    """A registered probe with what the stored attack says; where that says nothing, with PGD-20 under the eps that was asked for."""
    spec = Spec("probe", name)
    parameters = spec.entry.parameters
    if attack is not None:
        offered = {"attack": attack}
        # A probe that knows one norm alone is given no eps of another.
        fits = "norm" in parameters or attack.kwargs.get("norm", "linf") == "linf"
        if fits and parameters.get("eps") and parameters["eps"].required:
            offered |= {key: attack.kwargs[key] for key in ("eps", "norm") if key in attack.kwargs}
        spec = spec.replace(**{key: value for key, value in offered.items() if key in parameters})
    elif eps is not None:
        spec = threat.named_probe(name, eps=eps, norm=norm or "linf") or spec
    return spec


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

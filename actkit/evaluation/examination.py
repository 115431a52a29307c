"""Examinations: probes on models, in fp32, resumable; of a training's models at its end, and of model files alone later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actkit.attacks.goals import CLASSES_NEEDED
from actkit.config.registry import Model
from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.display import Display, Expected
from actkit.errors import InputError, nearest
from actkit.evaluation.cost import cost_of
from actkit.evaluation.flags import keep_flags
from actkit.evaluation.results import write_summary
from actkit.evaluation.resume import key_of, resumable
from actkit.evaluation.selection import Subject, groups_of, selected
from actkit.evaluation.summary import Found, ModelFacts, Summary, apply_flags
from actkit.evaluation.threat import too_short
from actkit.files import cache_folder, locked, make_folder, sha256_of
from actkit.machine import deterministic, provenance
from actkit.networks import class_names, model_files
from actkit.networks.frozen import Mode
from actkit.networks.normalisation import UNNORMALISED, is_unsaid
from actkit.networks.roles import Role
from actkit.networks.trial import assert_takes
from actkit.networks.views import View, with_features
from actkit.probes import Progress, Result, ResultName, measure


def examine(
    probes: Sequence[Any],
    roles: Mapping[str, Role],
    data: Data,
    progress: Progress | None = None,
    results: dict[str, Result] | None = None,
) -> dict[str, Result]:
    """Run probes on roles, in fp32 whatever they train in: the one place where training and `actkit probe` measure. For `results` see `measure`."""
    models: dict[str, Model] = {
        name: role if role.precision == "fp32" else _InFp32(name, role) for name, role in roles.items()
    }
    return measure(probes, models, data, progress, results)


class _InFp32:
    """A role that trains in another precision, as probes are handed it: the same model in fp32. Looking leaves no trace on it."""

    def __init__(self, name: str, role: Role) -> None:
        self.name, self.role, self.model = name, role, role.model

    @property
    def device(self) -> torch.device:
        return self.role.device

    def __call__(self, *inputs: Tensor, branch: str | None = None) -> Tensor:
        return self.role(*inputs, branch=branch, precision="fp32")

    def features(self, *inputs: Tensor, branch: str | None = None) -> tuple[Tensor, Tensor]:
        return with_features(lambda: self(*inputs, branch=branch), self.model)

    def frozen(self, mode: Mode = "eval", *, branch: str | None = None) -> contextlib.AbstractContextManager[View]:
        return self.role.frozen(mode, branch=branch, precision="fp32")

    def representation(self) -> contextlib.AbstractContextManager[Callable[[Tensor], Tensor]]:
        return self.role.representation(precision="fp32")


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


@dataclass(frozen=True)
class Examined:
    """What probes found: their results, the same with doubts marked, and the fingerprints of the splits that they looked at."""

    results: dict[str, Result]
    found: dict[ResultName, Found]
    tested: dict[str, str]


@contextlib.contextmanager
def examine_models(
    probes: Sequence[Any],
    roles: Mapping[str, Role],
    files: Mapping[str, Path],
    data: Data,
    data_spec: Spec,
    display: Display,
    *,
    unfinished: Path | None = None,
    orders: Mapping[str, list[int] | None] | None = None,
    work: Sequence[Expected] = (),
    on_stop: Callable[[Examined, int], Any] | None = None,
) -> Iterator[Examined]:
    """Examine models and keep what was checked of them; an interrupted examination goes on, until what is written in the block is written.

    Args:
        files: the models' files, by the names of the roles.
        unfinished: where its progress is kept meanwhile; in the cache folder by default.
        orders: the models' classes where these were put into another order than their files have: such models are others.
        work: what each piece of it is expected to take, so that it can be said how long all will.
        on_stop: called with what was found when a signal ends the examination, and the number of parts that are kept of it.
    """
    evaluation = [probe.spec for probe in probes]
    for said in dict.fromkeys(said for spec in evaluation for said in too_short(spec)):
        display.warn(said)
    device = next(iter(roles.values())).device
    tested = fingerprints(data, evaluation, display)
    key = key_of(list(files.values()), data_spec, evaluation, tested, device)
    if orders and any(order is not None for order in orders.values()):
        key = sha256_of([key, dict(orders)], 32)
    cache = cache_folder("unfinished")
    place = unfinished or (cache and cache / f"{key}.safetensors")
    results: dict[str, Result] = {}
    kept: Mapping[str, Tensor] = {}
    try:
        with resumable(place, key, display, work=work) as progress:
            kept = progress.kept
            examine(probes, roles, data, progress, results)
            keep_flags(results, files, evaluation, tested, display)
            yield Examined(results, apply_flags(results, files), tested)
    except (KeyboardInterrupt, SystemExit):
        if on_stop is not None:
            on_stop(Examined(results, apply_flags(results, files), tested), len(kept) if place else 0)
        raise


def probe_checkpoints(
    paths: Sequence[Path],
    *,
    probes: Sequence[str] = (),
    roles: Sequence[str] = (),
    evaluation: Sequence[Spec] | None = None,
    settings: Sequence[str] = (),
    eps: float | str | None = None,
    norm: str | None = None,
    limit: int | None = None,
    device: torch.device,
    display: Display,
    command: str = "",
    out: Path | None = None,
    pictures: Path | None = None,
    classes: class_names.Mapping | None = None,
    on_stop: Callable[[Stopped], Any] | None = None,
) -> list[Summary]:
    """Rebuild models from their files alone and examine them: one summary for each group that shares its data and its evaluation.

    Args:
        probes: the probes to run, by name or label; by default the evaluation that the models were saved with.
        roles: which of the models to examine; 'headline' is the first of each training.
        evaluation: probes from a recipe, in place of the stored ones.
        limit: how many images each probe looks at, at most; a fixed random choice.
        settings: 'KEY=VALUE', changes of the data set or the probes.
        eps, norm: the threat model that every attack is put under, as `actkit.evaluation.threat.under` does; each model's own by default.
        out: a folder for the results and what happened to each example; a numbered one in it for each group, if there are several.
        pictures: a folder for what the probes show, likewise.
        classes: how a model's classes belong to the data's, where they are called differently or come in another order.
        on_stop: called when a signal ends it, before that is passed on.
    """
    deterministic(device)
    if out is not None and out.is_dir():
        _assert_free(out)
    for folder in (out, pictures):
        if folder is not None:
            make_folder(folder)
    subjects = selected(
        paths,
        probes=probes,
        roles=roles,
        evaluation=evaluation,
        settings=settings,
        display=display,
        eps=eps,
        norm=norm,
        limit=limit,
    )
    groups = groups_of(subjects, probes, display)
    work = _Work(device, display, command, classes, on_stop)
    with locked(out, warn=display.warn) if out is not None else contextlib.nullcontext():
        return _in_groups(groups, work, out, pictures)


@dataclass(frozen=True)
class Stopped:
    """An examination that a signal ended.

    Args:
        found: of each group of models what was finished.
        kept, parts: how many parts of the last one are kept, and how many it has at most; None where that is not known.
    """

    found: list[Summary]
    kept: int
    parts: int | None


@dataclass(frozen=True)
class _Work:
    """What all groups of models have in common."""

    device: torch.device
    display: Display
    command: str
    classes: class_names.Mapping | None
    on_stop: Callable[[Stopped], Any] | None


def _assert_free(out: Path) -> None:
    """Raise `InputError` for a folder that holds what is no earlier examination's: a run's own summary, or somebody's files."""
    if (out / "config.json").is_file():
        raise InputError(
            "a run or an export lies in this folder, and an examination would replace its files",
            where=str(out),
            help="choose another --out",
        )
    there = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    # Of one group of models, or of the first of several.
    earlier = any(_is_examination(folder) for folder in (out, out / "0"))
    if there and not earlier:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise InputError(
            f"other files lie in this folder: {', '.join(sorted(there)[:3])}{more}",
            where=str(out),
            help="give --out a new or an empty folder, or one that an earlier `actkit probe --out` has written",
        )


def _is_examination(folder: Path) -> bool:
    """Whether `actkit probe --out` has written this folder."""
    try:
        return Summary.load(folder).run is None
    except InputError:
        return False


def _in_groups(groups: list[list[Subject]], work: _Work, out: Path | None, pictures: Path | None) -> list[Summary]:
    places = [
        [folder and (folder if len(groups) == 1 else folder / str(i)) for folder in (out, pictures)]
        for i in range(len(groups))
    ]
    found: list[Summary] = []
    for group, place in zip(groups, places, strict=True):
        found.append(_examine_group(group, work, *place, before=found))
    return found


def _examine_group(
    group: list[Subject], work: _Work, folder: Path | None, pictures: Path | None, *, before: Sequence[Summary]
) -> Summary:
    """Examine models that share their data and their evaluation; write the results and the pictures where that is asked for.

    Args:
        before: what was found of other groups, for whoever stops at this one.
    """
    data: Data = group[0].data.build()()
    display = work.display
    for note in data.notes:
        display.say(f"data       {note}")
    orders = {subject.name: _order(subject, data, group[0], work.classes) for subject in group}
    _say_contracts(group, display)
    for subject in group:
        if subject.header.imported and is_unsaid(subject.header.imported.notes):
            display.warn(f"{subject.name}: {UNNORMALISED}")
    probes = [spec.build() for spec in group[0].evaluation]
    assert_fits(probes, data, len(group))
    roles = {}
    for subject in group:
        role, about = model_files.load_role(subject.file, device=work.device, order=orders[subject.name])
        assert_takes(role, about.backbone, data.shape, data.num_classes)
        roles[subject.name] = role
    files = {subject.name: subject.file for subject in group}
    cost = cost_of(probes, data, roles)
    if cost is not None:
        display.say(f"cost       {cost.said} on {work.device}")

    def stopped(made: Examined, kept: int) -> None:
        found = [*before, _summary(group, data, made, work)] if made.results else list(before)
        if work.on_stop is not None:
            work.on_stop(Stopped(found, kept, None if cost is None else cost.parts))

    with examine_models(
        probes,
        roles,
        files,
        data,
        group[0].data,
        display,
        orders=orders,
        work=() if cost is None else cost.work,
        on_stop=stopped,
    ) as made:
        summary = _summary(group, data, made, work)
        write_summary(summary, made.results, folder, pictures, display)
    _say_near_chance(group, data, summary, display)
    return summary


def _say_near_chance(group: Sequence[Subject], data: Data, summary: Summary, display: Display) -> None:
    """A warning for each imported model that knows next to nothing of the data: it is likely to be fed something else than it was trained on."""
    chance = 1 / data.num_classes
    for subject in group:
        found = [f for f in summary.of(subject.name).values() if f.images and f.numbers.get("clean") is not None]
        if not subject.header.imported or not found:
            continue
        clean, images = found[0].numbers["clean"] or 0.0, found[0].images or 1
        # Three deviations of guessing, and a little.
        if clean <= chance + 3 * (chance * (1 - chance) / images) ** 0.5 + 0.02:
            display.warn(
                f"{subject.name} is right on {100 * clean:.1f} % of images, next to chance ({100 * chance:.1f} %): were they normalised in its training "
                "(import it again with --normalise, or --mean and --std), are its classes in another order (--classes), has it another activation?"
            )


def _summary(group: Sequence[Subject], data: Data, made: Examined, work: _Work) -> Summary:
    """What was found of a group, by those of its probes that are done."""
    done = {name.label for name in made.found}
    return Summary(
        command=work.command,
        data=data.name,
        data_fingerprint=made.tested,
        sizes=dict(data.sizes),
        evaluation=tuple(spec for spec in group[0].evaluation if spec.title in done),
        results=made.found,
        versions=provenance(),
        device=str(work.device),
        models={subject.name: ModelFacts.of(subject.file, subject.header) for subject in group},
    )


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

"""The runs that lie in folders: finished, unfinished with how far each is, damaged. What is read is JSON: no component is needed, nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actkit.config.compare import alike
from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.evaluation.run_files import spec_of_run
from actkit.evaluation.run_states import RunState, state_of
from actkit.evaluation.summary import FILE, Found, RunFacts, Summary
from actkit.findings import Threat, headline_among
from actkit.networks.checkpoints import located
from actkit.reports.grids import Grid
from actkit.reports.rows import UNVERIFIED, percent
from actkit.training.study_record import StudyRecord


@dataclass(frozen=True)
class Finished:
    """A run and what its examination found; `facts` are its summary's of the training."""

    folder: Path
    spec: Spec
    summary: Summary
    facts: RunFacts

    @property
    def seed(self) -> int:
        return seed_of(self.spec)


@dataclass(frozen=True)
class Unfinished:
    """A run that has no result yet, and how far it is."""

    folder: Path
    spec: Spec
    state: RunState

    def __str__(self) -> str:
        return f"{self.folder}: {self.state}"


@dataclass(frozen=True)
class Damaged:
    """A run of which a file cannot be read."""

    folder: Path
    error: InputError

    def __str__(self) -> str:
        return f"{self.folder}: {self.error.message}"


@dataclass(frozen=True)
class Runs:
    """What there is, each in the order of the folders."""

    finished: list[Finished] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)


def seed_of(spec: Spec) -> int:
    seed = spec.kwargs.get("seed", 0)
    return seed if isinstance(seed, int) else 0


def find(paths: Iterable[Path]) -> Runs:
    """The runs at or below these folders, each once. Raises `InputError` for a path at which there is none, with what is there."""
    found = Runs()
    seen: set[Path] = set()
    for path in map(located, paths):
        for folder in _folders_of_runs(path):
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                _put(found, folder)
    return found


def _put(found: Runs, folder: Path) -> None:
    try:
        spec = spec_of_run(folder)
        if not (folder / FILE).is_file():
            found.unfinished.append(Unfinished(folder, spec, state_of(folder, spec)))
            return
        summary = Summary.load(folder)
        found.finished.append(Finished(folder, spec, summary, _facts(folder, summary)))
    except InputError as error:
        found.damaged.append(Damaged(folder, error))


def _facts(folder: Path, summary: Summary) -> RunFacts:
    """Raises `InputError` for what another examination has left in a run's folder."""
    if summary.run is None:
        raise InputError(
            "this run's summary.json is of `actkit probe` and says nothing of its training",
            where=str(folder),
            help="remove that file; the same `actkit run` again examines the models anew",
        )
    return summary.run


# -- folders -------------------------------------------------------------------------------------------------------------


def _folders_of_runs(path: Path) -> list[Path]:
    if not path.is_dir():
        said = "this is a file" if path.exists() else "there is no such folder"
        raise InputError(said, where=str(path), help="give runs, or folders that hold runs")
    runs = [path] if _is_run(path) else [*_of_study(path), *_below(path)]
    if not runs and (record := StudyRecord.load(path)) is not None:
        raise InputError(
            f"none of the {len(record.cells)} runs of this study has begun",
            where=str(path),
            help=f"the same `actkit run {record.file}`, with the settings that were given, goes on with it; earlier runs are below {path.parent}",
        )
    if not runs:
        raise InputError(
            f"this folder is no run and holds none: {_content(path)}", where=str(path), help=_instead(path)
        )
    return runs


def _below(path: Path) -> list[Path]:
    return [file.parent for file in sorted(path.rglob("config.json")) if _is_run(file.parent)]


def _of_study(path: Path) -> list[Path]:
    """Those of the study that a folder is, in its order as far as they have begun; none where it is no study."""
    record = StudyRecord.load(path)
    return [folder for folder in record.folders if _is_run(folder)] if record else []


def _is_run(folder: Path) -> bool:
    kept = (FILE, "metrics.jsonl", "checkpoints", "environment.json")
    return (folder / "config.json").is_file() and any((folder / name).exists() for name in kept)


def _content(folder: Path) -> str:
    """What is in a folder, in a few words."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if not p.name.startswith("."))
    if not names:
        return "it is empty"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"it has {', '.join(names[:5])}{more}"


def _instead(folder: Path) -> str:
    """What to do with a folder that holds no run, by what it is."""
    if above := next((parent for parent in folder.absolute().parents if _is_run(parent)), None):
        return f"it is part of a run; give that: {above}"
    if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        return f"it is an export; `actkit probe --ckpt {folder}` examines it"
    if (folder / FILE).is_file():
        return "it is what an examination found, `actkit probe --out`; a report is of runs, which `actkit run` makes"
    if files := sorted(folder.glob("*.safetensors")):
        return f"models outside of runs are examined: actkit probe {' '.join(f'--ckpt {file}' for file in files[:3])}"
    if recipes := sorted(folder.glob("*.gin")):
        return f"recipes are trained first: actkit run {recipes[0]}"
    return "give a folder that `actkit run` has made, such as runs/<recipe>/<run>, or one above it"


# -- groups --------------------------------------------------------------------------------------------------------------


def comparable(runs: Sequence[Finished]) -> list[list[Finished]]:
    """The runs whose numbers mean the same together: tested on the same data, examined alike. Groups and runs in their order."""
    groups: list[list[Finished]] = []
    for run in runs:
        for group in groups:
            if tested_alike(group[0], run) and examined_alike(group[0], run):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def tested_alike(a: Finished, b: Finished) -> bool:
    return a.summary.data_fingerprint == b.summary.data_fingerprint


def examined_alike(a: Finished, b: Finished) -> bool:
    mine, theirs = (Spec("", "run", {"evaluation": list(run.summary.evaluation)}) for run in (a, b))
    return alike(mine, theirs)


# -- a line a run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Headline:
    """The one number of a run: the headline model's lowest accuracy under attack, of the probes that allow what the first allows."""

    model: str
    title: str
    value: float
    percent: bool
    images: int | None
    threat: Threat | None
    verified: bool

    def __str__(self) -> str:
        value = percent(self.value) if self.percent else f"{self.value:.4g}"
        under = f" {self.threat}" if self.threat else ""
        of = f" (n = {self.images:,})" if self.images else ""
        return f"{self.title}{under} {value}{of}" + ("" if self.verified else f" {UNVERIFIED}")

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "threat": self.threat and self.threat.to_json()}


def headline_of(summary: Summary) -> Headline | None:
    """None where nothing was measured that a table shows; without an attack, the first number that it shows."""
    model = summary.headline
    if model is None:
        return None
    attacked = list(_attacked(model, summary.of(model).values()))
    if attacked:
        first = attacked[0].threat
        return min((one for one in attacked if one.threat == first), key=lambda one: one.value)
    return next(_shown(model, summary.of(model).values()), None)


def _attacked(model: str, found: Iterable[Found]) -> Iterator[Headline]:
    for one in found:
        # No attack has verified, or not, what needs none.
        if one.verified is None or (name := headline_among(one.numbers)) is None:
            continue
        yield from (shown for shown in _shown(model, [one], name) if shown.percent)


def _shown(model: str, found: Iterable[Found], number: str | None = None) -> Iterator[Headline]:
    """The columns of what was found, or that of one number."""
    for one in found:
        for column in one.columns:
            value = one.numbers.get(column.number)
            if value is not None and number in (None, column.number):
                yield Headline(model, column.title, value, column.percent, one.images, one.threat, not one.unverified)


@dataclass(frozen=True)
class Listed:
    """A run in a line: `state` in words, and why it is that where it should not be."""

    folder: Path
    state: str
    why: str = ""
    seed: int | None = None
    objective: str = ""
    data: str = ""
    epochs: str = ""
    headline: Headline | None = None

    def to_json(self) -> dict[str, Any]:
        headline = None if self.headline is None else self.headline.to_json()
        return {**vars(self), "folder": str(self.folder), "headline": headline}


def listed(runs: Runs) -> list[Listed]:
    """Every run in a line, in the order of their folders."""
    made = [_finished(run) for run in runs.finished]
    made += [_unfinished(run) for run in runs.unfinished]
    made += [Listed(run.folder, "damaged", run.error.message) for run in runs.damaged]
    return sorted(made, key=lambda one: one.folder)


def _finished(run: Finished) -> Listed:
    facts, summary = run.facts, run.summary
    state = "done, training stopped early" if facts.stopped_early else "done"
    epochs = str(facts.epochs if facts.trained_epochs is None else facts.trained_epochs)
    return Listed(run.folder, state, "", facts.seed, _objective(run.spec), summary.data, epochs, headline_of(summary))


def _unfinished(run: Unfinished) -> Listed:
    state, data = run.state, run.spec.kwargs.get("data")
    named = data.name if isinstance(data, Spec) else ""
    epochs = f"{state.epoch} of {state.epochs}"
    return Listed(run.folder, state.brief, state.why, seed_of(run.spec), _objective(run.spec), named, epochs)


def _objective(spec: Spec) -> str:
    """Its name, and the plain settings that it was given: 'act(alpha=0.5)'."""
    objective = spec.kwargs.get("objective")
    if not isinstance(objective, Spec):
        return ""
    parts = [
        f"{value.name}" if isinstance(value, Spec) else f"{name}={value}"
        for name, value in objective.kwargs.items()
        if not isinstance(value, Spec) or value.kind == "objective"
    ]
    return objective.name + (f"({', '.join(parts)})" if parts else "")


def list_grid(lines: Sequence[Listed]) -> Grid:
    titles = ["run", "state", "seed", "objective", "data", "epochs", "headline"]
    body = [
        [
            str(one.folder),
            one.state,
            "-" if one.seed is None else str(one.seed),
            one.objective or "-",
            one.data or "-",
            one.epochs or "-",
            "-" if one.headline is None else str(one.headline),
        ]
        for one in lines
    ]
    return Grid(titles, body, [f"{one.folder}: {one.state}: {one.why}" for one in lines if one.why], left=len(titles))

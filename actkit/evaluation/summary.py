"""What an examination found: of a run at its end, and of `actkit probe`. Whether a number is UNVERIFIED is decided here."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actkit.config.spec import Spec
from actkit.config.typed import typed
from actkit.errors import CHECK_FAILED, OK, InputError
from actkit.evaluation.flags import standing_flags
from actkit.evaluation.run_files import files_of_run, last_files_of_run
from actkit.files import sha256, write_json
from actkit.findings import Column, Flag, ResultName, Threat
from actkit.networks.headers import Header, ImportedFrom

if TYPE_CHECKING:
    from actkit.probes import Result

FILE = "summary.json"


@dataclass(frozen=True)
class Found:
    """What a probe found of a model, without what happened to each example.

    Args:
        numbers: None where a number is none, such as a mean over no image.
        images: how many were looked at; None where none was, or the probe does not say.
        verified: of numbers that an attack gave, whether they can be believed; None of all others.
        because: the red flags for which they cannot.
    """

    numbers: dict[str, float | None]
    images: int | None
    columns: tuple[Column, ...]
    threat: Threat | None
    flags: tuple[Flag, ...]
    verified: bool | None = None
    because: tuple[str, ...] = ()

    @staticmethod
    def of(result: Result) -> Found:
        columns = result.columns
        if columns is None:
            columns = tuple(Column(name, name, percent=False) for name in result.numbers)
        return Found(
            # NaN is no JSON.
            {name: value if math.isfinite(value) else None for name, value in result.numbers.items()},
            result.images,
            columns,
            result.threat,
            result.flags,
            verified=True if result.attacked else None,
        )

    @property
    def unverified(self) -> bool:
        return self.verified is False

    def doubted(self, because: Sequence[str]) -> Found:
        """The same, unverified for these reasons too, where there are any and it comes from an attack."""
        if self.verified is None or not because:
            return self
        return dataclasses.replace(self, verified=False, because=tuple(dict.fromkeys([*self.because, *because])))

    def to_json(self) -> dict[str, Any]:
        made = {
            "numbers": dict(self.numbers),
            "images": self.images,
            "columns": [vars(column) for column in self.columns],
            "threat": None if self.threat is None else self.threat.to_json(),
            "flags": [flag.to_json() for flag in self.flags],
        }
        return made if self.verified is None else {**made, "verified": self.verified, "because": list(self.because)}


@dataclass(frozen=True)
class RunFacts:
    """What a run's summary says of its training.

    Args:
        epochs, steps: of the models examined; `trained_epochs` is how far the training went.
        best: the label of the monitor's probe that chose them; None for the last epoch, or, where the training was stopped early, the last before the fall.
    """

    recipe: str
    seed: int
    epochs: int
    steps: int
    stopped_early: bool
    trained_epochs: int | None = None
    best: str | None = None

    @property
    def before_fall(self) -> bool:
        """Whether the models are those of the last look before robustness fell, which ended the training."""
        return self.stopped_early and self.best is None and self.trained_epochs not in (None, self.epochs)


@dataclass(frozen=True)
class ModelFacts:
    """A model file that was examined by itself."""

    file: str
    sha256: str
    role: str
    objective: str = ""
    seed: int | None = None
    epochs: int | None = None
    steps: int | None = None
    imported: ImportedFrom | None = None

    @staticmethod
    def of(file: Path, about: Header) -> ModelFacts:
        return ModelFacts(
            str(file), sha256(file), about.role, about.objective, about.seed, about.epoch, about.step, about.imported
        )

    def to_json(self) -> dict[str, Any]:
        made = {key: value for key, value in vars(self).items() if key != "imported"}
        return made if self.imported is None else {**made, "imported": self.imported.to_json()}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What an examination found.

    Args:
        data, data_fingerprint, sizes: the data set's name, and by split its fingerprint and size.
        results: what was found, by (model, label of the probe), in the order of the examination: the headline model's first.
        run: of a run's own examination at its end, what was trained.
        models: of `actkit probe`, the files that were examined, by what results call them.
    """

    command: str
    data: str
    data_fingerprint: dict[str, str]
    sizes: dict[str, int]
    evaluation: tuple[Spec, ...]
    results: dict[ResultName, Found]
    versions: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    run: RunFacts | None = None
    models: dict[str, ModelFacts] = field(default_factory=dict)

    @property
    def headline(self) -> str | None:
        """The model that a table begins with; None where nothing was found."""
        return next(iter(self.model_names), None)

    @property
    def model_names(self) -> list[str]:
        return list(dict.fromkeys(name.model for name in self.results))

    def of(self, model: str) -> dict[str, Found]:
        """What was found of one model, by the probes' labels."""
        return {name.label: found for name, found in self.results.items() if name.model == model}

    @property
    def flags(self) -> dict[str, list[Flag]]:
        """By model, of those that were checked."""
        return {
            model: flags
            for model in self.model_names
            if (flags := [f for r in self.of(model).values() for f in r.flags])
        }

    @property
    def because(self) -> list[str]:
        """Why numbers are unverified."""
        return list(dict.fromkeys(said for found in self.results.values() for said in found.because))

    @property
    def unverified(self) -> bool:
        """Whether a check raised a red flag, here or in an earlier audit of these models."""
        return any(
            found.unverified or any(flag.level == "red" for flag in found.flags) for found in self.results.values()
        )

    @property
    def stopped_early(self) -> bool:
        return self.run is not None and self.run.stopped_early

    @property
    def exit_code(self) -> int:
        return CHECK_FAILED if self.stopped_early or self.unverified else OK

    def with_flags_of(self, files: Mapping[str, Path]) -> Summary:
        """The same, its numbers marked where a later check of its models (by name) has raised a red flag."""
        red = {model: red_flags(standing_flags(file)) for model, file in files.items()}
        results = {name: found.doubted(_because(name, red)) for name, found in self.results.items()}
        return dataclasses.replace(self, results=results)

    def to_json(self) -> dict[str, Any]:
        results = {str(name): found.to_json() for name, found in self.results.items()}
        evaluation = [spec.to_json() for spec in self.evaluation]
        if self.run is None:
            return {
                "models": {name: model.to_json() for name, model in self.models.items()},
                "data": self.data,
                "data_fingerprint": self.data_fingerprint,
                "command": self.command,
                "device": self.device,
                "versions": self.versions,
                "sizes": self.sizes,
                "evaluation": evaluation,
                "results": results,
            }
        chosen = {"trained_epochs": self.run.trained_epochs, "best": self.run.best}
        return {
            "recipe": self.run.recipe,
            "command": self.command,
            "data": self.data,
            "data_fingerprint": self.data_fingerprint,
            "sizes": self.sizes,
            "seed": self.run.seed,
            "epochs": self.run.epochs,
            "steps": self.run.steps,
            # Older runs do not say how far they went.
            **(chosen if self.run.trained_epochs is not None else {}),
            "stopped_early": self.run.stopped_early,
            "evaluation": evaluation,
            "results": results,
            "versions": self.versions,
        }

    @staticmethod
    def from_json(data: Any) -> Summary:
        """Raises `ValueError`, which says where and what, for what is no summary."""
        if not isinstance(data, dict):
            raise ValueError(f"it should be an object, got {type(data).__name__}")
        run = None if "models" in data else typed(RunFacts, data)
        return dataclasses.replace(typed(Summary, {**data, "run": None}), run=run)

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.to_json())

    @staticmethod
    def load(folder: Path) -> Summary:
        """That of a run or of an examination, marked where a later check has raised a red flag. Raises `InputError` for a file that cannot be used."""
        try:
            found = Summary.from_json(json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"this run's {FILE} cannot be read: {error}",
                where=str(folder),
                help="remove that file; the same `actkit run` again examines the models anew",
            ) from error
        # Where no run's check has left any, its models need not be looked for.
        if found.run is not None and not any((folder / "probes").glob("flags-*.json")):
            return found
        return found.with_flags_of(found.files(folder))

    def files(self, folder: Path) -> dict[str, Path]:
        """The files of its models, by name, as far as they are there."""
        if self.run is None:
            return {name: Path(model.file) for name, model in self.models.items()}
        try:
            return {**files_of_run(folder), **last_files_of_run(folder)}
        except InputError:  # its checkpoint is damaged or gone: what the run itself found still stands
            return {}


def red_flags(flags: Sequence[Flag]) -> list[str]:
    return [f"{flag.check}: {flag.said}" for flag in flags if flag.level == "red"]


def _because(name: ResultName, red: Mapping[str, Sequence[str]]) -> list[str]:
    """The red flags on a result's models, each with its model."""
    return [f"{model}, {said}" for model in name.models for said in red.get(model, ())]


def apply_flags(results: Mapping[str, Result], files: Mapping[str, Path]) -> dict[ResultName, Found]:
    """What was found, what an attack gave marked as unverified where a model of its has a red flag: of these results, or kept beside its file.

    Args:
        files: the models' files, by what results call them.
    """
    red = {model: red_flags(standing_flags(file)) for model, file in files.items()}
    named = {ResultName.parse(name): result for name, result in results.items()}
    # Of models that no run holds, nothing is kept.
    for name, result in named.items():
        for model in name.models:
            red[model] = list(dict.fromkeys([*red.get(model, []), *red_flags(result.flags)]))
    return {name: Found.of(result).doubted(_because(name, red)) for name, result in named.items()}

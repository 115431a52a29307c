"""Examinations: probes on models, in fp32, resumable; of a training's models at its end, and of model files alone later."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actkit import checkpoint, config, registry
from actkit.datasets import Data, cache_folder, telling
from actkit.errors import InputError, nearest
from actkit.pictures import Picture, together
from actkit.probes import Flag, Progress, Result, measure, models_of
from actkit.registry import Model
from actkit.report import Display
from actkit.roles import Role
from actkit.spec import Spec


def examine(
    probes: Sequence[Any], roles: Mapping[str, Role], data: Data, progress: Progress | None = None
) -> dict[str, Result]:
    """Run probes on roles, in fp32 whatever they train in: the one place where training and `actkit probe` measure."""
    models: dict[str, Model] = {
        name: role if role.precision == "fp32" else Role(name, role.model, trained=role.trained)
        for name, role in roles.items()
    }
    return measure(probes, models, data, progress)


def numbers(results: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    return {name: dict(result.numbers) for name, result in results.items()}


# -- what a red flag does ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """Keeps what was checked beside the models, and marks their numbers.

    A flag stands, for these very weights, until the same probe, on the same data and beside the same other models, no longer raises it.

    Args:
        files: the models' files, by what results call them.
    """

    files: Mapping[str, Path]
    evaluation: Sequence[Spec]
    tested: Mapping[str, str]  # fingerprints of the data, by split
    display: Display

    def __call__(self, results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
        """Results as JSON; those that an attack gave are not `verified` where a model of theirs has a red flag, `because` of which."""
        for model in self.files:
            self._keep(model, results)
        red = {model: red_of(standing_flags(file)) for model, file in self.files.items()}
        for name, result in results.items():  # of models that no run holds
            for model in name.rpartition(".")[0].split(">"):
                red[model] = list(dict.fromkeys([*red.get(model, []), *red_of(result.flags)]))
        found = {}
        for name, result in results.items():
            because = [f"{model}, {said}" for model in name.rpartition(".")[0].split(">") for said in red[model]]
            found[name] = {
                **result.about(),
                **({"verified": not because, "because": because} if result.attacked else {}),
            }
        return found

    def _keep(self, model: str, results: Mapping[str, Result]) -> None:
        file = self.files[model]
        kept, specs = _flags_file(file), {spec.title: spec for spec in self.evaluation}
        others = sorted(checkpoint.sha256(other) for name, other in self.files.items() if name != model)
        new = {
            json.dumps([specs[name.rpartition(".")[2]].to_json(), self.tested, others], sort_keys=True): [
                vars(flag) for flag in result.flags
            ]
            for name, result in results.items()
            if name.rpartition(".")[0] == model and result.flags
        }
        if not new or kept is None:
            return
        own = checkpoint.sha256(file)
        try:
            kept.parent.mkdir(exist_ok=True)
            with _alone(kept):
                everything = _read_flags(kept)
                write_json(kept, {**everything, own: {**everything.get(own, {}), **new}})
        except OSError as error:
            self.display.warn(f"what was checked could not be kept: {error.strerror}: {kept}")


def red_of(flags: Sequence[Flag]) -> list[str]:
    return [f"{flag.check}: {flag.said}" for flag in flags if flag.level == "red"]


def standing_flags(file: Path) -> list[Flag]:
    """The flags that checks have left for these very weights."""
    kept = _flags_file(file)
    if kept is None or not kept.is_file():
        return []
    return [Flag(**flag) for flags in _read_flags(kept).get(checkpoint.sha256(file), {}).values() for flag in flags]


def remarked(summary: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """A summary whose numbers are marked where a later check of its models (by name) has raised a red flag."""
    red = {name: red_of(standing_flags(file)) for name, file in files.items()}
    for name, result in summary["results"].items():
        because = [f"{model}, {said}" for model in name.rpartition(".")[0].split(">") for said in red.get(model, [])]
        if "verified" in result and because:
            result["verified"], result["because"] = False, because
    return summary


def run_of(file: Path) -> Path | None:
    """The run's folder that a model file lies in."""
    parents = file.resolve().parents
    return parents[2] if len(parents) > 2 and (parents[2] / "config.json").is_file() else None


def _flags_file(file: Path) -> Path | None:
    run = run_of(file)
    return run / "probes" / f"flags-{file.stem}.json" if run else None


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process at a time changes this file."""
    import fcntl

    with file.with_name(f".{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_flags(kept: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By the sum of the weights, then by what was checked."""
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        return dict(found) if all(isinstance(flags, dict) for flags in found.values()) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def pictures_of(results: Mapping[str, Result], about: Mapping[str, Any]) -> list[Picture]:
    """What the probes' results show, a picture of several models where they share its axes; it says what made it."""
    found: dict[tuple[str, str], dict[str, Picture]] = {}
    for name, result in results.items():
        model, _, label = name.rpartition(".")
        for picture in result.pictures:
            found.setdefault((label, picture.name), {})[model] = picture
    made = []
    for (label, _), by_model in found.items():
        own = next(iter(by_model.values()))
        for picture in together(by_model):
            called = picture.name if label in (own.name, "") else f"{label}-{picture.name}"
            made.append(dataclasses.replace(picture, name=called, about=dict(about)))
    return made


def write_results(
    folder: Path,
    results: Mapping[str, Result],
    found: Mapping[str, Any],
    evaluation: Sequence[Spec],
    about: Mapping[str, Any],
) -> None:
    """Each result in two files of its own: `<model>.<probe>.json`, and `.safetensors` with what happened to each example."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = {spec.title: spec for spec in evaluation}
    for name, result in results.items():
        spec = specs[name.rpartition(".")[2]]
        write_json(folder / f"{name}.json", {"probe": spec.to_json(), **about, **found[name]})
        if result.examples:
            checkpoint.save_tensors(result.examples, folder / f"{name}.safetensors")
    for picture in pictures_of(results, about):
        write_json(folder / f"{picture.name}.picture.json", picture.to_json())


# -- interrupted examinations --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def resumable(path: Path, key: str, display: Display, *, every: float = 5.0) -> Iterator[Progress]:
    """The progress of an examination, kept in a file while it is unfinished: the same one (by `key`) goes on from there."""
    kept = _kept(path, key)
    if kept:
        display.note(f"going on with an interrupted examination: {len(kept)} parts are done")
    saved = time.monotonic()

    def save() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        checkpoint.save_tensors(kept, temporary, {"actkit": json.dumps({"key": key})})
        temporary.replace(path)

    def done() -> None:
        nonlocal saved
        if time.monotonic() - saved > every:
            saved = time.monotonic()
            try:
                save()
            except OSError as error:  # the examination itself needs no file
                saved = float("inf")
                display.warn(f"progress cannot be kept, an interruption would lose it: {error.strerror}: {path}")

    try:
        with display.working() as tell:
            yield Progress(kept, tell=tell, done=done)
    except BaseException:
        if kept:
            with contextlib.suppress(OSError):  # what ended the examination is worth more than its progress
                save()
        raise
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _kept(path: Path, key: str) -> dict[str, Tensor]:
    if not path.is_file():
        return {}
    try:
        tensors, about = checkpoint.read(path)
    except InputError:
        return {}
    return tensors if isinstance(about, dict) and about.get("key") == key else {}


def key_of(
    files: Sequence[Path], data: Spec, evaluation: Sequence[Spec], tested: Mapping[str, str], device: torch.device
) -> str:
    """Two examinations with the same key give the same answer: weights, probes, data, their code and the software are the same."""
    parts = [
        [checkpoint.sha256(file) for file in files], data.to_json(), [spec.to_json() for spec in evaluation], tested,
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type, checkpoint.versions(),
        sorted({_code_of(spec) for spec in [data, *evaluation, *_backbones(files)] for spec in _within(spec)}),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _backbones(files: Sequence[Path]) -> list[Spec]:
    return [Spec.from_json(checkpoint.header(file)["backbone"]) for file in files]


def _within(spec: Spec) -> Iterator[Spec]:
    yield spec
    for value in spec.kwargs.values():
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, Spec):
                yield from _within(inner)


def _code_of(spec: Spec) -> str:
    """The sum of the file that a component is written in, so that a plugin mended meanwhile is not taken for the old one."""
    source = Path(spec.entry.location.rpartition(":")[0])
    return checkpoint.sha256(source) if source.is_file() else spec.entry.location


def read(data: Data, splits: Iterable[str], display: Display) -> None:
    """Read splits now, and show how far it is; whoever asks for them later has them."""
    with display.working() as tell, telling(tell):
        for split in splits:
            data.split(split)


def fingerprints(data: Data, evaluation: Sequence[Spec], display: Display) -> dict[str, str]:
    """Of the splits that these probes look at."""
    splits = dict.fromkeys(str(spec.get("split", "test")) for spec in evaluation)
    read(data, splits, display)
    return {split: data.split(split).fingerprint() for split in splits}


def assert_fits(probes: Sequence[Any], data: Data, models: int) -> None:
    """Raise `InputError` for a probe that cannot work on this data, or on so many models: before anything long begins."""
    for probe in probes:
        spec = probe.spec
        needed = 2 if spec.name == "transfer" else models_of(probe) or 1
        if models < needed:
            raise InputError(
                f"probe.{spec.name} needs at least two models, there is {models}",
                help="give --ckpt several times, or a run with two roles",
            )
        split = spec.get("split", "test")
        if split not in data.sizes:
            raise InputError(f"probe.{spec.title}: {data.name} has no split {split!r}", help=nearest(split, data.sizes))
        classes = {"dlr": 3, "targeted_dlr": 4}.get(str(spec.get("loss")), 2 if spec.get("attack") else 1)
        if data.num_classes < classes:
            raise InputError(
                f"probe.{spec.title} needs {classes} classes, {data.name} has {data.num_classes}",
                help="use the loss 'margin'" if classes > 2 else None,
            )


# -- model files ---------------------------------------------------------------------------------------------------------


@dataclass
class Subject:
    """A model file that is examined."""

    file: Path
    about: dict[str, Any]
    name: str  # in results
    data: Spec
    evaluation: list[Spec]

    def described(self) -> dict[str, Any]:
        about = self.about
        return {
            "file": str(self.file), "sha256": checkpoint.sha256(self.file), "role": about["role"],
            "objective": about.get("objective", ""), "seed": about["seed"], "epochs": about["epoch"], "steps": about["step"],
            **({"imported": about["imported"]} if about.get("imported") else {}),
        }  # fmt: skip


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
) -> list[dict[str, Any]]:
    """Rebuild models from their files alone and examine them: one summary for each group that shares its data and its evaluation.

    Args:
        probes: the probes to run, by name or label; by default the evaluation that the models were saved with.
        roles: which of the models to examine; 'headline' is the first of each training.
        evaluation: probes from a recipe, in place of the stored ones.
        settings: 'KEY=VALUE', changes of the data set or the probes.
        out: a folder for the results and what happened to each example; a numbered one in it for each group, if there are several.
        pictures: a folder for what the probes show, likewise.
    """
    deterministic(device)
    for folder in (out, pictures):
        if folder is not None:
            make_folder(folder)
    subjects = _subjects(paths, roles)
    for subject in subjects:
        subject.evaluation = subject.evaluation if evaluation is None else evaluation
        if probes:
            subject.evaluation = [spec for name in probes for spec in wanted(name, subject.evaluation)]
    settings = _other_data(subjects, settings)
    changed = config.override_spec([{"data": s.data, "evaluation": s.evaluation} for s in subjects], settings)
    for subject, now in zip(subjects, changed, strict=True):
        subject.data, subject.evaluation = now["data"], now["evaluation"]
    groups = _groups(subjects, probes, display)
    with checkpoint.locked(out) if out is not None else contextlib.nullcontext():
        return _in_groups(groups, device, display, command, out, pictures)


def _in_groups(
    groups: list[list[Subject]],
    device: torch.device,
    display: Display,
    command: str,
    out: Path | None,
    pictures: Path | None,
) -> list[dict[str, Any]]:
    places = [
        [folder and (folder if len(groups) == 1 else folder / str(i)) for folder in (out, pictures)]
        for i in range(len(groups))
    ]
    return [_examined(group, device, display, command, *place) for group, place in zip(groups, places, strict=True)]


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
        files = {file: checkpoint.header(file) for file in checkpoint.find(path)}
        # The headline model first, as in the run's own table.
        ordered = sorted(files.items(), key=lambda item: item[1]["roles"].index(item[1]["role"]))
        for file, about in ordered:
            headline = about["role"] == about["roles"][0]
            if roles and about["role"] not in roles and not (headline and "headline" in roles):
                continue
            if not any(file.resolve() == s.file.resolve() for s in found):
                specs = [Spec.from_json(spec) for spec in about["evaluation"]]
                found.append(Subject(file, about, "", Spec.from_json(about["data"]), specs))
    if not found:
        there = {checkpoint.header(file)["role"] for path in paths for file in checkpoint.find(path)}
        raise InputError(
            f"no model here has the role {' or '.join(roles)}",
            where=", ".join(map(str, paths)),
            help=nearest(roles[0], there),
        )
    for subject, name in zip(found, _names(found, len(paths) > 1), strict=True):
        subject.name = name
    return found


def _names(subjects: Sequence[Subject], several: bool) -> list[str]:
    """What results call the models: their roles, or, where several trainings meet, the objective (and the role, if it is not its first)."""

    def name(subject: Subject) -> str:
        about = subject.about
        if not several:
            return str(about["role"])
        objective = about.get("objective", "").partition("(")[0].removeprefix("objective.") or subject.file.stem
        return objective if about["role"] == about["roles"][0] else f"{objective}.{about['role']}"

    names = [name(subject) for subject in subjects]
    with_seed = [
        f"{name}@seed{s.about['seed']}" if names.count(name) > 1 else name
        for name, s in zip(names, subjects, strict=True)
    ]
    return [
        f"{name}#{with_seed[: i + 1].count(name)}" if with_seed.count(name) > 1 else name
        for i, name in enumerate(with_seed)
    ]


def wanted(name: str, stored: Sequence[Spec]) -> list[Spec]:
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
    together = bool(probes) and any(
        spec.entry.positional[0] == "models" or len(spec.entry.positional) > 2 for spec in subjects[0].evaluation
    )
    if together:
        first = subjects[0]
        for other in subjects[1:]:
            if other.data.to_json() != first.data.to_json():
                raise InputError(
                    f"the models are for different data: {first.data!r} and {other.data!r}",
                    where=str(other.file), help="give -s the settings that make them one, or probe them apart",
                )  # fmt: skip
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


def _examined(
    group: list[Subject],
    device: torch.device,
    display: Display,
    command: str,
    folder: Path | None,
    pictures: Path | None,
) -> dict[str, Any]:
    data: Data = group[0].data.build()()
    for subject in group:
        about = subject.about
        if about["num_classes"] != data.num_classes or about["shape"][0] != data.shape[0]:
            raise InputError(
                f"the model is for {about['num_classes']} classes and {about['shape'][0]} channels, {data.name} has {data.num_classes} and {data.shape[0]}",
                where=str(subject.file),
            )
    evaluation = group[0].evaluation
    probes = [spec.build() for spec in evaluation]
    assert_fits(probes, data, len(group))
    roles = {subject.name: checkpoint.load_role(subject.file, device=device)[0] for subject in group}
    tested = fingerprints(data, evaluation, display)
    key = key_of([subject.file for subject in group], group[0].data, evaluation, tested, device)
    files = {subject.name: subject.file for subject in group}
    with resumable(cache_folder("unfinished") / f"{key}.safetensors", key, display) as progress:
        results = examine(probes, roles, data, progress)
        found = Judge(files, evaluation, tested, display)(results)
        return _written(group, data, tested, results, found, device, display, command, folder, pictures)


def _written(
    group: list[Subject], data: Data, tested: Mapping[str, str], results: Mapping[str, Result], found: dict[str, dict[str, Any]],
    device: torch.device, display: Display, command: str, folder: Path | None, pictures: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """The summary of an examination, written with its results and pictures where that is asked for."""
    evaluation = group[0].evaluation
    about = {
        "models": {subject.name: subject.described() for subject in group}, "data": data.name, "data_fingerprint": tested,
        "command": command, "device": str(device), "versions": checkpoint.provenance(),
    }  # fmt: skip
    summary = {
        **about, "sizes": dict(data.sizes), "evaluation": [spec.to_json() for spec in evaluation], "results": found,
    }  # fmt: skip
    if folder is not None:
        write_results(folder, results, found, evaluation, about)
        write_json(folder / "summary.json", summary)
    if pictures is not None:
        shown = pictures_of(results, about)
        for picture in shown:
            picture.save(pictures)
        display.note(
            f"pictures   {pictures}: {', '.join(p.name for p in shown)}" if shown else "these probes show no picture"
        )
    return summary


def deterministic(device: torch.device) -> None:
    """fp32 means fp32 (no TF32), and the same kernels every time; bf16 comes from autocast alone."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def pick_device(name: str) -> torch.device:
    """'auto' is the first GPU, else the CPU. Raises `InputError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|(cuda|mps|xpu)(:\d+)?", name):
        raise InputError(f"there is no device {name!r}", help="auto, cpu or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"--device {name}: torch finds no GPU here", help="auto or cpu; `nvidia-smi` and torch's build say why"
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--device {name} cannot be used: {str(error).splitlines()[0]}", help="auto, cpu or cuda:N"
        ) from error
    return device


def make_folder(folder: Path) -> None:
    """Raise `InputError` where no folder can be: before anything long begins."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder cannot be made: {error.strerror}", where=str(folder), help="choose another place"
        ) from error


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)

"""A run: train what a recipe says, look at it after each epoch, save, examine it at the end. The same command again goes on.

The folder holds `config.gin` and `config.json` (the recipe), `environment.json`, `metrics.jsonl` and `metrics.csv`, `checkpoints/`, `probes/` and, at the end,
`summary.json` and `report.html`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from actkit import checkpoint, config
from actkit.datasets import Data
from actkit.errors import CHECK_FAILED, OK, InputError, nearest
from actkit.examine import (
    Judge,
    assert_fits,
    deterministic,
    examine,
    fingerprints,
    key_of,
    numbers,
    read,
    remarked,
    resumable,
    write_json,
    write_results,
)
from actkit.loop import Position, Record, assert_finite, fit
from actkit.noise import seed_for
from actkit.probes import labels
from actkit.registry import Dataset, Objective, Probe, register
from actkit.report import Display, robust_number, unverified
from actkit.roles import Role
from actkit.signals import Stop, stopping, terminable
from actkit.spec import Spec


@register("", "run")
@dataclass(frozen=True, kw_only=True)
class Run:
    """A training and its examination; the root of every recipe.

    Args:
        objective, data: what is trained, on what.
        epochs, batch_size: the length of the training; `steps` ends it earlier, after so many batches in all.
        evaluation: the probes at the end; `monitor`: those after every `monitor_every` epochs, to look at, never to choose by.
        precision: of the training's forward passes. Probes always run in fp32.
        keep: how many checkpoints to keep; one is written every `save_every` epochs, and at the end.
        best: the label of a probe in `monitor` that looks at the split 'val'. Where the headline model's number was highest, that checkpoint is kept,
            examined at the end, and meant by `--ckpt RUN`; None, as in the papers, for the last epoch.
        stop_on_drop: end the training when the headline model's monitored `worst_run` falls by more than this (a fraction) from one look
            to the next: catastrophic overfitting. Without it, a fall of more than 0.15 while the training loss falls is a warning.
        seed: of the initial weights, the order, augmentation and every random start.
        roles: what each role is made of; in a recipe, `role.backbone = ...` and `natural/role.backbone = ...`.
    """

    objective: Objective
    data: Dataset
    epochs: int
    batch_size: int
    steps: int | None = None
    evaluation: list[Probe]
    monitor: list[Probe] = field(default_factory=list)
    monitor_every: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    keep: int = 2
    save_every: int = 1
    best: str | None = None
    stop_on_drop: float | None = None
    seed: int = 0
    roles: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "monitor_every", "keep", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"run.{name} must be at least 1, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"run.steps must be at least 1, got {self.steps}")
        for name in ("evaluation", "monitor"):
            try:
                labels(getattr(self, name))
            except InputError as error:
                raise InputError(f"run.{name}: {error.message}", help=error.help) from None
        for name, parts in self.roles.items():
            if getattr(parts, "average", None) is not None and parts.average_from >= self.epochs:
                raise InputError(
                    f"{name}/role.average_from = {parts.average_from}: the training has {self.epochs} epochs, so nothing would be averaged",
                    help="lower it, or leave role.average out",
                )
        if self.best is not None:
            self._assert_choosable(self.best)
        if self.stop_on_drop is not None and self.watched is None:
            raise InputError(
                "run.stop_on_drop watches probe.robust_accuracy, which is not in run.monitor",
                help="add it, or set run.stop_on_drop = None",
            )

    def _assert_choosable(self, label: str) -> None:
        probes = {probe.spec.title: probe.spec for probe in self.monitor}
        if label not in probes:
            raise InputError(f"run.best = {label!r} is no probe in run.monitor", help=nearest(label, probes))
        if (split := probes[label].get("split") or "test") != "val":
            raise InputError(
                f"run.best = {label!r} would choose a model by the split {split!r}; only 'val' may choose",
                help=f"hold images out with run.data = @dataset.holdout(), and set monitor/probe.{probes[label].name}.split = 'val'",
            )

    @property
    def watched(self) -> str | None:
        """The label of the monitor's first probe of accuracy under attack."""
        return next((probe.spec.title for probe in self.monitor if probe.spec.name == "robust_accuracy"), None)

    def make_roles(self, data: Data, device: torch.device | str, *, first_weights: bool = True) -> dict[str, Role]:
        """The models of this run; their first weights come from `role.weights` where given, unless a checkpoint will bring others."""
        batches = -(-data.sizes["train"] // self.batch_size)
        length = {"epoch": self.epochs, "batch": self.epochs * batches}
        made = {}
        for name, parts in self.roles.items():
            seed = seed_for(self.seed, *name.encode())
            made[name] = parts.make(
                name,
                num_classes=data.num_classes,
                in_chans=data.shape[0],
                seed=seed,
                device=device,
                length=length,
                precision=self.precision,
            )
            _assert_fits(made[name], parts, data)
            if parts.weights is not None and first_weights:
                weights = checkpoint.find(Path(parts.weights))
                chosen = [p for p in weights if p.stem == name] or weights
                if len(chosen) > 1:
                    raise InputError(
                        f"{name}/role.weights could be any of {', '.join(p.name for p in chosen)}", where=parts.weights
                    )
                checkpoint.load_weights(made[name], chosen[0])
        return made


def _assert_fits(role: Role, parts: Any, data: Data) -> None:
    """Show a network two images of the data set's shape."""
    try:
        with role.frozen("eval") as view, torch.no_grad():
            shape = tuple(view(torch.zeros(2, *data.shape, device=role.device)).shape)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{parts.backbone.spec!r} does not take images of {'x'.join(map(str, data.shape))}: {str(error).splitlines()[0]}"
        ) from error
    if shape != (2, data.num_classes):
        raise InputError(
            f"{parts.backbone.spec!r} gives {shape} for 2 images; logits of {data.num_classes} classes are wanted"
        )


def folder_of(recipe: config.Recipe, out: str | None = None) -> Path:
    """Where a run of this recipe goes: always the same place for the same settings."""
    if out is not None:
        return Path(out)
    digest = hashlib.sha256(json.dumps(_identity(recipe.spec).to_json(), sort_keys=True).encode()).hexdigest()[:8]
    seed = recipe.spec.kwargs.get("seed", 0)
    return Path("runs") / Path(recipe.source).stem / f"seed{seed}-{digest}"


def _identity(spec: Spec) -> Spec:
    """What makes a run the run that it is: how its data are fetched and read does not; a seed does, whether it was written or is the default."""
    return spec.replace(data=_at_rest(spec.kwargs["data"]), seed=spec.kwargs.get("seed", 0))


_HOW = {"download", "workers", "timeout"}  # of a data set: no pixel depends on them


def _at_rest(data: Spec) -> Spec:
    kept = {k: _at_rest(v) if isinstance(v, Spec) else v for k, v in data.kwargs.items() if k not in _HOW}
    return Spec(data.kind, data.name, kept)


@dataclass
class Outcome:
    folder: Path
    exit_code: int
    summary: dict[str, Any]


def execute(
    recipe: config.Recipe,
    *,
    out: str | None,
    device: torch.device,
    display: Display,
    command: str,
    tensorboard: bool = False,
) -> Outcome:
    """Run a recipe in its folder, or go on with it, or say that it is done."""
    run: Run = recipe.spec.build()
    folder = folder_of(recipe, out)
    if tensorboard:
        _tensorboard()
    _assert_claimable(folder)
    with checkpoint.locked(folder):
        _claim(folder, recipe)
        done = folder / "summary.json"
        if done.is_file():
            summary = summary_of(folder)
            display.note(f"this run is done: {folder}")
            return Outcome(folder, _code(summary), summary)
        data: Data = run.data()
        assert_fits([*run.evaluation, *run.monitor], data, len(run.objective.roles))
        deterministic(device)
        found, warnings = checkpoint.newest(folder / "checkpoints")
        for warning in warnings:
            display.warn(warning)
        if warnings and found is None:
            raise InputError(
                "no checkpoint of this run is whole",
                where=str(folder),
                help="start again with another --out, or remove the folder",
            )
        roles = run.make_roles(data, device, first_weights=found is None)
        position = Position()
        if found is not None:
            checkpoint.discard_after(found)
            checkpoint.restore(found, roles, position, run.objective)
        display.start(run, data, roles, folder, device, resumed=position if found else None)
        write_json(folder / "environment.json", {"command": command, "device": str(device), **checkpoint.provenance()})
        metrics = _Metrics(folder, position, events=tensorboard)
        trainer = _Trainer(run, recipe, data, roles, position, folder, display, metrics)
        with contextlib.closing(metrics), stopping(display.note) as stop:
            code = trainer.train(stop)
        if code is not None:
            return Outcome(folder, code, {})
        with terminable():
            summary = trainer.examine(command)
        write_json(done, summary)
        return Outcome(folder, _code(summary), summary)


_NEEDED = (
    "recipe", "command", "data", "data_fingerprint", "sizes", "seed", "epochs", "steps", "evaluation", "results", "stopped_early",
)  # fmt: skip  # of a summary
_OF_RESULT = ("numbers", "columns", "threat", "images", "flags")


def summary_of(folder: Path) -> dict[str, Any]:
    """What a finished run found, marked where a later check has raised a red flag. Raises `InputError` for a file that cannot be used."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        missing = [key for key in _NEEDED if key not in summary]
        missing += [f"{n}: {key}" for n, r in summary.get("results", {}).items() for key in _OF_RESULT if key not in r]
        if missing:
            raise ValueError(f"it lacks {missing[0]!r}")
        return marked(folder, summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"this run's summary.json cannot be read: {error}", where=str(folder),
            help="remove that file; the same `actkit run` again examines the models anew",
        ) from error  # fmt: skip


def code_of(folder: Path) -> int:
    """The exit code of a run that is done: that of its own command, or of a check since."""
    return _code(summary_of(folder))


def _code(summary: Mapping[str, Any]) -> int:
    return CHECK_FAILED if summary["stopped_early"] or unverified(summary) else OK


def _assert_claimable(folder: Path) -> None:
    """A folder with anything in it is a run's, or it is left alone."""
    if (
        folder.is_dir()
        and not (folder / "config.json").is_file()
        and any(not p.name.startswith(".") for p in folder.iterdir())
    ):
        raise InputError("the folder is not empty and holds no run", where=str(folder), help="choose another --out")


def _claim(folder: Path, recipe: config.Recipe) -> None:
    """Make the folder that of this recipe. One that holds no checkpoint yet may change its mind: nothing is lost."""
    kept = folder / "config.json"
    mine = Spec.from_json(_identity(recipe.spec).to_json())
    if kept.is_file() and (any(folder.glob("checkpoints/step-*")) or (folder / "summary.json").is_file()):
        other = Spec.from_json(json.loads(kept.read_text(encoding="utf-8")))
        if other != mine:
            changes = config.diff(other, mine)
            shown = "\n".join(f"      {path}: {a!r} there, {b!r} now" for path, a, b in changes[:8])
            raise InputError(
                "the folder holds a run with other settings\n" + shown,
                where=str(folder),
                help="choose another --out; a run's settings do not change",
            )
    write_json(kept, mine.to_json())
    (folder / "config.gin").write_text(recipe.text, encoding="utf-8")


class _Trainer:
    def __init__(
        self,
        run: Run,
        recipe: config.Recipe,
        data: Data,
        roles: dict[str, Role],
        position: Position,
        folder: Path,
        display: Display,
        metrics: _Metrics,
    ) -> None:
        self.run, self.recipe, self.data, self.roles = run, recipe, data, roles
        self.position, self.folder, self.display = position, folder, display
        self.metrics = metrics

    @property
    def headline(self) -> str:
        return self.run.objective.roles[0]

    def train(self, stop: Stop) -> int | None:
        """Train to the end; an exit code when a signal asked for a stop, after saving."""
        run, began, images, last = self.run, time.monotonic(), 0, None
        self._mark_best()
        if self._stopped():  # before this process: all that is left is the evaluation
            return None
        self.display.note(f"reading    {self.data.sizes['train']:,} training images")
        read(self.data, ["train"], self.display)
        train = self.data.train
        with self.display.training(run, self.position) as shown:
            records = fit(
                run.objective, self.roles, train, epochs=run.epochs, batch_size=run.batch_size, seed=run.seed, steps=run.steps,
                position=self.position,
            )  # fmt: skip
            for record in records:
                last, images = record, images + record.images
                shown.batch(record)
                if record.epoch_ended:
                    assert_finite(record, self.roles)
                    entry = self._epoch(record, images / (time.monotonic() - began))
                    began, images = time.monotonic(), 0
                    shown.epoch(entry)
                    if (fallen := self._fallen()) is not None:
                        self.display.warn(fallen)
                    if record.position.epoch % run.save_every == 0 or stop.asked or self._stopped() or self._leads():
                        self.save()
                    if self._stopped():
                        break
                if stop.asked:
                    if checkpoint_step(self.folder) != self.position.step:
                        assert_finite(record, self.roles)
                        self.save()
                    self.display.note(
                        f"stopped by {stop.name} after {self.position.step} batches; the same command goes on from there: {self.folder}"
                    )
                    return stop.exit_code
        if last is not None and checkpoint_step(self.folder) != self.position.step:
            assert_finite(last, self.roles)
            losses = ", ".join(f"{name} {loss:.3f}" for name, loss in last.losses.items())
            self.display.note(f"ended after {self.position.step:,} batches by run.steps; losses: {losses}")
            self.save()
        return None

    def save(self) -> None:
        headers = {name: self._header(name) for name in checkpoint.with_averages(self.roles)}
        checkpoint.save(self.folder / "checkpoints", self.roles, headers, self.position, self.run.objective)
        self._mark_best()
        checkpoint.prune(self.folder / "checkpoints", self.run.keep)

    def _scores(self) -> list[tuple[float, dict[str, Any]]]:
        """The headline model's number under the probe that chooses, and the epoch that it belongs to."""
        name = f"{self.headline}.{self.run.best}"
        found = [(e.get("monitor", {}).get(name), e) for e in self.metrics.entries]
        return [(seen["clean"] if (value := robust_number(seen)) is None else value, e) for seen, e in found if seen]

    def _leads(self) -> bool:
        """Whether the epoch just ended is the best so far."""
        scores = self._scores() if self.run.best else []
        return bool(scores) and max(scores, key=lambda s: s[0])[1] is self.metrics.entries[-1]

    def _mark_best(self) -> None:
        where = self.folder / "checkpoints"
        scores = self._scores() if self.run.best else []
        kept = [(score, entry) for score, entry in scores if checkpoint.has(where, entry["step"])]
        if kept:
            checkpoint.mark_best(where, max(kept, key=lambda s: s[0])[1]["step"])

    def _header(self, role: str) -> dict[str, Any]:
        """What a model's file says of it: enough to rebuild it and to repeat its evaluation."""
        kwargs = self.recipe.spec.kwargs
        return {
            "format": checkpoint.FORMAT,
            "role": role,
            "roles": list(checkpoint.with_averages(self.roles)),
            "backbone": kwargs["roles"][role.partition(".")[0]].kwargs["backbone"].to_json(),
            "num_classes": self.data.num_classes,
            "classes": list(self.data.classes),
            "shape": list(self.data.shape),
            "data": _at_rest(kwargs["data"]).to_json(),
            "evaluation": [probe.to_json() for probe in kwargs["evaluation"]],
            "objective": repr(kwargs["objective"]),
            "seed": self.run.seed,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "versions": checkpoint.versions(),
        }

    def _epoch(self, record: Record, speed: float) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "epoch": record.position.epoch, "step": record.position.step, "images_per_second": round(speed, 1),
            "lr": record.lr, "loss": record.losses,
        }  # fmt: skip
        last = record.position.epoch == self.run.epochs
        if self.run.monitor and (record.position.epoch % self.run.monitor_every == 0 or last):
            entry["monitor"] = numbers(examine(self.run.monitor, checkpoint.with_averages(self.roles), self.data))
        self.metrics.append(entry)
        return entry

    def _looks(self) -> list[tuple[float, float]]:
        """Of each look at the headline model: its accuracy under attack and its training loss."""
        name = f"{self.headline}.{self.run.watched}"
        found = [(e.get("monitor", {}).get(name, {}), e["loss"]) for e in self.metrics.entries]
        return [(robust_number(seen), loss[self.headline]) for seen, loss in found if seen]

    def _fallen(self) -> str | None:
        """Catastrophic overfitting (Wong et al. 2020): robustness is suddenly lost while the training loss goes on falling."""
        if len(looks := self._looks()) < 2 or "monitor" not in self.metrics.entries[-1]:
            return None
        (before, loss_before), (now, loss_now) = looks[-2:]
        limit = self.run.stop_on_drop
        if before - now > (0.15 if limit is None else limit) and (limit is not None or loss_now < loss_before):
            return f"accuracy under attack fell from {100 * before:.1f} to {100 * now:.1f} % in one look: catastrophic overfitting?"
        return None

    def _stopped(self) -> bool:
        return self.run.stop_on_drop is not None and self._fallen() is not None

    def examine(self, command: str) -> dict[str, Any]:
        """The evaluation, each probe's result in a file of its own, and the summary."""
        data = self.data
        files = model_files(self.folder)
        chosen, chosen_by = checkpoint.header(next(iter(files.values()))), bool(self.run.best and self._scores())
        if self.run.best and not chosen_by:
            self.display.warn("run.best had no look to choose by: no epoch ended; the last batch's models are examined")
        roles = checkpoint.with_averages(self.roles)
        for name, role in self.roles.items():
            if role.average is not None and role.averaged is None:
                self.display.warn(f"{name}: the training ended before anything was averaged")
        if chosen["step"] != self.position.step:
            self.display.note(
                f"examining epoch {chosen['epoch']}, the best by {self.run.best} on the validation images, and the last"
            )
            files |= last_files(self.folder)
            device = next(iter(self.roles.values())).device
            roles = {name: checkpoint.load_role(file, device=device)[0] for name, file in files.items()}
        evaluation = [probe.spec for probe in self.run.evaluation]
        tested = fingerprints(data, evaluation, self.display)
        where = self.folder / "probes"
        where.mkdir(exist_ok=True)
        key = key_of(
            list(files.values()),
            self.recipe.spec.kwargs["data"],
            evaluation,
            tested,
            next(iter(self.roles.values())).device,
        )
        self.display.note("evaluation ...")
        with resumable(where / ".unfinished.safetensors", key, self.display) as progress:
            results = examine(self.run.evaluation, roles, data, progress)
        found = Judge(files, evaluation, tested, self.display)(results)
        about = {
            "data": self.recipe.spec.kwargs["data"].to_json(), "data_fingerprint": tested, "step": chosen["step"],
            "command": command, "versions": checkpoint.provenance(),
        }  # fmt: skip
        write_results(where, results, found, evaluation, about)
        return {
            "recipe": self.recipe.source, "command": command, "data": data.name, "data_fingerprint": tested, "sizes": dict(data.sizes),
            "seed": self.run.seed, "epochs": chosen["epoch"], "steps": chosen["step"], "trained_epochs": self.position.epoch,
            "best": self.run.best if chosen_by else None, "stopped_early": self._stopped(),
            "evaluation": [spec.to_json() for spec in evaluation], "results": found, "versions": checkpoint.provenance(),
        }  # fmt: skip


def model_files(folder: Path) -> dict[str, Path]:
    """The model files of a run, by role and in the objective's order: of its best checkpoint where one was chosen, else of its newest."""
    files = checkpoint.find(folder)
    order: list[str] = checkpoint.header(files[0])["roles"]
    return {file.stem: file for file in sorted(files, key=lambda file: order.index(file.stem))}


def last_files(folder: Path) -> dict[str, Path]:
    """Where a run chose another checkpoint than its last: the last's model files, as `<role>.last`."""
    chosen, (newest, _) = checkpoint.best(folder / "checkpoints"), checkpoint.newest(folder / "checkpoints")
    if chosen is None or newest is None or newest == chosen:
        return {}
    found = {}
    files = [file for file in sorted(newest.glob("*.safetensors")) if file.name != "state.safetensors"]
    for name in checkpoint.header(files[0])["roles"]:
        own, before = newest / f"{name}.safetensors", chosen / f"{name}.safetensors"
        # A helper's weights are those of the chosen checkpoint: nothing to examine twice.
        same = before.is_file() and checkpoint.sha256(own) == checkpoint.sha256(before)
        if not same:
            found[f"{name}.last"] = own
    return found


def marked(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """A finished run's summary, marked where a later check has raised a red flag."""
    try:
        files = {**model_files(folder), **last_files(folder)}
    except InputError:  # its checkpoint is damaged or gone: what the run itself found still stands
        return summary
    return remarked(summary, files)


def checkpoint_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in a run's folder."""
    found, _ = checkpoint.newest(folder / "checkpoints")
    return None if found is None else int(found.name.removeprefix("step-"))


class _Metrics:
    """`metrics.jsonl`, one line an epoch, and the same as `metrics.csv`; on request also TensorBoard's events.

    Epochs beyond the checkpoint that a run resumes from, and a torn last line, are dropped.
    """

    def __init__(self, folder: Path, position: Position, *, events: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        self.entries: list[dict[str, Any]] = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    self.entries.append(json.loads(line))
            self.entries = [e for e in self.entries if e["epoch"] <= position.epoch]
            self.path.write_text("".join(json.dumps(e) + "\n" for e in self.entries), encoding="utf-8")
        self._events = _event_writer(folder / "tensorboard", position.step + 1) if events else None

    def append(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        rows = [dict(_flat(e)) for e in self.entries]
        with self.path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            table.writeheader()
            table.writerows(rows)
        if self._events is not None:
            for name, value in rows[-1].items():
                if name not in ("epoch", "step"):
                    self._events.add_scalar(name.replace(".", "/", 1), value, entry["step"])
            self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def _flat(entry: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """{'loss': {'robust': 1.0}} as ('loss.robust', 1.0)."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _event_writer(folder: Path, first_step: int) -> Any:
    """What a resumed run had written from this step on is disowned."""
    return _tensorboard()(str(folder), purge_step=first_step)


def _tensorboard() -> Any:
    """Raises `InputError` where TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs TensorBoard", help="pip install 'actkit[tensorboard]'") from error
    return SummaryWriter

"""A run: train what a recipe says, look at it after each epoch, save, examine it at the end. The same command again goes on.

The folder holds `config.gin` and `config.json` (the recipe), `environment.json`, `metrics.jsonl` and `metrics.csv`, `checkpoints/`, `probes/` and, at the end,
`summary.json` and `report.html`.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actkit.config.compare import diff
from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.display import Display
from actkit.errors import InputError
from actkit.evaluation.examination import assert_fits, examine, fingerprints, numbers, read, write_results
from actkit.evaluation.flags import Judge
from actkit.evaluation.resume import key_of, resumable
from actkit.evaluation.summary import exit_code_of, files_of_run, last_files_of_run, robust_number, summary_of
from actkit.files import locked, write_json
from actkit.machine import deterministic, provenance, versions
from actkit.networks import model_files
from actkit.networks.model_files import checkpoint_step
from actkit.networks.roles import Role, with_averages
from actkit.signals import Stop, stopping, terminable
from actkit.training import checkpoint
from actkit.training.loop import Position, Record, assert_finite, fit
from actkit.training.metrics import Metrics, assert_tensorboard
from actkit.training.run import Run, folder_of, identity_of, without_io_settings


@dataclass
class Outcome:
    folder: Path
    exit_code: int
    summary: dict[str, Any]


def execute(
    recipe: Recipe,
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
        assert_tensorboard()
    _assert_claimable(folder)
    with locked(folder):
        _claim(folder, recipe)
        done = folder / "summary.json"
        if done.is_file():
            summary = summary_of(folder)
            display.say(f"this run is done: {folder}")
            return Outcome(folder, exit_code_of(summary), summary)
        data: Data = run.data()
        assert_fits([*run.evaluation, *run.monitor], data, len(run.objective.roles))
        deterministic(device)
        found, warnings = model_files.newest(folder / "checkpoints")
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
        _announce(run, data, roles, folder, device, display, resumed=position if found else None)
        write_json(folder / "environment.json", {"command": command, "device": str(device), **provenance()})
        metrics = Metrics(folder, position, events=tensorboard)
        trainer = _Trainer(run, recipe, data, roles, position, folder, display, metrics)
        with contextlib.closing(metrics), stopping(display.say) as stop:
            code = trainer.train(stop)
        if code is not None:
            return Outcome(folder, code, {})
        with terminable():
            summary = trainer.examine(command)
        write_json(done, summary)
        return Outcome(folder, exit_code_of(summary), summary)


def _announce(
    run: Run, data: Data, roles: dict[str, Role], folder: Path, device: torch.device, display: Display, *, resumed: Position | None
) -> None:  # fmt: skip
    display.say(f"objective  {run.objective.spec!r}")
    display.say(f"data       {data.name}: {data.counted}, {data.num_classes} classes")
    for name, role in roles.items():
        count = sum(p.numel() for p in role.model.parameters())
        display.say(f"{name:<10} {run.roles[name].backbone.spec!r}: {count:,} parameters")
    display.say(f"run        {folder} on {device}, {run.precision}")
    if resumed is not None:
        display.say(f"resumed    after {resumed.step:,} batches ({resumed.epoch} epochs)")


def _assert_claimable(folder: Path) -> None:
    """A folder with anything in it is a run's, or it is left alone."""
    if (
        folder.is_dir()
        and not (folder / "config.json").is_file()
        and any(not p.name.startswith(".") for p in folder.iterdir())
    ):
        raise InputError("the folder is not empty and holds no run", where=str(folder), help="choose another --out")


def _claim(folder: Path, recipe: Recipe) -> None:
    """Make the folder that of this recipe. One that holds no checkpoint yet may change its mind: nothing is lost."""
    kept = folder / "config.json"
    mine = Spec.from_json(identity_of(recipe.spec).to_json())
    if kept.is_file() and (any(folder.glob("checkpoints/step-*")) or (folder / "summary.json").is_file()):
        other = Spec.from_json(json.loads(kept.read_text(encoding="utf-8")))
        if other != mine:
            changes = diff(other, mine)
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
        recipe: Recipe,
        data: Data,
        roles: dict[str, Role],
        position: Position,
        folder: Path,
        display: Display,
        metrics: Metrics,
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
        self.display.say(f"reading    {self.data.sizes['train']:,} training images")
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
                    self.display.say(
                        f"stopped by {stop.name} after {self.position.step} batches; the same command goes on from there: {self.folder}"
                    )
                    return stop.exit_code
        if last is not None and checkpoint_step(self.folder) != self.position.step:
            assert_finite(last, self.roles)
            losses = ", ".join(f"{name} {loss:.3f}" for name, loss in last.losses.items())
            self.display.say(f"ended after {self.position.step:,} batches by run.steps; losses: {losses}")
            self.save()
        return None

    def save(self) -> None:
        headers = {name: self._header(name) for name in with_averages(self.roles)}
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
            "format": model_files.FORMAT,
            "role": role,
            "roles": list(with_averages(self.roles)),
            "backbone": kwargs["roles"][role.partition(".")[0]].kwargs["backbone"].to_json(),
            "num_classes": self.data.num_classes,
            "classes": list(self.data.classes),
            "shape": list(self.data.shape),
            "data": without_io_settings(kwargs["data"]).to_json(),
            "evaluation": [probe.to_json() for probe in kwargs["evaluation"]],
            "objective": repr(kwargs["objective"]),
            "seed": self.run.seed,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "versions": versions(),
        }

    def _epoch(self, record: Record, speed: float) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "epoch": record.position.epoch, "step": record.position.step, "images_per_second": round(speed, 1),
            "lr": record.lr, "loss": record.losses,
        }  # fmt: skip
        last = record.position.epoch == self.run.epochs
        if self.run.monitor and (record.position.epoch % self.run.monitor_every == 0 or last):
            entry["monitor"] = numbers(examine(self.run.monitor, with_averages(self.roles), self.data))
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
        files = files_of_run(self.folder)
        chosen, chosen_by = model_files.header(next(iter(files.values()))), bool(self.run.best and self._scores())
        if self.run.best and not chosen_by:
            self.display.warn("run.best had no look to choose by: no epoch ended; the last batch's models are examined")
        roles = with_averages(self.roles)
        for name, role in self.roles.items():
            if role.average is not None and role.averaged is None:
                self.display.warn(f"{name}: the training ended before anything was averaged")
        if chosen["step"] != self.position.step:
            self.display.say(
                f"examining epoch {chosen['epoch']}, the best by {self.run.best} on the validation images, and the last"
            )
            files |= last_files_of_run(self.folder)
            device = next(iter(self.roles.values())).device
            roles = {name: model_files.load_role(file, device=device)[0] for name, file in files.items()}
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
        self.display.say("evaluation ...")
        with resumable(where / ".unfinished.safetensors", key, self.display) as progress:
            results = examine(self.run.evaluation, roles, data, progress)
        found = Judge(files, evaluation, tested, self.display)(results)
        about = {
            "data": self.recipe.spec.kwargs["data"].to_json(), "data_fingerprint": tested, "step": chosen["step"],
            "command": command, "versions": provenance(),
        }  # fmt: skip
        write_results(where, results, found, evaluation, about)
        return {
            "recipe": self.recipe.source, "command": command, "data": data.name, "data_fingerprint": tested, "sizes": dict(data.sizes),
            "seed": self.run.seed, "epochs": chosen["epoch"], "steps": chosen["step"], "trained_epochs": self.position.epoch,
            "best": self.run.best if chosen_by else None, "stopped_early": self._stopped(),
            "evaluation": [spec.to_json() for spec in evaluation], "results": found, "versions": provenance(),
        }  # fmt: skip

"""A run: train what a recipe says, look at it after each epoch, save, examine it at the end. The same command again goes on.

The folder holds `config.gin` and `config.json` (the recipe), `environment.json`, `metrics.jsonl` and `metrics.csv`, `checkpoints/`, `probes/` and, at the end,
`summary.json` and `report.html`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from actkit.config.recipe import Recipe
from actkit.datasets import Data
from actkit.display import Display
from actkit.errors import InputError
from actkit.evaluation.examination import assert_fits, examine, read
from actkit.evaluation.looks import EpochLine
from actkit.evaluation.summary import Summary
from actkit.files import write_json
from actkit.machine import deterministic, provenance
from actkit.networks import model_files
from actkit.networks.model_files import checkpoint_step
from actkit.networks.roles import Role, examined
from actkit.signals import Stop, stopping, terminable
from actkit.training import checkpoint
from actkit.training.best import Score, assert_watchable, best_step, scores
from actkit.training.final import examine_run
from actkit.training.folder import RunFolder
from actkit.training.forecast import Forecast
from actkit.training.loop import Position, Record, assert_finite, fit
from actkit.training.metrics import Metrics, assert_tensorboard
from actkit.training.overfitting import Fall, last_look, sudden_fall
from actkit.training.run import Run, assert_last_batch, assert_takes_labels, batch_note
from actkit.training.state import Training, headers_of


@dataclass
class Outcome:
    folder: Path
    exit_code: int
    # None where the run is not done.
    summary: Summary | None


def execute(
    recipe: Recipe,
    *,
    out: str | None,
    device: torch.device,
    display: Display,
    command: str,
    tensorboard: bool = False,
) -> Outcome:
    """Run a recipe in its folder, or go on with it, or say that it is done: claim the folder, build, restore, train, examine.

    Raises `InputError` for what cannot be used, `ActkitError` where the training diverges or a disk fails.
    """
    run: Run = recipe.spec.build()
    place = RunFolder.of(recipe, out)
    folder = place.path
    if tensorboard:
        assert_tensorboard()
    with place.claimed(display):
        done = folder / "summary.json"
        if done.is_file():
            summary = Summary.load(folder)
            display.say(f"this run is done: {folder}")
            return Outcome(folder, summary.exit_code, summary)
        data: Data = run.data()
        assert_takes_labels(run, data)
        deterministic(device)
        roles, position = _restored(run, data, folder, device, display)
        assert_fits([*run.evaluation, *run.monitor], data, sum(role.classifies for role in roles.values()))
        assert_last_batch(run, data, roles)
        training = Training(run, recipe.source, data, roles, headers_of(run, data), position, folder)
        _announce(training, device, display)
        environment = {
            "command": command,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "parameters": {name: _parameters(role) for name, role in roles.items()},
            **provenance(),
        }
        write_json(folder / "environment.json", environment)
        metrics = Metrics(folder, position, events=tensorboard)
        trainer = _Trainer(training, display, metrics)
        with contextlib.closing(metrics), stopping(display.say) as stop:
            code = trainer.train(stop)
        if code is not None:
            return Outcome(folder, code, None)
        began = time.monotonic()
        with _stopped_examining(display, folder), terminable():
            summary = trainer.examine(command)
        write_json(
            folder / "environment.json", {**environment, "examination_seconds": round(time.monotonic() - began, 1)}
        )
        summary.save(folder)
        return Outcome(folder, summary.exit_code, summary)


def _restored(
    run: Run, data: Data, folder: Path, device: torch.device, display: Display
) -> tuple[dict[str, Role], Position]:
    """The run's models and where their training stands: at its newest whole checkpoint, or at the beginning.

    Raises `InputError` where there are checkpoints and none is whole.
    """
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
    if found is None:
        return roles, Position()
    checkpoint.discard_after(found)
    return roles, checkpoint.restore(found, roles, run.objective)


def _announce(training: Training, device: torch.device, display: Display) -> None:
    """The first lines of a run: what is trained, on what, against what, how it will be examined, where."""
    run, data, position = training.run, training.data, training.position
    batches = -(-data.sizes["train"] // run.batch_size)
    length = f"{run.epochs:,} epoch{'s' if run.epochs != 1 else ''} of {batches:,} batches of {run.batch_size:,}"
    if run.steps is not None:
        length += f", {run.steps:,} batches at most"
    display.say(f"trains     {' and '.join(run.roles)}: {length}, {run.precision}, seed {run.seed}")
    display.say(f"objective  {run.objective.spec!r}")
    for name, role in training.roles.items():
        display.say(f"{name:<10} {run.roles[name].backbone.spec!r}: {_parameters(role):,} parameters")
        for note in role.notes:
            display.say(f"{'':<10} {note}")
    display.say(
        f"data       {data.name}: {data.counted} of {'x'.join(map(str, data.shape))}, {data.num_classes} classes"
    )
    for note in data.notes:
        display.say(f"           {note}")
    if (unfilled := batch_note(run, data)) is not None:
        display.warn(unfilled)
    display.say(f"examined   at the end by {', '.join(probe.spec.title for probe in run.evaluation)}")
    display.say(f"run        {training.folder} on {device}")
    if position.step:
        display.say(f"resumed    after {position.step:,} batches ({position.epoch} epochs)")


def _parameters(role: Role) -> int:
    return sum(p.numel() for p in role.model.parameters())


@contextlib.contextmanager
def _stopped_examining(display: Display, folder: Path) -> Iterator[None]:
    """Say what is left of an examination that a signal ends."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        display.say(
            f"stopped while examining: the models are trained and saved, and what is measured so far is kept; the same command goes on from there: {folder}"
        )
        raise


@dataclass
class _Speed:
    """Training images a second, of one epoch in this process."""

    images: int = 0
    began: float = field(default_factory=time.monotonic)

    def rate(self) -> float:
        return self.images / (time.monotonic() - self.began)


class _Trainer:
    """The training of one run, and the examination of what it made."""

    def __init__(self, training: Training, display: Display, metrics: Metrics) -> None:
        self.training, self.display, self.metrics = training, display, metrics
        self.run, self.data, self.roles = training.run, training.data, training.roles
        self.position, self.folder, self.headline = training.position, training.folder, training.headline
        self.forecast = Forecast(training)

    def train(self, stop: Stop) -> int | None:
        """Train to the end; an exit code when a signal asked for a stop, after saving."""
        self._mark_best()
        # It may have been stopped before this process: all that is left is the evaluation.
        if self._stopped():
            return None
        self.display.say(f"reading    {self.data.sizes['train']:,} training images")
        read(self.data, ["train"], self.display)
        record, speed = None, _Speed()
        with self.display.training(self.run) as shown:
            shown.expect(self.forecast)
            for record in self._fit():
                self.forecast.batch()
                shown.batch(record)
                speed.images += record.images
                if record.epoch_ended:
                    assert_finite(record, self.roles)
                    shown.epoch(self._line(record, speed.rate()))
                    speed = _Speed()
                    if (fall := self._fall()) is not None:
                        self.display.warn(str(fall))
                    self._save_if_due(stop)
                    # A signal comes first: the examination can wait for the same command.
                    if self._stopped() and not stop.asked:
                        break
                if stop.asked:
                    self._save_where_it_ends(record)
                    self.display.say(
                        f"stopped by {stop.name} after {self.position.step} batches; the same command goes on from there: {self.folder}"
                    )
                    return stop.exit_code
        if record is not None:
            self._save_where_it_ends(record)
            if not record.epoch_ended:
                losses = ", ".join(f"{name} {loss:.3f}" for name, loss in record.losses.items())
                self.display.say(f"ended after {self.position.step:,} batches by run.steps; losses: {losses}")
        return None

    def _fit(self) -> Iterator[Record]:
        run = self.run
        return fit(
            run.objective,
            self.roles,
            self.data.train,
            epochs=run.epochs,
            batch_size=run.batch_size,
            seed=run.seed,
            steps=run.steps,
            position=self.position,
            accumulate=run.accumulate,
        )

    def _line(self, record: Record, speed: float) -> EpochLine:
        """The line of metrics of an epoch that has ended, the monitored probes among it where it is their turn."""
        line = EpochLine(record.position.epoch, record.position.step, round(speed, 1), record.lr, record.losses)
        last = record.position.epoch == self.run.epochs
        if self.run.monitor and (record.position.epoch % self.run.monitor_every == 0 or last):
            began = time.monotonic()
            results = examine(self.run.monitor, examined(self.roles), self.data)
            self.forecast.looked(time.monotonic() - began)
            assert_watchable(results, self.headline, best=self.run.best, stop_on_drop=self.run.stop_on_drop)
            line = line.with_looks(results)
        self.metrics.append(line)
        return line

    def _scores(self) -> list[Score]:
        return scores(self.metrics.lines, self.headline, self.run.best)

    def _fall(self) -> Fall | None:
        return sudden_fall(self.metrics.lines, self.headline, limit=self.run.stop_on_drop)

    def _stopped(self) -> bool:
        """Whether a fall of robustness has ended this training."""
        return self.run.stop_on_drop is not None and self._fall() is not None

    def _chosen(self, among: Collection[int] | None = None) -> int | None:
        """The step of the models to use, of those `among` these; None for the last: the best by `run.best`, or the last before a fall that ended the training."""
        fall = self._fall() if self._stopped() and self.run.best is None else None
        if fall is None:
            return best_step(self._scores(), among)
        return fall.step if among is None or fall.step in among else None

    def _to_go_back_to(self) -> int | None:
        """The step of the newest look, where a fall since then would end the training."""
        return None if self.run.stop_on_drop is None else last_look(self.metrics.lines, self.headline)

    def _save_if_due(self, stop: Stop) -> None:
        """At the end of an epoch."""
        wanted = self.position.step in (self._chosen(), self._to_go_back_to())
        last = bool(stop.asked) or self._stopped()
        if checkpoint.is_due(self.position.epoch, every=self.run.save_every, last=last, best=wanted):
            self.save()

    def _save_where_it_ends(self, record: Record) -> None:
        """After the last batch of this process, unless that is saved already."""
        if checkpoint_step(self.folder) == self.position.step:
            return
        assert_finite(record, self.roles)
        self.save()

    def save(self) -> None:
        headers = self.training.headers_now()
        checkpoint.save(self.folder / "checkpoints", self.roles, headers, self.position, self.run.objective)
        self._mark_best()
        checkpoint.prune(self.folder / "checkpoints", self.run.keep, also=self._to_go_back_to())

    def _mark_best(self) -> None:
        """Say which of the checkpoints that are there is the one to use, where that is not the newest."""
        where = self.folder / "checkpoints"
        step = self._chosen(checkpoint.steps(where))
        if step is not None:
            checkpoint.mark_best(where, step)

    def examine(self, command: str) -> Summary:
        """The evaluation that the run ends with."""
        return examine_run(
            self.training, self.display, command=command, looked=bool(self._scores()), stopped_early=self._stopped()
        )

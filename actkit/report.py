"""What a person sees: the live display of a training, the table at its end. Results go to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from actkit.spec import Spec


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def columns(evaluation: list[Spec]) -> list[tuple[str, str, str]]:
    """The table's columns: (probe, number, title). The paper's A_rob is the worst run."""
    found = []
    for spec in evaluation:
        if spec.name == "accuracy":
            found.append((spec.name, "clean", "clean"))
        elif spec.name == "pgd":
            name = f"PGD-{spec.kwargs['attack'].kwargs.get('steps', '?')}"
            found += [
                (spec.name, "worst_run", f"{name} worst run"),
                (spec.name, "worst_case", f"{name} per-example worst"),
            ]
    return found


def rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a summary: one row a model; what has no column of its own gets one by its name."""
    evaluation = [Spec.from_json(e) for e in summary["evaluation"]]
    wanted = columns(evaluation)
    known, titled = (
        {probe for probe, _, _ in wanted},
        {title for _, _, title in wanted},
    )  # what has a title is an accuracy
    for name, values in summary["results"].items():
        probe = name.rpartition(".")[2]
        if probe not in known:
            wanted += [
                (probe, number, f"{probe} {number}")
                for number in values
                if (probe, number, f"{probe} {number}") not in wanted
            ]
    models = list(dict.fromkeys(name.rpartition(".")[0] for name in summary["results"]))
    body = []
    for model in models:
        cells = [summary["results"].get(f"{model}.{probe}", {}).get(number) for probe, number, _ in wanted]
        shown = [percent if title in titled else "{:.4g}".format for _, _, title in wanted]
        body.append([model, *("-" if c is None else show(c) for c, show in zip(cells, shown, strict=True))])
    return ["model", *(title for _, _, title in wanted)], body


def caption(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers mean: data, seed and every probe's settings."""
    epochs, steps = summary["epochs"], summary["steps"]
    lines = [f"percent; {summary['data']}, seed {summary['seed']}, {epochs} epochs ({steps:,} batches)"]
    for probe in map(Spec.from_json, summary["evaluation"]):
        split, limit = probe.kwargs.get("split", "test"), probe.kwargs.get("limit")
        size = summary["sizes"][split]
        count = f"{size:,}" if limit is None or limit >= size else f"{limit:,} of {size:,}"
        lines.append(f"{probe!r} on {count} {split} images")
    return lines


def print_table(console: Console, summary: Mapping[str, Any]) -> None:
    titles, body = rows(summary)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    for title in titles:
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    console.print(table)
    for line in caption(summary):
        console.print(line, style="dim", highlight=False, soft_wrap=True, markup=False)


class Display:
    """Tells on stderr what happens: live in a terminal, one plain line an epoch elsewhere."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet

    def say(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self.console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        self.say(text)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True, markup=False)

    def probing(self, name: str) -> None:
        if self.console.is_terminal:
            self.say(f"  {name}", "dim")

    def start(self, run: Any, data: Any, roles: Mapping[str, Any], folder: Path, device: Any, *, resumed: Any) -> None:
        self.say(f"objective  {run.objective.spec!r}")
        self.say(
            f"data       {data.name}: {data.sizes['train']:,} training and {data.sizes['test']:,} test images, {data.num_classes} classes"
        )
        for name, role in roles.items():
            count = sum(p.numel() for p in role.model.parameters())
            self.say(f"{name:<10} {run.roles[name].backbone.spec!r}: {count:,} parameters")
        self.say(f"run        {folder} on {device}, {run.precision}")
        if resumed is not None:
            self.say(f"resumed    after {resumed.step:,} batches ({resumed.epoch} epochs)")

    @contextlib.contextmanager
    def training(self, run: Any, position: Any) -> Iterator[_Plain | _Live]:
        if self.quiet or not self.console.is_terminal:
            yield _Plain(self, run)
            return
        live = _Live(self, run, position)
        with Live(live.progress, console=self.console, refresh_per_second=8):
            yield live


def describe(entry: Mapping[str, Any]) -> str:
    """One epoch on one line: losses and the monitored accuracies by role."""
    parts = []
    seen = entry.get("monitor", {})
    for role, loss in entry["loss"].items():
        text = f"{role}: loss {loss:.3f}"
        for probe, number, word in (("accuracy", "clean", "clean"), ("pgd", "worst_run", "robust")):
            value = seen.get(f"{role}.{probe}", {}).get(number)
            if value is not None:
                text += f" {word} {100 * value:.1f}"
        parts.append(text)
    return " | ".join(parts)


class _Plain:
    def __init__(self, display: Display, run: Any) -> None:
        self.display, self.run, self.began = display, run, time.monotonic()
        self.first: int | None = None

    def batch(self, record: Any) -> None:
        pass

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self.first = entry["epoch"] if self.first is None else self.first
        done = entry["epoch"] - self.first + 1
        left = (time.monotonic() - self.began) / done * (self.run.epochs - entry["epoch"])
        self.display.say(
            f"epoch {entry['epoch']}/{self.run.epochs}  {describe(entry)}  {entry['images_per_second']:.0f} images/s  {_duration(left)} left"
        )


class _Live(_Plain):
    def __init__(self, display: Display, run: Any, position: Any) -> None:
        super().__init__(display, run)
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[losses]}"), TimeRemainingColumn(compact=True), console=display.console,
        )  # fmt: skip
        self.task: Any = None
        self.position = position
        self.read = 0.0
        self.seconds, self.images = 0.0, 0

    def batch(self, record: Any) -> None:
        if self.task is None:
            total = min(self.run.epochs * record.batches, self.run.steps or self.run.epochs * record.batches)
            self.task = self.progress.add_task(
                "", total=total, completed=record.position.step, epoch="", speed="", losses=""
            )
        self.seconds, self.images = self.seconds + record.seconds, self.images + record.images
        now = time.monotonic()
        if now - self.read < 0.5 and not record.epoch_ended:  # reading the losses waits for the device
            self.progress.update(self.task, completed=record.position.step)
            return
        self.read = now
        epoch = record.position.epoch + (not record.epoch_ended)
        losses = " ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
        self.progress.update(
            self.task, completed=record.position.step, epoch=f"{epoch}/{self.run.epochs}", losses=f"loss {escape(losses)}",
            speed=f"{self.images / max(self.seconds, 1e-9):.0f} images/s",
        )  # fmt: skip

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self.display.say(f"epoch {entry['epoch']}/{self.run.epochs}  {describe(entry)}")
        self.seconds, self.images = 0.0, 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"

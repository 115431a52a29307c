"""What a person sees: the live display of a training, the table at its end. Results go to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from actkit.display import Display, Tell, TrainingView, listening
from actkit.evaluation.looks import EpochLine
from actkit.evaluation.summary import Summary
from actkit.reports.rows import UNVERIFIED, rows, summary_caption

_STYLES = {"green": "green", "yellow": "yellow", "red": "bold red"}


def _width(table: list[list[str]]) -> int:
    return sum(max(map(len, column)) + 4 for column in zip(*table, strict=True))


def print_table(console: Console, summary: Summary, *, every_flag: bool = False) -> None:
    """The table, what the checks found (the green ones counted, or, if `every_flag`, written out), and what the numbers mean."""
    titles, body = rows(summary)
    if len(titles) > 1:
        # A row for each number, rather than numbers cut off.
        if console.is_terminal and _width([titles, *body]) > console.width:
            titles, *body = map(list, zip(titles, *body, strict=True))
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
        for i, title in enumerate(titles):
            table.add_column(escape(title), justify="right" if i else "left", no_wrap=True)
        for row in body:
            table.add_row(*map(escape, row), style="red" if any(cell.endswith(UNVERIFIED) for cell in row) else "")
        before, console.width = console.width, max(console.width, _width([titles, *body]))
        console.print(table)
        console.width = before
    for said in summary.because:
        console.print(f"{UNVERIFIED}: {said}", style="bold red", highlight=False, soft_wrap=True, markup=False)
    for model, found in summary.flags.items():
        counts = [f"{sum(flag.level == level for flag in found)} {level}" for level in _STYLES]
        console.print(f"checks of {model}: {', '.join(counts)}", highlight=False, markup=False)
        for flag in found:
            if every_flag or flag.level != "green":
                text = f"  {flag.level:<6} {flag.check}: {flag.said}"
                console.print(text, style=_STYLES[flag.level], highlight=False, soft_wrap=True, markup=False)
    for line in summary_caption(summary):
        console.print(line, style="dim", highlight=False, soft_wrap=True, markup=False)


class Terminal(Display):
    """Tells on stderr what happens: live in a terminal, one plain line an epoch elsewhere."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet

    def say(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self.console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """A bar in a terminal, elsewhere a line every half minute."""
        with self._listener() as listener, listening(listener):
            yield

    @contextlib.contextmanager
    def _listener(self) -> Iterator[Tell]:
        if self.quiet:
            yield lambda what, part, parts: None
        elif self.console.is_terminal:
            bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
            )
            tasks: dict[str, Any] = {}
            with bar:

                def tell(what: str, part: int, parts: int) -> None:
                    if what not in tasks:
                        for old in tasks.values():
                            bar.update(old, visible=False)
                        tasks[what] = bar.add_task(escape(what), total=parts)
                    bar.update(tasks[what], completed=part - 1, total=parts)

                yield tell
        else:
            said = time.monotonic()

            def line(what: str, part: int, parts: int) -> None:
                nonlocal said
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    self.say(f"  {what}: {part:,} of {parts:,}")

            yield line

    @contextlib.contextmanager
    def training(self, run: Any) -> Iterator[TrainingView]:
        if self.quiet or not self.console.is_terminal:
            yield _Plain(self, run)
            return
        live = _Live(self, run)
        with Live(live.progress, console=self.console, refresh_per_second=8):
            yield live


def describe(line: EpochLine) -> str:
    """One epoch on one line: losses and what the monitor watches, by role."""
    parts = []
    seen = line.seen
    for role, loss in line.loss.items():
        text = f"{role}: loss {loss:.3f}"
        for look in seen:
            if look.name.model == role and look.value is not None:
                text += f" {look.shown}"
        parts.append(text)
    return " | ".join(parts)


class _Plain(TrainingView):
    def __init__(self, display: Terminal, run: Any) -> None:
        self.display, self.run, self.began = display, run, time.monotonic()
        self.first: int | None = None

    def epoch(self, line: EpochLine) -> None:
        self.first = line.epoch if self.first is None else self.first
        done = line.epoch - self.first + 1
        left = (time.monotonic() - self.began) / done * (self.run.epochs - line.epoch)
        self.display.say(
            f"epoch {line.epoch}/{self.run.epochs}  {describe(line)}  {line.images_per_second:.0f} images/s  {_duration(left)} left"
        )


class _Live(_Plain):
    def __init__(self, display: Terminal, run: Any) -> None:
        super().__init__(display, run)
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(compact=True),
            console=display.console,
        )
        self.task: Any = None
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
        # Reading the losses waits for the device.
        if now - self.read < 0.5 and not record.epoch_ended:
            self.progress.update(self.task, completed=record.position.step)
            return
        self.read = now
        epoch = record.position.epoch + (not record.epoch_ended)
        losses = " ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
        self.progress.update(
            self.task,
            completed=record.position.step,
            epoch=f"{epoch}/{self.run.epochs}",
            losses=f"loss {escape(losses)}",
            speed=f"{self.images / max(self.seconds, 1e-9):.0f} images/s",
        )

    def epoch(self, line: EpochLine) -> None:
        self.display.say(f"epoch {line.epoch}/{self.run.epochs}  {describe(line)}")
        self.seconds, self.images = 0.0, 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"

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
from rich.text import Text

from actkit.display import Display, Tell, TimeLeft, TrainingView, duration, listening
from actkit.evaluation.looks import EpochLine, images_of_all, watched_in_words
from actkit.evaluation.summary import Summary
from actkit.reports import words
from actkit.reports.rows import UNVERIFIED, rows, summary_caption

# A bar is drawn again after so many seconds at the soonest; where there is none, a line is said after so many at the soonest.
_REDRAWN, _SAID, _BAR = 0.5, 60, 20
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
        thin = words.thin_evidence(summary, model)
        said = f"checks of {model}: {', '.join(counts)}" + (f"; that says little: {thin}" if thin else "")
        console.print(said, highlight=False, soft_wrap=True, markup=False)
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
    def progress(self, left: TimeLeft | None = None) -> Iterator[None]:
        """A bar in a terminal, elsewhere a line every half minute; with the time that is left of all of it, where that is known."""
        with self._listener(left) as listener, listening(listener):
            yield

    @contextlib.contextmanager
    def _listener(self, left: TimeLeft | None) -> Iterator[Tell]:
        if self.quiet:
            yield lambda what, part, parts: None
        elif self.console.is_terminal:
            bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}") if left else TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
                # Drawn when something has changed, not all the time: a bar that is drawn again and again flickers.
                auto_refresh=False,
            )
            tasks: dict[str, Any] = {}
            drawn = 0.0
            with bar:

                def tell(what: str, part: int, parts: int) -> None:
                    nonlocal drawn
                    new = what not in tasks
                    if new:
                        for old in tasks.values():
                            bar.update(old, visible=False)
                        tasks[what] = bar.add_task(escape(what), total=parts, left="")
                    bar.update(tasks[what], completed=part - 1, total=parts, left=_left(left))
                    if new or time.monotonic() - drawn > _REDRAWN:
                        drawn = time.monotonic()
                        bar.refresh()

                yield tell
        else:
            said = time.monotonic()

            def line(what: str, part: int, parts: int) -> None:
                nonlocal said
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    self.say(f"  {what}: {part:,} of {parts:,}{', ' if left else ''}{_left(left)}")

            yield line

    @contextlib.contextmanager
    def training(self, run: Any) -> Iterator[TrainingView]:
        if self.quiet or not self.console.is_terminal:
            yield _Plain(self, run)
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            yield _Live(self, run, live)


def _left(left: TimeLeft | None) -> str:
    """The time that is left of everything."""
    return f"{duration(left.left)} left in all" if left else ""


def describe(line: EpochLine) -> str:
    """One epoch on one line: losses and what the monitor watches, by role; on how many images, once where all looks saw as many."""
    images = images_of_all(line.seen)
    parts = " | ".join(f"{role}: {text}" for role, text in _by_role(line, images))
    return parts if images is None else f"{parts} ({images:,} images)"


def _by_role(line: EpochLine, images: int | None) -> Iterator[tuple[str, str]]:
    for role, loss in line.loss.items():
        seen = watched_in_words([look for look in line.seen if look.name.model == role], images)
        yield role, f"loss {loss:.3f}" + (f", {seen}" if seen else "")


class _Plain(TrainingView):
    """A line an epoch, and one a minute while an epoch lasts."""

    def __init__(self, display: Terminal, run: Any) -> None:
        self.display, self.run = display, run
        self.forecast: Any = None
        self.timed = False
        self.said = time.monotonic()

    def expect(self, forecast: Any) -> None:
        self.forecast = forecast

    def batch(self, record: Any) -> None:
        self._say_time()
        if time.monotonic() - self.said > _SAID and not record.epoch_ended:
            self.said = time.monotonic()
            epoch, batch = record.position.epoch + 1, record.position.batch
            self.display.say(
                f"epoch {epoch}/{self.run.epochs}  batch {batch:,} of {record.batches:,}  {_losses(record)}{self._left()}"
            )

    def epoch(self, line: EpochLine) -> None:
        self.said = time.monotonic()
        self.display.say(
            f"epoch {line.epoch}/{self.run.epochs}  {describe(line)}  {line.images_per_second:.0f} images/s{self._left()}"
        )

    def _say_time(self) -> None:
        """How long the run takes, once, as soon as that is known."""
        if self.timed or self.forecast is None or not self.forecast.ready:
            return
        self.timed, left = True, self.forecast.left()
        parts = {"of training": left.training, "of looks at it": left.looks, "of examination at most": left.examination}
        said = ", ".join(f"{duration(seconds)} {what}" for what, seconds in parts.items() if seconds)
        self.display.say(f"time       about {duration(left.seconds)} left: {said}")

    def _left(self) -> str:
        """The examination included; '' before that is known."""
        left = None if self.forecast is None else self.forecast.left()
        return f"  {duration(left.seconds)} left" if left else ""


class _Live(_Plain):
    """A bar that is drawn again where its text has changed; above it a line an epoch."""

    def __init__(self, display: Terminal, run: Any, live: Live) -> None:
        super().__init__(display, run)
        self.live = live
        self.drawn, self.text = 0.0, Text()
        self.seconds, self.images = 0.0, 0

    def batch(self, record: Any) -> None:
        self._say_time()
        self.seconds, self.images = self.seconds + record.seconds, self.images + record.images
        now = time.monotonic()
        # Reading the losses waits for the device.
        if now - self.drawn < _REDRAWN and not record.epoch_ended:
            return
        self.drawn, text = now, self._bar(record)
        if text != self.text:
            self.text = text
            self.live.update(text, refresh=True)

    def _bar(self, record: Any) -> Text:
        batches = self.run.epochs * record.batches
        total, step = min(batches, self.run.steps or batches), record.position.step
        epoch = record.position.epoch + (not record.epoch_ended)
        utf = self.display.console.encoding.startswith("utf")
        full = min(_BAR * step // max(total, 1), _BAR)
        text = Text(f"epoch {epoch}/{self.run.epochs} ", no_wrap=True, overflow="ellipsis" if utf else "crop")
        # Told apart by more than their colour.
        text.append(("━" if utf else "#") * full, "bar.complete")
        text.append(("─" if utf else "-") * (_BAR - full), "bar.back")
        speed = self.images / max(self.seconds, 1e-9)
        return text.append(f" {step:,}/{total:,}{self._left()}  {speed:,.0f} images/s  {_losses(record)}")

    def epoch(self, line: EpochLine) -> None:
        begins, said = f"epoch {line.epoch}/{self.run.epochs}  ", describe(line)
        if len(begins) + len(said) > self.display.console.width:
            # A line for each role, one below the other.
            by_role = list(_by_role(line, None))
            width = max(len(role) for role, _ in by_role)
            said = f"\n{' ' * len(begins)}".join(f"{role:<{width}}  {text}" for role, text in by_role)
        self.display.say(begins + said)
        self.seconds, self.images = 0.0, 0


def _losses(record: Any) -> str:
    return "loss " + " ".join(f"{name} {value:.3f}" for name, value in record.losses.items())

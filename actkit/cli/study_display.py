"""What a person sees of a study while it runs: a bar in a terminal, with a line for each cell under way; elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actkit.cli.display import Terminal
from actkit.display import duration
from actkit.training.study_progress import StudyProgress, roughly

# Seconds between two lines, where there is no terminal.
EVERY = 600


@contextlib.contextmanager
def watching(display: Terminal) -> Iterator[Callable[[StudyProgress], None]]:
    """What to call with how far the study is."""
    if display.quiet:
        yield lambda progress: None
    elif display.console.is_terminal:
        with Live(console=display.console, auto_refresh=False, transient=True) as live:
            yield _Bar(live)
    else:
        yield _Lines(display)


class _Bar:
    """Drawn anew where something on it has changed."""

    def __init__(self, live: Live) -> None:
        self.live, self.shown = live, ""

    def __call__(self, progress: StudyProgress) -> None:
        drawn = drawing(progress)
        console = Console(width=self.live.console.width, color_system=None)
        with console.capture() as captured:
            console.print(drawn)
        if captured.get() != self.shown:
            self.shown = captured.get()
            self.live.update(drawn, refresh=True)


def drawing(progress: StudyProgress) -> Group:
    """The bar of the whole study, and a line for each cell that is being run."""
    left = "" if progress.left is None else f"{roughly(progress.left)} left"
    whole = Table.grid(padding=(0, 1))
    whole.add_row(
        "study", ProgressBar(1.0, progress.fraction, width=24), f"{progress.ended} of {progress.cells} cells", left
    )
    cells = Table.grid(padding=(0, 2))
    for one in progress.running:
        cells.add_row(Text(f"  {one.title}"), one.doing, f"{100 * one.fraction:.0f} %", duration(int(one.seconds)))
    return Group(whole, cells)


class _Lines:
    """A line every ten minutes."""

    def __init__(self, display: Terminal) -> None:
        self.display, self.said = display, time.monotonic()

    def __call__(self, progress: StudyProgress) -> None:
        if time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            self.display.say(described(progress))


def described(progress: StudyProgress) -> str:
    """How far a study is, in a line."""
    running = [f"{one.title} {one.doing} ({100 * one.fraction:.0f} %)" for one in progress.running]
    left = [] if progress.left is None else [f"{roughly(progress.left)} left"]
    return "; ".join([f"{progress.ended} of {progress.cells} cells", *running, *left])

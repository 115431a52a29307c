"""What long work says, and how far it is. Whoever works speaks to a `Display` and to `tell`; whoever runs it decides what is shown.

This one is silent: what a notebook or a test wants. `actkit.cli.display.Terminal` is a person's.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

# What is done, which part of it, of how many at most.
Tell = Callable[[str, int, int], Any]

_tell: contextvars.ContextVar[Tell] = contextvars.ContextVar("tell", default=lambda what, part, parts: None)


def tell(what: str, part: int, parts: int) -> None:
    """Say how far a download, the reading of a data set, or an examination is."""
    _tell.get()(what, part, parts)


@contextlib.contextmanager
def listening(listener: Tell) -> Iterator[None]:
    """Meanwhile, `tell` is heard by this listener."""
    before = _tell.set(listener)
    try:
        yield
    finally:
        _tell.reset(before)


class TrainingView:
    """What is shown of a training: told of every batch, and of every epoch with its line of metrics; it may ask a forecast how long the run still takes."""

    def expect(self, forecast: Any) -> None: ...

    def batch(self, record: Any) -> None: ...

    def epoch(self, line: Any) -> None: ...


class Display:
    """Says nothing."""

    def say(self, text: str, style: str = "") -> None:
        """A line of what happens."""

    def warn(self, text: str) -> None:
        """What its reader should not miss."""

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Meanwhile, what `tell` says is shown."""
        yield

    @contextlib.contextmanager
    def training(self, run: Any) -> Iterator[TrainingView]:
        """Meanwhile, a training is shown."""
        yield TrainingView()


def duration(seconds: float) -> str:
    """A time in words: '12 ms', '4.2 s', '45 s', '12 min', '3 h 20 min', '2.5 days'."""
    if seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 and rest else f"{hours} h" if hours < 48 else f"{hours / 24:.1f} days"

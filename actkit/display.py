"""What long work says, and how far it is. Whoever works speaks to a `Display` and to `tell`; whoever runs it decides what is shown.

This one is silent: what a notebook or a test wants. `actkit.cli.display.Terminal` is a person's.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
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


class TimeLeft:
    """The time that is left of work whose pieces were estimated, told of each part as `tell` is; what is quicker than it was estimated makes the rest quicker.

    Args:
        seconds: what each piece is expected to take, by name.
        clock: in seconds.
    """

    # What comes at once was kept from before, and says nothing of the speed.
    _AT_ONCE = 0.5
    # So many seconds are needed to know it.
    _ENOUGH = 3.0

    def __init__(self, seconds: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = dict(seconds), clock
        self._share: dict[str, float] = {}
        self._began = self._from = clock()
        self._done_before = 0.0

    def tell(self, what: str, part: int, parts: int) -> None:
        """A part begins: what was told of before is done."""
        self._share = {**dict.fromkeys(self._share, 1.0), what: (part - 1) / max(parts, 1)}
        if self._clock() - self._began < self._AT_ONCE:
            self._from, self._done_before = self._clock(), self._done()

    def _done(self) -> float:
        return sum(self._seconds.get(name, 0.0) * share for name, share in self._share.items())

    @property
    def left(self) -> float:
        """In seconds."""
        done, elapsed = self._done(), self._clock() - self._from
        rest = max(sum(self._seconds.values()) - done, 0.0)
        if elapsed < self._ENOUGH or done <= self._done_before:
            return rest
        return rest * elapsed / (done - self._done_before)


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
    def progress(self, seconds: Mapping[str, float] | None = None) -> Iterator[None]:
        """Meanwhile, what `tell` says is shown; `seconds`: what each of the things that it will name is expected to take, in all."""
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

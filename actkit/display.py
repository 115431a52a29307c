"""What long work says, and how far it is. Whoever works speaks to a `Display` and to `tell`; whoever runs it decides what is shown.

This one is silent: what a notebook or a test wants. `actkit.cli.display.Terminal` is a person's.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

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


def piece_of(part: str) -> str:
    """The piece of work that a part belongs to: 'robust.pgd20/0/0' of its third batch, 'robust.pgd20/0/0/2'."""
    return part.rpartition("/")[0]


class Expected(NamedTuple):
    """What a piece of work is expected to take at most: how long, and in how many parts."""

    name: str
    seconds: float
    parts: int


class TimeLeft:
    """The time that is left of work whose pieces were estimated. What is quicker than was expected makes the rest quicker; what drops out ends a piece early.

    Args:
        work: the pieces in their order.
        kept: the parts that are done already, and say nothing of the speed.
        clock: in seconds.
    """

    # So many seconds are needed to know the speed.
    _ENOUGH = 3.0

    def __init__(
        self, work: Sequence[Expected], kept: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work, self._clock = list(work), clock
        self._place = {piece.name: i for i, piece in enumerate(self._work)}
        self._done = collections.Counter(map(piece_of, kept))
        self._began, self._spent, self._now = clock(), 0.0, 0

    def done(self, part: str) -> None:
        """A part is done, and so are the pieces before its own."""
        name = piece_of(part)
        self._done[name] += 1
        if name in self._place:
            self._now = max(self._now, self._place[name])
            piece = self._work[self._now]
            self._spent += piece.seconds / max(piece.parts, 1)

    @property
    def left(self) -> float:
        """In seconds."""
        rest = sum(
            piece.seconds * max(1 - self._done[piece.name] / max(piece.parts, 1), 0)
            for piece in self._work[self._now :]
        )
        elapsed = self._clock() - self._began
        return rest * elapsed / self._spent if elapsed > self._ENOUGH and self._spent else rest


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
    def progress(self, left: TimeLeft | None = None) -> Iterator[None]:
        """Meanwhile, what `tell` says is shown, and the time that is left of all of it."""
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

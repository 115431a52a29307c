"""Signals: a training ends between batches and saves; an examination ends at once and keeps what it has."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from actkit.errors import INTERRUPTED, OK, RESUMABLE


class Stop:
    """Whether a signal asked for a stop at the next batch boundary."""

    asked = False
    name = ""
    exit_code = OK


@contextlib.contextmanager
def stopping(note: Callable[[str], None]) -> Iterator[Stop]:
    """The first signal asks for a stop between batches, a second one of Ctrl-C ends at once."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.asked:
            note("finishing this batch, then saving; Ctrl-C again ends at once")
        stop.asked, stop.name = True, signal.Signals(number).name
        stop.exit_code = INTERRUPTED if number == signal.SIGINT else RESUMABLE

    with handling(handle):
        yield stop


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While examining, nothing needs saving: SIGTERM ends the process with the code that says 'start me again'."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(RESUMABLE)

    with handling(handle):
        yield


@contextlib.contextmanager
def handling(handle: Any) -> Iterator[None]:
    """Handle what asks a process to end: Ctrl-C, SIGTERM, the warning of a batch system, a terminal that is closed (but not under nohup)."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    # Not the main thread: a notebook's or a test's own business.
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

"""What a person sees of a training: an epoch on a line, how long it still takes, a bar that is drawn when something changed."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from rich.console import Console

from actkit.cli import display as module
from actkit.cli.display import Terminal
from actkit.evaluation.looks import EpochLine
from actkit.probes import Column, Result
from actkit.training.forecast import Left
from actkit.training.loop import Position

RUN = SimpleNamespace(epochs=3, steps=None)
LOOK = Result({"x": 0.5}, columns=(Column("x", "PGD-20"),), headline="x")
LINE = EpochLine(1, 4, 831.2, loss={"robust": 1.5, "natural": 0.5}).with_looks(
    {"robust.pgd": LOOK, "natural.pgd": LOOK}
)


@dataclass
class Batch:
    """As the loop tells of one."""

    position: Position
    batches: int = 4
    images: int = 8
    seconds: float = 0.01
    epoch_ended: bool = False
    losses: dict[str, float] = field(default_factory=lambda: {"robust": 1.25})


class Known:
    """A forecast that knows."""

    def __init__(self, seconds: float = 100.0, *, ready: bool = True) -> None:
        self.seconds, self.ready = seconds, ready

    def left(self) -> Left | None:
        return Left(self.seconds, 0.0, 40.0)


def shown(*, terminal: bool, width: int = 200) -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    return Terminal(Console(file=out, force_terminal=terminal, width=width, color_system=None)), out


def test_an_epochs_line_in_a_pipe_is_whole_and_its_eta_counts_the_examination():
    display, out = shown(terminal=False)
    with display.training(RUN) as view:
        view.expect(Known(ready=False))
        view.batch(Batch(Position(0, 1, 1)))
        view.epoch(LINE)
    assert out.getvalue() == (
        "epoch 1/3  robust: loss 1.500, PGD-20 50.0 | natural: loss 0.500, PGD-20 50.0  831 images/s  2 min left\n"
    )


def test_how_long_a_run_takes_is_said_once_as_soon_as_it_is_known():
    display, out = shown(terminal=False)
    with display.training(RUN) as view:
        view.expect(Known())
        for step in (1, 2):
            view.batch(Batch(Position(0, step, step)))
    assert out.getvalue() == "time       about 2 min left: 2 min of training, 40 s of examination at most\n"


def test_a_training_that_nothing_is_known_of_has_no_eta():
    display, out = shown(terminal=False)
    with display.training(RUN) as view:
        view.batch(Batch(Position(0, 1, 1)))
        view.epoch(LINE)
    assert "left" not in out.getvalue()


def test_a_long_epoch_says_in_a_pipe_where_it_is_and_not_at_every_batch(monkeypatch):
    display, out = shown(terminal=False)
    with display.training(RUN) as view:
        view.expect(Known(ready=False))
        monkeypatch.setattr(module.time, "monotonic", iter([view.said + 61] * 2 + [view.said + 62] * 9).__next__)
        for step in (1, 2, 3):
            view.batch(Batch(Position(0, step, step)))
    assert out.getvalue() == "epoch 1/3  batch 1 of 4  loss robust 1.250  2 min left\n"


def test_a_bar_is_drawn_when_it_has_changed_and_not_otherwise(monkeypatch):
    display, out = shown(terminal=True, width=100)
    with display.training(RUN) as view:
        view.expect(Known(ready=False))
        now = iter(range(1000, 2000))
        monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
        view.batch(Batch(Position(0, 1, 1)))
        first = out.getvalue()
        view.batch(Batch(Position(0, 1, 1)))
        assert out.getvalue() == first
        view.batch(Batch(Position(0, 2, 2)))
        assert len(out.getvalue()) > len(first)
    drawn = re.sub(r"\x1b\[[?\d]*\w", "", first)
    assert "epoch 1/3 ━" in drawn
    assert " 1/12  2 min left  800 images/s  loss robust 1.250" in drawn


@pytest.mark.parametrize("width", [60, 200])
def test_on_a_narrow_terminal_each_role_has_a_line_of_its_own(width):
    display, out = shown(terminal=True, width=width)
    with display.training(RUN) as view:
        view.epoch(LINE)
    text = re.sub(r"\x1b\[[?\d]*\w", "", out.getvalue())
    narrow = "epoch 1/3  robust   loss 1.500, PGD-20 50.0\n           natural  loss 0.500, PGD-20 50.0\n"
    wide = "epoch 1/3  robust: loss 1.500, PGD-20 50.0 | natural: loss 0.500, PGD-20 50.0\n"
    assert (narrow if width == 60 else wide) in text

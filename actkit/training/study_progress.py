"""How far a study is: what each cell has done, by the files of its run, and when the whole will end."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """What a cell costs, in any unit that all cells of a study share: a forward pass of one image, where it was counted.

    Args:
        batch: a training step, with its share of what is looked at after each epoch.
        batches: how many there are.
        examination: what comes after the last.
        epochs: in how many epochs; a run says after each that it has ended.
    """

    batch: float = 0.0
    batches: int = 0
    examination: float = 1.0
    epochs: int = 0

    @property
    def training(self) -> float:
        return self.batch * self.batches

    @property
    def total(self) -> float:
        return self.training + self.examination


@dataclass(frozen=True)
class Running:
    """A cell that is being run: for how many seconds, what it is at ('epoch 3 of 60'), and how much of it is done, from 0 to 1."""

    title: str
    seconds: float
    doing: str
    fraction: float


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Args:
        cells: how many there are; `ended` of them, also without success.
        fraction: of all work, from 0 to 1.
        left: seconds until the whole ends, examinations included; None while nothing was measured.
    """

    cells: int
    ended: int
    running: tuple[Running, ...]
    fraction: float
    left: float | None


@dataclass
class _Started:
    """A cell under way. `known` is the work that its files told of last, at `told`; `before` what had been done when it started."""

    title: str
    folder: Path
    work: Work
    began: float
    before: float = 0.0
    known: float = 0.0
    told: float = 0.0
    doing: str = "starting"

    def look(self, now: float) -> None:
        """Read how many epochs have ended."""
        epoch, step = _last_line(self.folder / "metrics.jsonl")
        trained = self.work.batch * step
        if trained > self.known:
            self.known, self.told = trained, now
        if not self.work.batches:
            self.doing = "running"
        elif step >= self.work.batches:
            self.doing = "examining"
        elif step:
            self.doing = f"epoch {epoch} of {self.work.epochs}"

    def done(self, now: float, rate: float | None) -> float:
        """What is done by now: what was told, and at that rate since, up to what would be told next."""
        if rate is None:
            return self.known
        training, w = self.known < self.work.training, self.work
        ahead = w.training / max(w.epochs, 1) if training else 0.95 * w.examination
        return min(self.known + min(rate * (now - self.told), ahead), w.total)


@dataclass
class StudyForecast:
    """Follows the cells of a study, and says how far they are. Threads of the cells may call it.

    Args:
        folders: of all cells, in their order; `done` are those that need not run.
        work: by folder; cells that are not there count alike.
        jobs: how many run at a time.
    """

    folders: Sequence[Path]
    jobs: int
    work: Mapping[Path, Work] = field(default_factory=dict)
    done: Iterable[Path] = ()
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._ended: set[Path] = set(self.done)
        self._running: dict[Path, _Started] = {}
        # Work done and the seconds that it took, of the cells that have ended.
        self._measured = (0.0, 0.0)

    def _work(self, folder: Path) -> Work:
        return self.work.get(folder, Work())

    def start(self, folder: Path, title: str) -> None:
        now = self.clock()
        one = _Started(title, folder, self._work(folder), now, told=now)
        one.look(now)
        one.before, one.told = one.known, now
        self._running[folder] = one

    def end(self, folder: Path, *, success: bool) -> None:
        """Without success, what it took says nothing of the others."""
        one = self._running.pop(folder, None)
        self._ended.add(folder)
        if one is not None and success:
            work, seconds = self._measured
            self._measured = (work + one.work.total - one.before, seconds + self.clock() - one.began)

    def leave(self, folder: Path) -> None:
        """It is not under way after all."""
        self._running.pop(folder, None)

    def now(self) -> StudyProgress:
        now, running = self.clock(), list(self._running.values())
        for one in running:
            one.look(now)
        rate = self._rate(running)
        total = sum(self._work(folder).total for folder in self.folders)
        rest = [max(one.work.total - one.done(now, rate), 0.0) for one in running]
        started = self._ended | {one.folder for one in running}
        waiting = [self._work(folder).total for folder in self.folders if folder not in started]
        shown = tuple(
            Running(one.title, now - one.began, one.doing, 1 - left / max(one.work.total, 1e-9))
            for one, left in zip(running, rest, strict=True)
        )
        left = None if rate is None else _makespan(rest, waiting, self.jobs) / rate
        return StudyProgress(
            len(self.folders), len(self._ended), shown, 1 - sum((*rest, *waiting)) / max(total, 1e-9), left
        )

    def _rate(self, running: Sequence[_Started]) -> float | None:
        """Work a second of one job, by what has ended and what the running cells have told; None while nothing is known."""
        work, seconds = self._measured
        for one in running:
            if one.known > one.before:
                work, seconds = work + one.known - one.before, seconds + one.told - one.began
        return work / seconds if work and seconds else None


def _makespan(running: Sequence[float], waiting: Sequence[float], jobs: int) -> float:
    """When the last of these ends, each job taking the next that waits."""
    ends = [*running, *[0.0] * (jobs - len(running))]
    heapq.heapify(ends)
    for work in waiting:
        heapq.heapreplace(ends, ends[0] + work)
    return max(ends)


def _last_line(metrics: Path) -> tuple[int, int]:
    """The epoch and the batch of the last whole line of a run's metrics; zeros where there is none."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    for line in reversed(lines):
        try:
            read = json.loads(line)
            return int(read["epoch"]), int(read["step"])
        # The last line may be torn.
        except (ValueError, KeyError, TypeError):
            continue
    return 0, 0


def roughly(seconds: float) -> str:
    """A time that is only known roughly, in words."""
    for limit, size, unit in ((5400, 60, "min"), (172_800, 3600, "hours")):
        if seconds < limit:
            return "less than a minute" if seconds < 60 else f"about {seconds / size:.{unit == 'hours':d}f} {unit}"
    return f"about {seconds / 86400:.1f} days"

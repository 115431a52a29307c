"""Tasks: command lines of actkit's, each with a folder for what it finds, several at a time; a failed one does not stop the rest."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actkit.display import duration
from actkit.errors import BAD_INPUT, CHECK_FAILED, FAILED, INTERRUPTED, OK, RESUMABLE, InputError
from actkit.files import IN_USE, in_use
from actkit.signals import handling
from actkit.training.executors import Executor
from actkit.training.study_progress import StudyForecast, StudyProgress, Work, roughly


class Task(Protocol):
    """A command line of actkit's with a folder for what it finds; its log is `<folder>.log`."""

    @property
    def title(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    @property
    def done(self) -> bool: ...

    @property
    def code(self) -> int:
        """The exit code of one that is done."""

    @property
    def because(self) -> Sequence[str]:
        """Of one that is done, the red flags for which numbers of it are unverified."""

    def command(self, extra: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True)
class TaskResult:
    """How a task ended: its exit code, how long it took, and why it failed."""

    task: Task
    code: int
    seconds: float
    error: str = ""

    @property
    def stopped(self) -> bool:
        return self.code in (RESUMABLE, INTERRUPTED)

    @property
    def failed(self) -> bool:
        return self.code not in (OK, CHECK_FAILED) and not self.stopped


def run_tasks(
    tasks: Sequence[Task],
    executor: Executor,
    *,
    say: Callable[[str], None],
    extra: Sequence[str] = (),
    work: Mapping[Path, Work] | None = None,
    show: Callable[[StudyProgress], None] | None = None,
) -> tuple[list[TaskResult], int]:
    """Run what is not done, and say how it goes: what ended, and the exit code of the whole.

    A failed task does not stop the others; one that another process is at is waited for. A signal is passed on to the runs, which save and stop;
    then this ends with its code.

    Args:
        say: a line, as each task starts and ends.
        work: what each costs, by its folder; without it all cost the same.
        show: how far the whole is, twice a second.
    """
    left = [task for task in tasks if not task.done]
    done = len(tasks) - len(left)
    if done:
        say(f"{done} of {len(tasks)} cells are done already")
    results: list[TaskResult] = []
    folders = [task.folder for task in tasks]
    forecast = StudyForecast(
        folders, executor.jobs, work or {}, {task.folder for task in tasks} - {t.folder for t in left}
    )
    runner = _TaskRunner(executor, say, extra, forecast)
    with handling(runner.stop), ThreadPoolExecutor(executor.jobs) as pool:
        waiting: set[Future[TaskResult | Task | None]] = {pool.submit(runner.run, task) for task in left}
        elsewhere: list[Task] = []
        while waiting or elsewhere:
            if not waiting:
                time.sleep(0.5)
            # What others were at goes to the end of the queue, so that it holds nothing up.
            if runner.signals or not waiting:
                waiting, elsewhere = waiting | {pool.submit(runner.run, task) for task in elsewhere}, []
            ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            if show is not None:
                show(forecast.now())
            for result in (future.result() for future in ended):
                if isinstance(result, TaskResult):
                    # One that a signal reached before it could handle it died of it: it is stopped, not failed.
                    if runner.signals and (result.code < 0 or result.code == INTERRUPTED):
                        result = dataclasses.replace(result, code=RESUMABLE)
                    results.append(result)
                    forecast.end(result.task.folder, success=result.code in (OK, CHECK_FAILED))
                    _say_end(result, say, forecast.now())
                elif result is not None:
                    elsewhere.append(result)
    if show is not None:
        show(forecast.now())
    if runner.signals:
        return results, INTERRUPTED if runner.signals[0] == signal.SIGINT else RESUMABLE
    return results, _exit_code(tasks, results)


def _exit_code(tasks: Sequence[Task], results: Sequence[TaskResult]) -> int:
    if any(result.failed for result in results):
        return FAILED
    if any(result.stopped for result in results):
        return RESUMABLE
    return CHECK_FAILED if any(_check_failed(task) for task in tasks if task.done) else OK


@dataclass
class _TaskRunner:
    """Runs one task after the other, in several threads at once, until a signal comes."""

    executor: Executor
    say: Callable[[str], None]
    extra: Sequence[str]
    forecast: StudyForecast
    signals: list[int] = field(default_factory=list)
    # The folders that another process was seen at, and said to be.
    announced: set[Path] = field(default_factory=set)

    def stop(self, number: int, frame: Any) -> None:
        """A signal's handler."""
        self.signals.append(number)
        self.executor.stop(number if number in (signal.SIGINT, signal.SIGTERM) else signal.SIGTERM)

    def run(self, task: Task) -> TaskResult | Task | None:
        """How it ended; the task again where another process is at it; None where a signal came first."""
        began, log = time.monotonic(), task.folder.with_name(task.folder.name + ".log")
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            if self.signals:
                return None
            if user := in_use(task.folder):
                if task.folder not in self.announced:
                    self.say(f"{task.title}: waiting for {user}, which is at it")
                self.announced.add(task.folder)
                return task
            if task.done:
                return TaskResult(task, CHECK_FAILED if _check_failed(task) else OK, time.monotonic() - began)
            log.write_bytes(b"")
            again = any(task.folder.glob("checkpoints/step-*"))
            self.forecast.start(task.folder, task.title)
            self.say(f"{'going on' if again else 'start'}: {task.title} ({log}){_until(self.forecast.now())}")
            code = self.executor(task.command(self.extra), log)
            error = _error_in(log)
            # Another process was faster.
            if code == BAD_INPUT and error.startswith(IN_USE):
                self.forecast.leave(task.folder)
                return task
            return TaskResult(task, code, time.monotonic() - began, error)
        except OSError as error:
            said = f"{error.strerror or error}: {error.filename or log}"
            return TaskResult(task, FAILED, time.monotonic() - began, said)


def _check_failed(task: Task) -> bool:
    """Of a task that is done. Whoever makes a table of it says where its summary cannot be read."""
    try:
        return task.code == CHECK_FAILED
    except InputError:
        return False


def _say_end(result: TaskResult, say: Callable[[str], None], progress: StudyProgress) -> None:
    """How a task ended, and why numbers of it are unverified, a line a red flag."""
    if result.stopped:
        say(f"{result.task.title}: {_described(result)}")
        return
    say(f"[{progress.ended}/{progress.cells}] {result.task.title}: {_described(result)}{_until(progress)}")
    for said in _why(result):
        say(f"      UNVERIFIED: {said}")


def _until(progress: StudyProgress) -> str:
    """When the whole will end, where that is known and it has not ended."""
    return f"; {roughly(progress.left)} left" if progress.left else ""


def _why(result: TaskResult) -> Sequence[str]:
    """Its red flags. Whoever makes a table of it says where its summary cannot be read."""
    try:
        return result.task.because if result.code == CHECK_FAILED else ()
    except InputError:
        return ()


def _described(result: TaskResult) -> str:
    took = f"{result.seconds:.0f} s" if result.seconds < 120 else duration(result.seconds)
    if result.code == OK:
        return f"done in {took}"
    if result.code == CHECK_FAILED:
        return f"done in {took}; a check did not hold (exit code {CHECK_FAILED})"
    if result.stopped:
        return "stopped; the same study goes on with it"
    return f"failed after {took} (exit code {result.code}): {result.error}"


def _error_in(log: Path) -> str:
    """The error that a run ended with, or the last line that it wrote."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1].removeprefix("error:").strip()

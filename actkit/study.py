"""Studies: many runs of recipes over seeds and settings, a process each; finished ones are skipped, failed ones listed while the rest goes on.

A cell's folder is the one that `actkit run` would give it, so studies share what they have in common, and the same study again does what is left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actkit import config
from actkit.datasets import cores
from actkit.errors import CHECK_FAILED, FAILED, INTERRUPTED, OK, RESUMABLE, InputError
from actkit.registry import register
from actkit.run import folder_of


@register("", "study")
@dataclass(frozen=True, kw_only=True)
class Study:
    """Many runs, declared in a recipe.

    Args:
        seeds: `run.seed` of each.
        sweep: settings and their values, {'objective.act.alpha': [0.1, 0.5]}: every combination is run.
        recipes: the recipes to run; by default the one that this stands in.
    """

    seeds: list[int] = field(default_factory=lambda: [0])
    sweep: dict[str, Any] = field(default_factory=dict)
    recipes: list[str] | None = None


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    recipe: str
    settings: tuple[str, ...]  # what it sweeps, and what all share
    seed: int
    folder: Path
    title: str

    @property
    def done(self) -> bool:
        return (self.folder / "summary.json").is_file()

    @property
    def state(self) -> str:
        if self.done:
            return "done"
        return "to resume" if any(self.folder.glob("checkpoints/step-*")) else "to run"

    def command(self, extra: Sequence[str]) -> list[str]:
        """The very command that a person would type for this cell alone."""
        given = [part for s in self.settings for part in ("-s", s)]
        return ["run", self.recipe, *given, "--seed", str(self.seed), "--out", str(self.folder), *extra]


def swept(text: str) -> tuple[str, list[str]]:
    """'KEY=V1,V2' as the key and its values; commas inside brackets or quotes separate nothing. Raises `InputError` when it is no such thing."""
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise InputError(
            f"--sweep {text}: a setting and its values are wanted",
            help="such as --sweep objective.act.alpha=0.1,0.5,0.9",
        )
    parts, depth, quote, current = [], 0, "", ""
    for character in values:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (character in "([{") - (character in ")]}") if not quote else 0
        if character == "," and not depth and not quote:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    parts.append(current.strip())
    if "" in parts:
        raise InputError(f"--sweep {text}: a value is missing between two commas")
    return key.strip(), parts


def cells(
    recipes: Sequence[str],
    *,
    seeds: Sequence[int],
    sweep: Mapping[str, Sequence[Any]],
    settings: Sequence[str] = (),
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: str | None = None,
) -> list[Cell]:
    """Every combination, each recipe read and checked. Raises `InputError` for a recipe that is wrong, or two cells that are one and the same run."""
    made: list[Cell] = []
    problems: list[InputError] = []
    for recipe, values in itertools.product(recipes, itertools.product(*sweep.values())):
        own = [
            f"{key}={value if isinstance(value, str) else repr(value)}"
            for key, value in zip(sweep, values, strict=True)
        ]
        shown = [f"{key.rpartition('.')[2]}={value}" for key, value in zip(sweep, values, strict=True)]
        for seed in seeds:
            try:
                read = config.load(recipe, [*settings, *own, f"run.seed={seed}"], plugins=plugins, trust=trust)
            except InputError as error:
                problems += getattr(error, "problems", [error])
                break
            folder = folder_of(read)
            folder = Path(out) / folder.relative_to("runs") if out else folder
            title = " ".join([Path(recipe).stem, *shown, f"seed {seed}"])
            made.append(Cell(recipe, (*settings, *own), seed, folder, title))
    if problems:
        raise config.together(problems)
    for i, cell in enumerate(made):
        if twin := next((c for c in made[:i] if c.folder == cell.folder), None):
            raise InputError(
                f"two cells of the study are one and the same run: {twin.title} and {cell.title}",
                where=str(cell.folder),
                help="leave one out",
            )
    return made


@dataclass(frozen=True)
class Ended:
    cell: Cell
    code: int
    seconds: float
    said: str = ""  # why it failed


class Executor(Protocol):
    """Runs command lines of actkit's somewhere."""

    jobs: int

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        """The exit code; what it says on stderr goes into the log."""

    def stop(self, number: int) -> None:
        """Pass a signal on to what is running."""


class Local:
    """Processes on this machine, so many at a time; each has its share of the cores, since OpenMP's threads wait by spinning."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        told = dict(os.environ)
        if self.jobs > 1 or "OMP_NUM_THREADS" not in told:
            told["OMP_NUM_THREADS"] = str(max(1, cores() // self.jobs))
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches the study alone, which passes it on once.
            process = subprocess.Popen(
                [sys.executable, "-m", "actkit", *arguments], stdout=subprocess.DEVNULL, stderr=file, env=told, start_new_session=True
            )  # fmt: skip
            with self._lock:
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self, number: int) -> None:
        with self._lock:
            for process in self._running:
                process.send_signal(number)


def carry_out(
    study: Sequence[Cell], executor: Executor, *, say: Callable[[str], None], extra: Sequence[str] = ()
) -> tuple[list[Ended], int]:
    """Run what is not done, and say how it goes: what ended, and the exit code of the whole.

    A failed cell does not stop the others. A signal is passed on to the runs, which save and stop; then the study ends with its code.
    """
    left = [cell for cell in study if not cell.done]
    if len(left) < len(study):
        say(f"{len(study) - len(left)} of {len(study)} cells are done already")
    ended: list[Ended] = []
    stopped = threading.Event()
    asked: list[int] = []

    def run(cell: Cell) -> Ended | None:
        if stopped.is_set():
            return None
        began, log = time.monotonic(), cell.folder.with_name(cell.folder.name + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        code = executor(cell.command(extra), log)
        return Ended(cell, code, time.monotonic() - began, _reason(log))

    def handle(number: int, frame: Any) -> None:
        asked.append(number)
        stopped.set()
        executor.stop(signal.SIGTERM if number == signal.SIGTERM or len(asked) > 1 else signal.SIGINT)

    with _handled(handle), ThreadPoolExecutor(executor.jobs) as pool:
        waiting: set[Future[Ended | None]] = {pool.submit(run, cell) for cell in left}
        while waiting:
            now, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in now:
                if (one := future.result()) is not None:
                    ended.append(one)
                    say(f"[{len(study) - len(left) + len(ended)}/{len(study)}] {one.cell.title}: {_outcome(one)}")
    if asked:
        return ended, INTERRUPTED if asked[0] == signal.SIGINT else RESUMABLE
    if any(one.code not in (OK, CHECK_FAILED) for one in ended):
        return ended, FAILED
    return ended, CHECK_FAILED if any(one.code == CHECK_FAILED for one in ended) else OK


def plan_of(
    study: Sequence[Cell], *, plugins: Sequence[str] = (), trust: bool = False, device: Any, jobs: int
) -> tuple[list[str], float]:
    """The cells with their state, and the estimated time of what is left, in seconds: one step of each recipe is timed on made-up images."""
    from actkit.plan import about, plan

    costs: dict[str, float] = {}
    seconds = 0.0
    lines = []
    width = max(len(cell.title) for cell in study)
    for cell in study:
        lines.append(f"{cell.title:<{width}}  {cell.state:<9}  {cell.folder}")
        if cell.done:
            continue
        if cell.recipe not in costs:
            made = plan(
                config.load(cell.recipe, cell.settings, plugins=plugins, trust=trust), folder=cell.folder, device=device
            )
            costs[cell.recipe] = made.seconds * made.batches + made.evaluation_seconds
        seconds += costs[cell.recipe]
    left = sum(not cell.done for cell in study)
    lines.append(
        f"{len(study)} cells, {left} to do: about {about(seconds / jobs)} on {device}, {jobs} at a time; a sweep's values are taken to cost alike"
    )
    return lines, seconds / jobs


def ray_executor() -> Executor:
    """A cluster's processes, through Ray (extra `ray`). Raises `InputError` where Ray is missing or no cluster answers."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray", help="pip install 'actkit[ray]'") from error
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError as error:
        raise InputError(f"no Ray cluster answers: {error}", help="start one here: ray start --head") from error
    return Cluster(ray)


class Cluster:
    """Runs each cell as a Ray task: the folders must lie where all machines see them. Each takes one GPU where the cluster has any, else one core."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        self.jobs = gpus or max(1, int(has.get("CPU", 1)))
        self._running: set[Any] = set()

        def work(arguments: list[str], folder: str) -> tuple[int, str]:
            told = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
            done = subprocess.run(
                [sys.executable, "-m", "actkit", *arguments], cwd=folder, env=told, capture_output=True, text=True
            )
            return done.returncode, done.stderr

        self._work = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0)(work)

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        task = self._work.remote(list(arguments), str(Path.cwd()))
        self._running.add(task)
        try:
            code, said = self._ray.get(task)
        except self._ray.exceptions.RayError as error:  # cancelled, or the machine is gone
            code, said = RESUMABLE, f"error: {type(error).__name__}"
        self._running.discard(task)
        log.write_text(said, encoding="utf-8")
        return int(code)

    def stop(self, number: int) -> None:
        for task in list(self._running):
            self._ray.cancel(task)


def _outcome(one: Ended) -> str:
    took = f"{one.seconds:.0f} s"
    if one.code == OK:
        return f"done in {took}"
    if one.code == CHECK_FAILED:
        return f"done in {took}; a check raised a red flag, or training was stopped early"
    if one.code in (RESUMABLE, INTERRUPTED):
        return "stopped; the same study goes on with it"
    return f"failed after {took} (exit code {one.code}): {one.said}"


def _reason(log: Path) -> str:
    """The error that a run ended with."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:")]
    return (told or lines or [""])[-1].removeprefix("error:").strip()


@contextlib.contextmanager
def _handled(handle: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

"""Studies: many runs of recipes over seeds and settings, a process each; finished ones are skipped, failed ones listed while the rest goes on.

A cell's folder is the one that `actkit run` would give it, so studies share what they have in common, and the same study again does what is left.
"""

from __future__ import annotations

import dataclasses
import itertools
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actkit.config.recipe import combined, load_recipe
from actkit.config.registry import register
from actkit.config.spec import Spec
from actkit.errors import BAD_INPUT, CHECK_FAILED, FAILED, INTERRUPTED, OK, RESUMABLE, InputError
from actkit.evaluation.summary import code_of
from actkit.files import IN_USE, in_use
from actkit.networks.model_files import checkpoint_step
from actkit.signals import handling
from actkit.training.executors import Executor, share_of_cores
from actkit.training.run import folder_of


@register("", "study")
@dataclass(frozen=True, kw_only=True)
class Study:
    """Many runs, declared in a recipe.

    Args:
        seeds: `run.seed` of each; by default each recipe's own.
        sweep: settings and their values, {'objective.act.alpha': [0.1, 0.5]}: every combination is run. A component is given as text, '@backbone.resnet34()'.
        recipes: the recipes to run, beside the one that this stands in or among the packaged; by default the one that this stands in.
    """

    seeds: list[int] | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    recipes: list[str] | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "recipes"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise InputError(f"study.{name} names none", help="leave the line out, or give some")
        for key, values in self.sweep.items():
            if not isinstance(values, (list, tuple)) or not values:
                raise InputError(
                    f"study.sweep: {key!r} has no list of values, but {values!r}", help=f"{{'{key}': [..., ...]}}"
                )
            if any(callable(value) for value in values):
                raise InputError(
                    f"study.sweep: a value of {key!r} is a component itself",
                    help="write it as text: '@backbone.resnet34()'",
                )
        _assert_no_seed(self.sweep)


def _assert_no_seed(keys: Iterable[str]) -> None:
    if "run.seed" in keys:
        raise InputError(
            "run.seed is swept", help="give --seeds, or study.seeds, instead: numbers are averaged over seeds"
        )


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

    def command(self, extra: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    recipe: str
    settings: tuple[str, ...]  # what it sweeps, and what all share
    seed: int
    folder: Path
    title: str
    warnings: tuple[str, ...] = ()  # of its recipe

    @property
    def done(self) -> bool:
        return (self.folder / "summary.json").is_file()

    @property
    def code(self) -> int:
        return code_of(self.folder)

    @property
    def state(self) -> str:
        if self.done:
            return "done"
        return "to resume" if any(self.folder.glob("checkpoints/step-*")) else "to run"

    def command(self, extra: Sequence[str]) -> list[str]:
        """The very command that a person would type for this cell alone."""
        given = [part for s in self.settings for part in ("-s", s)]
        return ["run", self.recipe, "--single", *given, "--seed", str(self.seed), "--out", str(self.folder), *extra]


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


def all_swept(texts: Iterable[str]) -> dict[str, list[str]]:
    """Each 'KEY=V1,V2' parsed. Raises `InputError` for a key that is there twice."""
    found: dict[str, list[str]] = {}
    for key, values in map(swept, texts):
        if key in found:
            raise InputError(f"--sweep {key} is given twice", help=f"--sweep {key}={','.join([*found[key], *values])}")
        found[key] = values
    _assert_no_seed(found)
    return found


def cells(
    recipes: Sequence[str],
    *,
    seeds: Sequence[int] | None,
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
        for seed in [None] if seeds is None else seeds:
            title = " ".join([Path(recipe).stem, *shown])
            try:
                made.append(cell(recipe, (*settings, *own), seed, title, plugins=plugins, trust=trust, out=out))
            except InputError as error:
                problems += getattr(error, "problems", [error])
                break
    if problems:
        raise combined(problems)
    for i, one in enumerate(made):
        if twin := next((c for c in made[:i] if c.folder == one.folder), None):
            raise InputError(
                f"two cells of the study are one and the same run: {twin.title} and {one.title}",
                where=str(one.folder),
                help="leave one out",
            )
    return made


def cell(
    recipe: str,
    settings: Sequence[str],
    seed: int | None,
    title: str,
    *,
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: str | None = None,
) -> Cell:
    """One run, its recipe read and checked, in the folder that its own command would take (in `out`, where that is given); the seed None is the recipe's own.

    Raises `InputError`.
    """
    own = [] if seed is None else [f"run.seed={seed}"]
    read = load_recipe(recipe, [*settings, *own], plugins=plugins, trust=trust)
    seed = int(read.spec.kwargs.get("seed", 0))
    folder = folder_of(read)
    folder = Path(out) / folder.relative_to("runs") if out else folder
    return Cell(recipe, tuple(settings), seed, folder, f"{title} seed {seed}", tuple(read.warnings))


@dataclass(frozen=True)
class Ended:
    cell: Task
    code: int
    seconds: float
    said: str = ""  # why it failed

    @property
    def failed(self) -> bool:
        return self.code not in (OK, CHECK_FAILED, RESUMABLE, INTERRUPTED)


def carry_out(
    study: Sequence[Task], executor: Executor, *, say: Callable[[str], None], extra: Sequence[str] = ()
) -> tuple[list[Ended], int]:
    """Run what is not done, and say how it goes: what ended, and the exit code of the whole.

    A failed task does not stop the others; one that another process is at is waited for. A signal is passed on to the runs, which save and stop;
    then the study ends with its code.
    """
    left = [task for task in study if not task.done]
    if len(left) < len(study):
        say(f"{len(study) - len(left)} of {len(study)} cells are done already")
    ended: list[Ended] = []
    asked: list[int] = []
    told: set[Path] = set()

    def run(task: Task) -> Ended | Task | None:
        """What came of it; the task again where another process is at it; None where the study was stopped first."""
        began, log = time.monotonic(), task.folder.with_name(task.folder.name + ".log")
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            if asked:
                return None
            if user := in_use(task.folder):
                if task.folder not in told:
                    say(f"{task.title}: waiting for {user}, which is at it")
                told.add(task.folder)
                return task
            if task.done:
                return Ended(task, CHECK_FAILED if _flagged(task) else OK, time.monotonic() - began)
            log.write_bytes(b"")
            code = executor(task.command(extra), log)
            said = _reason(log)
            if code == BAD_INPUT and said.startswith(IN_USE):  # another was faster
                return task
            return Ended(task, code, time.monotonic() - began, said)
        except OSError as error:
            return Ended(task, FAILED, time.monotonic() - began, f"{error.strerror or error}: {error.filename or log}")

    def handle(number: int, frame: Any) -> None:
        asked.append(number)
        executor.stop(number if number in (signal.SIGINT, signal.SIGTERM) else signal.SIGTERM)

    with handling(handle), ThreadPoolExecutor(executor.jobs) as pool:
        waiting: set[Future[Ended | Task | None]] = {pool.submit(run, task) for task in left}
        elsewhere: list[Task] = []
        while waiting or elsewhere:
            if not waiting:
                time.sleep(0.5)
            # What others were at goes to the end of the queue, so that it holds nothing up.
            if asked or not waiting:
                waiting, elsewhere = waiting | {pool.submit(run, task) for task in elsewhere}, []
            now, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in now:
                one = future.result()
                if isinstance(one, Ended):
                    # One that a signal reached before it could handle it died of it: it is stopped, not failed.
                    if asked and (one.code < 0 or one.code == INTERRUPTED):
                        one = dataclasses.replace(one, code=RESUMABLE)
                    ended.append(one)
                    say(f"[{len(study) - len(left) + len(ended)}/{len(study)}] {one.cell.title}: {_outcome(one)}")
                elif one is not None:
                    elsewhere.append(one)
    if asked:
        return ended, INTERRUPTED if asked[0] == signal.SIGINT else RESUMABLE
    if any(one.failed for one in ended):
        return ended, FAILED
    if any(one.code in (RESUMABLE, INTERRUPTED) for one in ended):
        return ended, RESUMABLE
    return ended, CHECK_FAILED if any(_flagged(task) for task in study if task.done) else OK


def _flagged(task: Task) -> bool:
    try:
        return task.code == CHECK_FAILED
    except InputError:  # whoever makes a table of it is told
        return False


def plan_of(
    study: Sequence[Cell],
    *,
    plugins: Sequence[str] = (),
    trust: bool = False,
    device: Any,
    jobs: int,
    examined: Mapping[Path, Sequence[tuple[Sequence[Spec], bool]]] | None = None,
) -> tuple[list[str], float]:
    """The cells with their state, and the estimated time of what is left, in seconds: one step of each is timed on made-up images, seeds apart.

    `examined`: by folder, what is still to run on its models besides its own evaluation: probes, and whether on the headline model alone.
    """
    from actkit.training.dry_run import about, plan, threads

    costs: dict[str, tuple[float, int, float]] = {}  # a step, how many, the evaluation
    seconds = 0.0
    lines = []
    width = max(len(cell.title) for cell in study)
    for cell in study:
        lines.append(f"{cell.title:<{width}}  {cell.state:<9}  {cell.folder}")
        later = (examined or {}).get(cell.folder, ())
        if cell.done and not later:
            continue
        key = f"{cell.recipe} {cell.settings} {cell.done} {later!r}"
        if key not in costs:
            recipe = load_recipe(cell.recipe, cell.settings, plugins=plugins, trust=trust)
            with threads(share_of_cores(jobs)):
                made = plan(recipe, folder=cell.folder, device=device)
            evaluation = 0.0 if cell.done else made.evaluation_seconds
            evaluation += sum(made.examination_seconds(probes, headline=headline) for probes, headline in later)
            costs[key] = made.seconds, made.batches, evaluation
        step, batches, evaluation = costs[key]
        left = 0 if cell.done else batches - (checkpoint_step(cell.folder) or 0)
        seconds += step * left + evaluation
    left = sum(not cell.done for cell in study)
    lines.append(
        f"{len(study)} cell{'s' * (len(study) > 1)}, {left} to do: about {about(seconds / jobs)} on {device}, {jobs} at a time"
    )
    return lines, seconds / jobs


def _outcome(one: Ended) -> str:
    took = f"{one.seconds:.0f} s"
    if one.code == OK:
        return f"done in {took}"
    if one.code == CHECK_FAILED:
        return f"done in {took}; a check did not hold (exit code {CHECK_FAILED})"
    if one.code in (RESUMABLE, INTERRUPTED):
        return "stopped; the same study goes on with it"
    return f"failed after {took} (exit code {one.code}): {one.said}"


def _reason(log: Path) -> str:
    """The error that a run ended with."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:")]
    return (told or lines or [""])[-1].removeprefix("error:").strip()

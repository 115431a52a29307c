"""Studies: many runs of recipes over seeds and settings, what is left of them, and what that costs. `tasks` runs them.

A cell's folder is the one that `actkit run` would give it, so studies share what they have in common, and the same study again does what is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actkit.config.reader import Binding
from actkit.config.recipe import Recipe, load_recipe
from actkit.config.registry import register
from actkit.config.spec import Spec
from actkit.config.study_file import as_settings, load_applied
from actkit.display import duration
from actkit.errors import InputError, raise_all
from actkit.evaluation.summary import Summary
from actkit.networks.model_files import checkpoint_step
from actkit.training.executors import share_of_cores
from actkit.training.folder import folder_of
from actkit.training.study_progress import Work

if TYPE_CHECKING:
    import torch


@register("", "study")
@dataclass(frozen=True, kw_only=True)
class Study:
    """Many runs, declared in a recipe.

    Args:
        seeds: `run.seed` of each; by default each recipe's own.
        sweep: settings and their values, {'objective.act.alpha': [0.1, 0.5]}: every combination is run. A component is given as text, '@backbone.resnet34()'.
        recipes: the recipes to run, beside the one that this stands in or among the packaged; by default the one that this stands in. What else the
            file itself binds applies to each of them, after the recipe's own.
    """

    seeds: list[int] | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    recipes: list[str] | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "recipes"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise InputError(f"study.{name} names none", help="leave the line out, or give some")
        assert_seeds(self.seeds or [], "study.seeds")
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


def assert_seeds(seeds: Sequence[int], said: str) -> None:
    """Raise `InputError` for a seed that is negative, or there twice. `said`: what the user gave, such as '--seeds 0,0'."""
    for seed in seeds:
        if seed < 0:
            raise InputError(f"{said}: a seed is a whole number from 0 on, got {seed}", help="such as 0, 1 and 2")
    if len(set(seeds)) < len(seeds):
        once = ",".join(map(str, dict.fromkeys(seeds)))
        raise InputError(f"{said}: a seed is there twice", help=f"give {once}")


def _assert_no_seed(keys: Iterable[str]) -> None:
    if "run.seed" in keys:
        raise InputError(
            "run.seed is swept", help="give --seeds, or study.seeds, instead: numbers are averaged over seeds"
        )


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    recipe: str
    # The study's own lines, what all were given with `-s`, what this one sweeps.
    settings: tuple[str, ...]
    seed: int
    folder: Path
    title: str
    # Of its recipe.
    warnings: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return (self.folder / "summary.json").is_file()

    @property
    def code(self) -> int:
        return Summary.load(self.folder).exit_code

    @property
    def because(self) -> Sequence[str]:
        return Summary.load(self.folder).because

    @property
    def state(self) -> str:
        if self.done:
            return "done"
        return "to resume" if any(self.folder.glob("checkpoints/step-*")) else "to run"

    def command(self, extra: Sequence[str]) -> list[str]:
        """The very command that a person would type for this cell alone."""
        given = [part for s in self.settings for part in ("-s", s)]
        return ["run", self.recipe, "--single", *given, "--seed", str(self.seed), "--out", str(self.folder), *extra]


def parse_sweep(text: str) -> tuple[str, list[str]]:
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


def parse_sweeps(texts: Iterable[str]) -> dict[str, list[str]]:
    """Each 'KEY=V1,V2' parsed. Raises `InputError` for a key that is there twice."""
    found: dict[str, list[str]] = {}
    for key, values in map(parse_sweep, texts):
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
    lines: Mapping[str, Sequence[Binding]] | None = None,
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: str | None = None,
) -> list[Cell]:
    """Every combination, each recipe read and checked. Raises `InputError` for a recipe that is wrong, or two cells that are one and the same run.

    `lines` are the study's own, by recipe; `settings` come after them.
    """
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
                shared = (lines or {}).get(recipe, ())
                made.append(
                    cell(recipe, (*settings, *own), seed, title, lines=shared, plugins=plugins, trust=trust, out=out)
                )
            except InputError as error:
                problems += error.problems
                break
    raise_all(problems)
    for i, one in enumerate(made):
        # A folder is called by its seed and settings, in one of the recipe: two recipes may say the same.
        if twin := next((c for c in made[:i] if c.folder.name == one.folder.name), None):
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
    lines: Sequence[Binding] = (),
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: str | None = None,
) -> Cell:
    """One run, its recipe read and checked, in the folder that its own command would take (in `out`, where that is given); the seed None is the recipe's own.

    Raises `InputError`, also where one of the study's `lines` does nothing in this recipe.
    """
    own = [] if seed is None else [f"run.seed={seed}"]
    read = load_applied(recipe, lines, [*settings, *own], plugins=plugins, trust=trust)
    seed = int(read.spec.kwargs.get("seed", 0))
    folder = folder_of(read)
    folder = Path(out) / folder.relative_to("runs") if out else folder
    given = (*as_settings(lines), *settings)
    return Cell(recipe, given, seed, folder, f"{title} seed {seed}", tuple(read.warnings))


@dataclass(frozen=True)
class Examination:
    """What is still to run on the models of some cells besides their own evaluations: probes, on the headline model of each or on all."""

    cells: tuple[Cell, ...]
    probes: tuple[Spec, ...]
    headline: bool


@dataclass(frozen=True)
class StudyCost:
    """Estimates of what is left, in seconds: of each cell's training with its own evaluation, and of each examination besides; one at a time."""

    cells: tuple[float, ...]
    examinations: tuple[float, ...]


def cost_of(
    study: Sequence[Cell],
    *,
    plugins: Sequence[str] = (),
    trust: bool = False,
    device: torch.device,
    jobs: int,
    examined: Sequence[Examination] = (),
) -> StudyCost:
    """What is left of a study, on made-up images: what trainings have in common is counted and timed once."""
    from actkit.training.costs import Costs, RunCost
    from actkit.training.dry_run import threads

    recipes: dict[tuple[str, tuple[str, ...]], Recipe] = {}
    runs: dict[tuple[str, tuple[str, ...]], RunCost] = {}
    costs = Costs(device)

    def recipe_of(cell: Cell) -> Recipe:
        key = cell.recipe, cell.settings
        if key not in recipes:
            recipes[key] = load_recipe(cell.recipe, cell.settings, plugins=plugins, trust=trust)
        return recipes[key]

    def left_of(cell: Cell) -> float:
        if cell.done:
            return 0.0
        key = cell.recipe, cell.settings
        if key not in runs:
            runs[key] = costs.of_run(recipe_of(cell))
        run = runs[key]
        return run.step * max(run.batches - (checkpoint_step(cell.folder) or 0), 0) + run.evaluation

    seen: dict[str, float] = {}

    def of_examination(one: Examination) -> float:
        own = [recipe_of(cell) for cell in one.cells]
        # Seeds cost the same.
        key = repr([[(cell.recipe, cell.settings) for cell in one.cells], one.probes, one.headline])
        if key not in seen:
            seen[key] = costs.of_examination(own, one.probes, headline=one.headline)
        return seen[key]

    with threads(share_of_cores(jobs)):
        return StudyCost(tuple(map(left_of, study)), tuple(map(of_examination, examined)))


def dry_run_study(
    study: Sequence[Cell], *, plugins: Sequence[str] = (), trust: bool = False, device: torch.device, jobs: int
) -> tuple[list[str], float]:
    """The cells with their state and what is left of each, and the estimated time of all, in seconds."""
    cost = cost_of(study, plugins=plugins, trust=trust, device=device, jobs=jobs)
    return describe_study(study, cost, device=device, jobs=jobs), sum(cost.cells) / jobs


def describe_study(study: Sequence[Cell], cost: StudyCost, *, device: torch.device, jobs: int) -> list[str]:
    """A line a cell, with its state and the time that is left of it, and one that sums up."""
    width = max(len(cell.title) for cell in study)
    times = ["" if cell.done else duration(seconds) for cell, seconds in zip(study, cost.cells, strict=True)]
    wide = max(map(len, times))
    lines = [
        f"{cell.title:<{width}}  {cell.state:<9}  {time:>{wide}}  {cell.folder}"
        for cell, time in zip(study, times, strict=True)
    ]
    left = sum(not cell.done for cell in study)
    cells = f"{len(study)} cell{'s' * (len(study) > 1)}"
    whole = duration(sum(cost.cells) / jobs)
    return [
        *lines,
        f"{cells}, {left} to do: about {whole} on {device}, {jobs} at a time; from a batch of each network timed now, as busy as this machine is",
    ]


def work_of(study: Sequence[Cell], *, plugins: Sequence[str] = (), trust: bool = False) -> dict[Path, Work]:
    """What each cell that is to be run costs, by its folder, counted with two made-up images on the CPU; nothing where one cannot be counted."""
    counted: dict[tuple[str, tuple[str, ...]], Work] = {}
    try:
        for cell in study:
            key = (cell.recipe, cell.settings)
            if not cell.done and key not in counted:
                counted[key] = _work(cell, plugins=plugins, trust=trust)
    # Whatever is wrong with it, its own run will say.
    except Exception:
        return {}
    return {cell.folder: counted[key] for cell in study if (key := (cell.recipe, cell.settings)) in counted}


def _work(cell: Cell, *, plugins: Sequence[str], trust: bool) -> Work:
    import torch

    from actkit.evaluation.cost import examination_of
    from actkit.training.dry_run import count

    recipe = load_recipe(cell.recipe, cell.settings, plugins=plugins, trust=trust)
    counted = count(recipe, folder=cell.folder, device=torch.device("cpu"))
    run, batches = counted.run, counted.batches
    looks = run.epochs // run.monitor_every
    names = [name for name, role in counted.roles.items() if role.classifies]
    monitored = looks * examination_of(run.monitor, counted.data, names).units
    a_step = counted.units * run.batch_size + monitored / batches
    return Work(a_step, batches, float(counted.evaluation.units), run.epochs)

"""The study behind a paper's items: trainings as `actkit run` makes them, shared by all items, and examinations of them."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actkit.config.recipe import load_evaluation, load_recipe
from actkit.config.spec import Spec
from actkit.errors import OK, InputError, nearest, raise_all
from actkit.evaluation.summary import Summary
from actkit.files import sha256, sha256_of
from actkit.networks import model_files
from actkit.reports.paper.papers import DEFAULT
from actkit.reports.paper.terms import Item, ItemExamination, ItemTraining, PaperScale, PublishedRow
from actkit.training.study import Cell, Examination, cell


@dataclass(frozen=True)
class ExaminationTask:
    """Trained models under an item's probes: a task as a study's cells are."""

    title: str
    folder: Path
    cells: tuple[Cell, ...]
    examination: ItemExamination
    # All that it will be of, once they are trained.
    wanted: tuple[Cell, ...]

    @property
    def summary(self) -> Summary | None:
        """What it found; None where that is not there or cannot be used."""
        try:
            found = Summary.load(self.folder)
        except InputError:
            return None
        return found if found.models and found.results and found.data_fingerprint else None

    @property
    def done(self) -> bool:
        """Whether it looked at the very models that are there now."""
        summary = self.summary
        if summary is None:
            return False
        now = {_sum(file) for c in self.cells for file in model_files.current(c.folder)}
        # Of models that are gone, what was found still stands.
        return not now or {model.sha256 for model in summary.models.values()} <= now

    @property
    def code(self) -> int:
        """3 where a check found what makes its numbers unbelievable."""
        summary = self.summary
        return OK if summary is None else summary.exit_code

    @property
    def because(self) -> Sequence[str]:
        summary = self.summary
        return [] if summary is None else summary.because

    @property
    def possible(self) -> bool:
        """Whether its models are trained, and there are enough of them."""
        return len(self.cells) > self.examination.together and all(c.done for c in self.cells)

    def command(self, extra: Sequence[str]) -> list[str]:
        models = [part for c in self.cells for part in ("--ckpt", str(c.folder))]
        how = [part for s in self.examination.settings for part in ("-s", s)]
        roles = [part for r in self.examination.roles for part in ("--role", r)]
        evaluation = ["--evaluation", self.examination.file]
        return ["probe", *models, *roles, *evaluation, *how, "--out", str(self.folder), *extra]


@dataclass(frozen=True)
class PaperStudy:
    """What stands behind some items: every training, once, and where each item finds its own."""

    items: tuple[Item, ...]
    # In place of the items' own.
    seeds: tuple[int, ...] | None
    cells: Mapping[tuple[ItemTraining, int], Cell]
    out: Path

    def seeds_of(self, item: Item) -> tuple[int, ...]:
        return item.seeds if self.seeds is None else self.seeds

    def cell(self, row: PublishedRow, seed: int) -> Cell:
        return self.cells[row.training, seed]

    @property
    def trainings(self) -> list[Cell]:
        return list({c.folder: c for c in self.cells.values()}.values())

    def task(self, item: Item, row: PublishedRow, seed: int) -> ExaminationTask | None:
        """The examination that a row's number comes from; None where it is the one that the training ends with."""
        how = item.examination
        if how is None:
            return None
        own = self.cell(row, seed)
        beside: tuple[Cell, ...] = (own,)
        wanted = beside
        # With those of its group that are there.
        if how.together:
            group = dict.fromkeys(self.cell(other, seed) for other in item.rows if other.group == row.group)
            wanted = tuple(group)
            beside = tuple(c for c in group if c.done)
        name = f"{Path(how.file).stem}-{own.folder.parent.name}-{own.folder.name}"
        if how.together:
            name = f"{Path(how.file).stem}-{slug(row.group)}-seed{seed}"
        key = [[s.to_json() for s in _evaluation(how)], how.roles, [c.folder.parts[-2:] for c in beside]]
        digest = sha256_of(key, 8)
        title = f"{Path(how.file).stem} of {row.block + f' seed {seed}' if how.together else own.title}"
        return ExaminationTask(title, self.out / "examined" / f"{name}-{digest}", beside, how, wanted)

    def examinations(self, *, possible: bool = True) -> list[ExaminationTask]:
        """Those that can be done with what is trained, or all."""
        found: dict[Path, ExaminationTask] = {}
        for item in self.items:
            for row in item.rows:
                for seed in self.seeds_of(item):
                    made = self.task(item, row, seed)
                    if made and (made.possible or not possible):
                        found.setdefault(made.folder, made)
        return list(found.values())

    def left_of(self, task: ExaminationTask) -> Examination:
        """An examination as a study's costs count it; of one that is done, nothing."""
        probes = () if task.done else tuple(_evaluation(task.examination))
        return Examination(task.wanted, probes, headline=task.examination.roles == ("headline",))


def paper_study(
    items: Sequence[Item],
    *,
    seeds: Sequence[int] | None = None,
    settings: Sequence[str] = (),
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: Path,
    runs: str | None = None,
) -> PaperStudy:
    """The study behind these items, every recipe read and checked.

    Settings that change more than where the data lie make it another study than the paper's, and the items say so. Raises `InputError` for settings that fit
    no recipe, or that make rows of one item the same training.
    """
    if macros := [s for s in settings if "." not in s.partition("=")[0]]:
        raise InputError(
            f"--set {macros[0]}: a scale has macros of its own", help="name a parameter, such as run.epochs=100"
        )
    changed = tuple(s for s in settings if not same_study(s))
    if changed:
        items = [dataclasses.replace(item, scale=_changed(item.scale, changed)) for item in items]
    cells: dict[tuple[ItemTraining, int], Cell] = {}
    problems: list[InputError] = []
    for item in items:
        for row in item.rows:
            training = row.training
            for seed in item.seeds if seeds is None else seeds:
                if (training, seed) in cells:
                    continue
                title = f"{Path(training.recipe).stem}{_of_scale(training)}"
                try:
                    own = (*training.settings, *settings)
                    cells[training, seed] = cell(
                        training.recipe, own, seed, title, plugins=plugins, trust=trust, out=runs
                    )
                except InputError as error:
                    problems += error.problems
    raise_all(problems)
    for item in items:
        _assert_apart(item, cells)
        if item.examination is not None or not changed:
            _assert_columns(item, tuple(plugins), trust)
    return PaperStudy(tuple(items), None if seeds is None else tuple(seeds), cells, out)


# Of a data set: where it lies and how it is read.
_WHERE = ("root", "download", "workers", "timeout")


def same_study(setting: str) -> bool:
    key = setting.partition("=")[0].strip().rpartition("/")[2]
    return (key.startswith("dataset.") and key.rpartition(".")[2] in _WHERE) or key in ("run.keep", "run.save_every")


def _changed(scale: PaperScale, settings: tuple[str, ...]) -> PaperScale:
    with_ = f"changed by {', '.join(settings)}"
    said = f"{scale.said}; {with_}, so that nothing here is to be held against the paper"
    return dataclasses.replace(scale, changed=settings, label=f"{scale.label}, {with_}", said=said)


def _assert_apart(item: Item, cells: Mapping[tuple[ItemTraining, int], Cell]) -> None:
    """Raise `InputError` where two rows that should differ are the same run under other names."""
    seen: dict[tuple[int, str], ItemTraining] = {}
    for (training, seed), own in cells.items():
        if training not in {row.training for row in item.rows}:
            continue
        other = seen.setdefault((seed, own.folder.name), training)
        if other != training:
            raise InputError(
                f"with these settings two rows of {item.name} are one and the same training",
                where=f"{other.recipe} {' '.join(other.settings)} and {training.recipe} {' '.join(training.settings)}",
                help="leave out the --set that changes what the rows differ in",
            )


def _assert_columns(item: Item, plugins: tuple[str, ...], trust: bool) -> None:
    """Raise `InputError` where a column's probe is none of the evaluation that its rows' models are examined with."""
    for row in item.rows:
        where, probes = _probes_of(item.examination or row.training, plugins, trust)
        for column in item.columns:
            if (label := column.label(row.reading)) is not None and label not in probes:
                raise InputError(
                    f"{item.name}, column {column.title!r}: there is no probe {label!r} in the evaluation",
                    where=where,
                    help=nearest(label, probes),
                )


def _of_scale(training: ItemTraining) -> str:
    told = [s.partition("=") for s in training.settings if s.startswith(("objective.", "role.backbone"))]
    return "".join(f" {key.rpartition('.')[2]}={value.removeprefix('@backbone.')}" for key, _, value in told)


def _sum(file: Path) -> str:
    about = file.stat()
    return _sum_of(file, about.st_mtime_ns, about.st_size)


@functools.cache
def _sum_of(file: Path, changed: int, size: int) -> str:
    return sha256(file)


@functools.cache
def _probes_of(
    how: ItemTraining | ItemExamination, plugins: tuple[str, ...], trust: bool
) -> tuple[str, frozenset[str]]:
    """The recipe that says how a model is examined, and the labels of its probes."""
    if isinstance(how, ItemExamination):
        return how.file, frozenset(probe.title for probe in _evaluation(how))
    read = load_recipe(how.recipe, how.settings, plugins=plugins, trust=trust)
    return how.recipe, frozenset(probe.title for probe in read.spec.kwargs["evaluation"])


@functools.cache
def _evaluation(how: ItemExamination) -> list[Spec]:
    return load_evaluation(how.file, how.settings)


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def place_of(scale: str, settings: Sequence[str], paper: str = DEFAULT) -> Path:
    """Where a scale's items go, apart from those of another paper, and of a study that settings have changed."""
    changed = sorted(s for s in settings if not same_study(s))
    mark = f"-{sha256_of(changed, 6)}" if changed else ""
    whose = "" if paper == DEFAULT else f"{paper}_"
    return Path("reproduced") / f"{whose}{scale}{mark}"

"""What a paper is made of: its tables and figures, and of each the rows, columns, published numbers, claims and scale.

Data alone. A paper is registered by a function that returns a `Paper`; `paper.act` is actkit's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actkit.errors import InputError, nearest


@dataclass(frozen=True)
class Published:
    """A number as the paper prints it.

    Args:
        value: in percent, 85.11, or as it is where its column is no percentage.
        std: its deviation, as the paper prints it; None where it prints none.
        note: why it means something else than ours beside it, so that no difference is given; '' where it means the same.
    """

    value: float
    std: float | None = None
    note: str = ""

    @staticmethod
    def line(text: str) -> tuple[Published | None, ...]:
        """A line of a table, '85.11±.19 - 50.53', as numbers; None for '-', where the paper has none."""
        found: list[Published | None] = []
        for part in text.split():
            value, _, std = part.partition("±")
            found.append(None if part == "-" else Published(float(value), float(std) if std else None))
        return tuple(found)

    def shown(self) -> str:
        """As it is printed in a table: '85.11 ± 0.19'."""
        digits = 5 if self.value < 1 and self.value != 0 and self.std is not None and self.std < 0.01 else 2
        return f"{self.value:.{digits}f}" + ("" if self.std is None else f" ± {self.std:.{digits}f}")


@dataclass(frozen=True)
class ItemTraining:
    """One row's model, but for its seed. Rows of several items that have the same share one training.

    Args:
        recipe: as `actkit run` takes it, 'gin/trades_digits.gin'.
        settings: as its `-s` takes them, ('run.epochs=20',).
    """

    recipe: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedColumn:
    """Which number of which probe stands here, and how it was measured in words.

    Args:
        title: what stands over the column, 'PGD-20'.
        probe: the label of its probe in the evaluation, 'pgd20' of `@pgd20/probe.robust_accuracy()`. Where the rows are several readings of the paper, the
            label is this with the row's reading after it.
        number: which of the probe's numbers, 'worst_run'.
        protocol: how it was measured, in words; stands below the table.
        percent: whether it is a fraction that is printed in percent.
        fixed: whether the probe is the same in all readings.
        only: the reading whose rows alone it belongs to; None for all.
        digits: those of what is no percentage.
        deviation: where the number is a mean over draws, the probe's number that says how far these lie apart.
    """

    title: str
    probe: str
    number: str
    protocol: str
    percent: bool = True
    fixed: bool = False
    only: str | None = None
    digits: int = 4
    deviation: str | None = None

    def label(self, reading: str) -> str | None:
        """The label of its probe in a row; None where it does not belong there."""
        if self.only is not None:
            return self.probe if reading == self.only else None
        return self.probe if self.fixed else self.probe + reading


@dataclass(frozen=True)
class PublishedRow:
    """A model, and what the paper prints of it.

    Args:
        group: what the rows of one network and data set have in common, 'WRN-34-10, CIFAR-10'; what comes after a ';' is how its attack is read.
        method: what the model is called in the table.
        training: what trains it.
        paper: what the paper prints, in the order of the columns; None where it has no number, and at the end numbers may be left out.
        role: which of the trained models it is; '' for the headline model.
        reading: where the rows are several readings of the paper, which one.
        at: where the groups are the values of one setting, as in Table 1 of ACT, its name and the value.
    """

    group: str
    method: str
    training: ItemTraining
    paper: tuple[Published | None, ...] = ()
    role: str = ""
    reading: str = ""
    at: tuple[str, float] | None = None

    @property
    def block(self) -> str:
        """The network and the data, without how its attack is read: 'ResNet-50, ImageNet' of 'ResNet-50, ImageNet; attack step 1/255'."""
        return self.group.partition(";")[0]


@dataclass(frozen=True)
class Claim:
    """What the paper says of its numbers, so that ours can be held against it.

    Args:
        said: the claim, in words.
        column: the column that it is about.
        left: a row's method, in each group; or (group, method) where the groups themselves are compared.
        sense: how `left` stands to each of `right`.
        right: the others, each as `left` is.
    """

    said: str
    column: str
    left: str | tuple[str, str]
    sense: Literal["higher", "lower"]
    right: tuple[str | tuple[str, str], ...]


@dataclass(frozen=True)
class ItemExamination:
    """How the models of an item are examined, beyond what their own recipes do at the end of training.

    Args:
        file: a recipe with an evaluation, as `actkit probe --evaluation` takes it.
        settings: as its `-s` takes them.
        roles: which models of a training, by role or 'headline'; () for all.
        together: whether all models of a group are examined at once, since the probe compares them.
    """

    file: str
    settings: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("headline",)
    together: bool = False


@dataclass(frozen=True)
class Item:
    """A table or figure of a paper at one scale. Raises `InputError` where its parts do not fit each other.

    Args:
        name: what `actkit reproduce` takes: small letters and digits, 'table2'.
        title: what stands over it, 'Table 2: white-box attacks'.
        scale: how large the study is.
        seeds: those that each row is trained with.
        columns: in their order.
        rows: in their order, those of one group together.
        examination: how its models are examined; None for the evaluation that the recipes end with.
        claims: what the paper says of it.
        notes: what else a reader should know: what was left out, what the paper does not say.
        pictures: of the examination's, by name, those that belong to the item.
        swept: what a picture shows whose axis is the rows' `at`, 'Both models of ACT'.
    """

    name: str
    title: str
    scale: PaperScale
    seeds: tuple[int, ...]
    columns: tuple[PublishedColumn, ...]
    rows: tuple[PublishedRow, ...]
    examination: ItemExamination | None = None
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    swept: str = "Accuracy"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+", self.name):
            raise InputError(f"an item's name is of small letters and digits, got {self.name!r}", where=self.title)
        for what in ("seeds", "columns", "rows"):
            if not getattr(self, what):
                raise InputError(f"{self.name} has no {what}", where=self.title)
        for row in self.rows:
            if len(row.paper) > len(self.columns):
                raise InputError(
                    f"{self.name} has {len(self.columns)} columns, its row {row.method!r} has {len(row.paper)} published numbers",
                    where=self.title,
                )
        for claim in self.claims:
            self._assert_claim(claim)

    def _assert_claim(self, claim: Claim) -> None:
        titles = [column.title for column in self.columns]
        if claim.column not in titles:
            raise InputError(
                f"{self.name} has no column {claim.column!r}", where=claim.said, help=nearest(claim.column, titles)
            )
        methods = {row.method for row in self.rows}
        for side in (claim.left, *claim.right):
            if isinstance(side, str) and side not in methods:
                raise InputError(f"{self.name} has no row {side!r}", where=claim.said, help=nearest(side, methods))
            if not isinstance(side, str) and side not in {(row.group, row.method) for row in self.rows}:
                raise InputError(f"{self.name} has no row {side!r}", where=claim.said)


@dataclass(frozen=True)
class PaperScale:
    """How large a study is. `actkit reproduce` takes `full`, the paper's own settings, unless `--scale` says another.

    Args:
        name: what `--scale` takes.
        label: what everything made at this scale bears, 'small scale, on digits'.
        said: what the scale is, in full.
        whose: what our rows are called beside the paper's.
        unlike: why its numbers are of something else than the paper's, 'digits are not CIFAR-10', so that no difference is given; '' where they are of
            the same thing.
        changed: settings of the user's, that make it another study; actkit fills them in.
    """

    name: str
    label: str
    said: str
    whose: str = "ours"
    unlike: str = ""
    changed: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether its numbers and the paper's are of the same thing."""
        return not self.unlike and not self.changed


@dataclass(frozen=True)
class Paper:
    """A paper as `@register("paper")` takes it: what its tables and figures are, at every scale.

    Args:
        title: what it is about, 'Adversarial Concurrent Training'.
        source: who wrote it, 'Arani et al. 2020'.
        items: its tables and figures in its order, each at each scale that there is of it.
        elsewhere: of those that no training stands behind, by name: what each is, and what makes it.
    """

    title: str
    source: str
    items: Sequence[Item]
    elsewhere: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[tuple[str, str]] = set()
        for item in self.items:
            key = item.name, item.scale.name
            if key in seen:
                raise InputError(f"{item.name} is there twice at the scale {item.scale.name!r}", where=self.title)
            seen.add(key)
        if not seen:
            raise InputError("a paper has one item at least", where=self.title)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its items, in its order."""
        return tuple(dict.fromkeys(item.name for item in self.items))

    @property
    def scales(self) -> tuple[str, ...]:
        """The names of its scales."""
        return tuple(dict.fromkeys(item.scale.name for item in self.items))

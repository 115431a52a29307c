"""What a table or figure of the paper is made of: published numbers, rows, columns, claims, scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """A number as the paper prints it: percent, or as it is where its column is no percentage. One with a note means something else than ours beside it."""

    value: float
    std: float | None = None
    note: str = ""

    def shown(self) -> str:
        digits = 5 if self.value < 1 and self.value != 0 and self.std is not None and self.std < 0.01 else 2
        return f"{self.value:.{digits}f}" + ("" if self.std is None else f" ± {self.std:.{digits}f}")


@dataclass(frozen=True)
class Training:
    """One row's model, but for its seed: a recipe and the settings that the scale changes."""

    recipe: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedColumn:
    """Which number of which probe (by its label in the evaluation) stands here, and how it was measured in words.

    Where the rows are several readings of the paper, the probe is `<label><reading>`; a `fixed` one is the same in all, and one with `only` belongs to
    the rows of that reading. `digits` are those of what is no percentage. Where the number is a mean over draws, `deviation` is the probe's number that says how
    far these lie apart.
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
    """A model (`role` '' for the headline model) and what the paper prints of it, in the order of the columns.

    Args:
        at: where the groups are the values of one setting, as in Table 1, its name and the value.
    """

    group: str
    method: str
    training: Training
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
    """What the paper says of its numbers, so that ours can be held against it: in each group, `left` against each of `right`, in one column.

    A side is a method, or (group, method) where the groups themselves are compared.
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
        together: one for all models of a group, which the probe compares.
    """

    file: str
    settings: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("headline",)
    together: bool = False


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper at one scale.

    Args:
        examination: None for the evaluation that the recipes end with.
        pictures: of the examination's, those that belong to the item.
    """

    name: str
    title: str
    scale: Scale
    seeds: tuple[int, ...]
    columns: tuple[PublishedColumn, ...]
    rows: tuple[PublishedRow, ...]
    examination: ItemExamination | None
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """One network on one data set: what a group of rows has in common. Its recipes are gin/<method>_<recipes>.gin."""

    title: str
    recipes: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Args:
        label: what everything made at this scale bears; `said` is what the scale is, in full.
        blocks: by the paper's name of the block.
        examined: settings of every examination.
        limit: the setting of how many images the costly attacks look at.
        changed: settings of the user's, that make it another study.
    """

    name: str
    label: str
    said: str
    seeds: tuple[int, ...]
    blocks: Mapping[str, Block]
    examined: tuple[str, ...] = ()
    limit: str = ""
    changed: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether its numbers and the paper's are of the same thing."""
        return self.name == "full" and not self.changed

"""Names of classes: class 3 of a model and class 3 of the data are the same thing only where they are called the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from actkit.errors import InputError

# How classes that are called differently belong together: by their names, in whatever order, or by their numbers, whatever they are called.
Mapping = Literal["by_name", "by_number"]


def say_nothing(names: Sequence[str]) -> bool:
    """Whether there are no names, or they are numbers alone: such classes may be any."""
    return all(re.fullmatch(r"(?:class|label)?[ _-]?\d+", name.strip().casefold()) for name in names)


def _plain(names: Sequence[str]) -> list[str]:
    """Names without what only spelling differs in: case, blanks, underscores, hyphens."""
    return [re.sub(r"[\s_-]+", " ", name.strip().casefold()) for name in names]


def agree(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two lists of classes may mean the same, number by number. Lists of different lengths never do."""
    if len(a) != len(b) and a and b:
        return False
    return say_nothing(a) or say_nothing(b) or _plain(a) == _plain(b)


def order(
    have: Sequence[str],
    wanted: Sequence[str],
    mapping: Mapping | None,
    *,
    who: tuple[str, str],
    where: str | None = None,
    help: str | None = None,
) -> list[int] | None:
    """For each class that is wanted, its number among those that there are; None where the numbers are the same.

    Args:
        who: whose classes they are, for the message: ('the model', 'digits').

    Raises `InputError` where names or their order differ and no mapping is given, and for a mapping by names that are not the same.
    """
    if mapping == "by_number" or (mapping is None and agree(have, wanted)):
        return None
    a, b = _plain(have), _plain(wanted)
    if a == b:
        return None
    same_names = sorted(a) == sorted(b) and len(set(a)) == len(a)
    if mapping is None:
        i = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        how = "in another order" if same_names else "with other names"
        raise InputError(
            f"{who[0]} and {who[1]} have {len(a)} classes each, {how}: class {i} is {have[i]!r} in {who[0]}, {wanted[i]!r} in {who[1]}",
            where=where,
            help=help,
        )
    if not same_names:
        lack = next((name for name, plain in zip(wanted, b, strict=True) if plain not in a), None)
        said = f"{who[0]} has no class {lack!r}" if lack is not None else "a name is there twice"
        raise InputError(f"the classes cannot be matched by name: {said}", where=where)
    return [a.index(name) for name in b]


def reordered(weights: dict[str, Tensor], head: dict[str, int], numbers: Sequence[int]) -> dict[str, Tensor]:
    """Weights whose outputs come in another order: output i is what `numbers[i]` was.

    Args:
        head: the entries that belong to the classes, and which dimension counts them.

    Raises `InputError` where a dimension does not count the classes one by one.
    """
    index = torch.tensor(list(numbers))
    changed = dict(weights)
    for name, dim in head.items():
        if weights[name].shape[dim] != len(index):
            raise InputError(f"the classes of {name} cannot be put into another order")
        changed[name] = weights[name].index_select(dim, index.to(weights[name].device)).contiguous()
    if not head:
        raise InputError("the network's head cannot be told from the rest, so its classes stay in their order")
    return changed

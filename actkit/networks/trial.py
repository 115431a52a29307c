"""A trial of a network before anything long begins: does it take the data's images, and are its outputs what its role needs?

A classifier takes images (B, C, H, W) and gives logits (B, classes). A network that is another says so, in attributes of its module:

    takes: tuple[tuple[int, ...], ...]    the shapes of its inputs, without the batch
    gives: tuple[int, ...]                the shape of its outputs, without the batch
    classifies: bool                      False for what is not examined, such as a generator of perturbations
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actkit.errors import InputError, first_line
from actkit.networks.frozen import Mode
from actkit.networks.roles import Role


@dataclass(frozen=True)
class Sizes:
    """What a network takes and gives, without the batch."""

    takes: tuple[tuple[int, ...], ...]
    gives: tuple[int, ...]

    @staticmethod
    def of(role: Role, backbone: Any, shape: tuple[int, int, int], num_classes: int) -> Sizes:
        """As its module says; of one that says nothing, a classifier's. Raises `InputError` for a classifier of fewer classes than the data have."""
        takes, gives = getattr(role.model, "takes", None), getattr(role.model, "gives", None)
        sizes = Sizes(
            (shape,) if takes is None else tuple(tuple(one) for one in takes),
            (num_classes,) if gives is None else tuple(gives),
        )
        if role.classifies and (len(sizes.gives) != 1 or sizes.gives[0] < num_classes or sizes.takes != (shape,)):
            raise InputError(
                f"{backbone!r} says that it takes {_listed(sizes.takes)} and gives {sizes.gives}; a classifier of these data takes {shape} and gives ({num_classes},)",
                help="a network that is no classifier says so: classifies = False, beside takes and gives",
            )
        return sizes

    def inputs(self, count: int, device: torch.device) -> list[Tensor]:
        return [torch.full((count, *one), 0.5, device=device) for one in self.takes]

    @property
    def taken(self) -> str:
        """In words: 'images of 3x32x32', or 'inputs of 3x32x32 and 10'."""
        return f"{'images' if len(self.takes) == 1 else 'inputs'} of {_listed(self.takes)}"


def _listed(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join("x".join(map(str, one)) for one in shapes)


def assert_takes(
    role: Role, backbone: Any, shape: tuple[int, int, int], num_classes: int, *, in_training: bool = False
) -> None:
    """Show a network images of a data set's shape: two, and one alone, as in a last batch. Raises `InputError`, which names the backbone, where it
    takes none, or gives other outputs than its role needs.

    Args:
        in_training: also in train mode, where some networks give more than logits.
    """
    sizes = Sizes.of(role, backbone, shape, num_classes)
    tries: list[tuple[Mode, int]] = [("eval", 2), ("eval", 1)]
    if in_training:
        tries.append(("train", 2))
    devices = [role.device] if role.device.type == "cuda" else []
    for mode, count in tries:
        during = " in training" if mode == "train" else ""
        try:
            # Dropout draws from the global generator.
            with torch.random.fork_rng(devices=devices), role.frozen(mode) as view, torch.no_grad():
                given = tuple(view(*sizes.inputs(count, role.device)).shape)
        except InputError as error:
            raise InputError(f"{backbone!r}{during}: {error.message}", where=error.where, help=error.help) from error
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, AttributeError) as error:
            raise InputError(f"{backbone!r} does not take {sizes.taken}{during}: {first_line(error)}") from error
        if given != (count, *sizes.gives):
            images = "2 images" if count == 2 else "1 image"
            wanted = f"logits of {num_classes} classes are" if sizes.gives == (num_classes,) else "what it says is"
            raise InputError(
                f"{backbone!r} gives {given} for {images}{during}; {wanted} wanted, {(count, *sizes.gives)}"
            )
    if in_training:
        role.forget_views()

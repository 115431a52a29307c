"""Triples of images: the clean one, the adversarial one, and their difference; as cells of a picture, and how a picture lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("clean", "adversarial", "difference")

# From darker over unchanged to brighter: blue and orange are told apart by all kinds of colour-blindness (after Okabe and Ito 2008).
DIVERGING = ("#084F8C", "#5FA8DC", "#F7F7F7", "#EE9A5C", "#A33B00")

# Images beside each other before a new line begins, in a picture of one model's.
_BESIDE = 2


@dataclass(frozen=True)
class Triple:
    """One image before and after: cells of a picture, each with `pixels` of shape (H, W, C) in [0,1], its `text`, and the class that it is taken for."""

    clean: Mapping[str, Any]
    adversarial: Mapping[str, Any]
    difference: Mapping[str, Any]

    @property
    def cells(self) -> tuple[Mapping[str, Any], ...]:
        return self.clean, self.adversarial, self.difference


@dataclass(frozen=True)
class Block:
    """Triples below each other, under the name of their model."""

    name: str
    triples: Sequence[Triple]


def cells_of(
    x: Tensor, x_adv: Tensor, *, label: str, predicted: str, distance: str, span: float
) -> list[dict[str, Any]]:
    """The three cells of an image; x and x_adv of shape (C, H, W).

    Args:
        label: the image's class; `predicted`: what the model takes the adversarial image for.
        distance: how far they are apart, in words.
        span: the change of a pixel at which the difference has its full colour. Its value 0.5 is no change; of a pixel the channel that changes most is shown.
    """
    change = x_adv - x
    largest = change.gather(0, change.abs().argmax(0, keepdim=True))
    return [
        {"pixels": _pixels(x), "text": f"true: {label}", "class": label},
        {"pixels": _pixels(x_adv), "text": f"model: {predicted}", "class": predicted},
        {"pixels": _pixels((largest / (2 * span) + 0.5).clamp(0, 1)), "text": distance, "map": "difference"},
    ]


def legend(span: float) -> str:
    """What the colours of a difference mean."""
    return f"In the difference a pixel (of its channels the one that changes most) is orange where it became brighter and blue where it became darker, in full colour from {span:.3g} on; white is no change."


def triples_of(cells: Sequence[Mapping[str, Any]]) -> list[Triple]:
    return [Triple(*cells[i : i + 3]) for i in range(0, len(cells) - 2, 3)]


def blocks_of(rows: Sequence[Mapping[str, Any]]) -> list[list[Block]]:
    """Bands of blocks beside each other. Of several models a block each, so that a line shows one image; of a single one its images in blocks."""
    if len(rows) == 1:
        triples = triples_of(rows[0]["cells"])
        length = -(-len(triples) // _BESIDE)
        parts = [triples[i : i + length] for i in range(0, len(triples), length)]
        return [[Block(rows[0]["name"] if i == 0 else "", part) for i, part in enumerate(parts)]]
    blocks = [Block(row["name"], triples_of(row["cells"])) for row in rows]
    return [blocks[i : i + 3] for i in range(0, len(blocks), 3)]


def _pixels(image: Tensor) -> list[list[list[float]]]:
    """(C, H, W) as rows of pixels, to 3 digits: what a picture keeps."""
    rows: list[list[list[float]]] = (image.permute(1, 2, 0) * 1000).round().div(1000).tolist()
    return rows

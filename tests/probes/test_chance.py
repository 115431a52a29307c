"""What chance alone does to counts: the exact tails, and the levels that follow from them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from actkit.findings import Counts
from actkit.probes.chance import LEVEL, NEEDED, at_least, compared, judged, level, shared


@pytest.mark.parametrize(
    ("count", "of", "share"), [(7, 7, 0.5), (3, 4, 0.5), (21, 200, 0.0625), (2, 32, 0.125), (5, 300, 0.0078125)]
)
def test_the_tail_is_the_binomials_own(count, of, share):
    p = Fraction(share)
    exact = sum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(count, of + 1))
    assert at_least(count, of, share) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(
    ("count", "of", "share", "wanted"),
    [(0, 5, 0.5, 1.0), (-3, 5, 0.5, 1.0), (6, 5, 0.5, 0.0), (1, 5, 0.0, 0.0), (5, 5, 1.0, 1.0), (0, 0, 0.5, 1.0)],
)
def test_the_tail_at_its_ends(count, of, share, wanted):
    assert at_least(count, of, share) == wanted


def outcomes(*counted: tuple[bool, bool, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(holds in the first, holds in the second, how many images)."""
    pairs = [pair for *pair, count in counted for _ in range(count)]
    one, other = torch.tensor(pairs, dtype=torch.bool).T
    return one, other


def test_two_outcomes_are_compared_on_the_images_where_they_differ_alone():
    """McNemar: of 8 images that differ, 7 or 8 in one direction have 9 of 256 ways."""
    counts = compared(*outcomes((True, True, 500), (True, False, 7), (False, True, 1), (False, False, 20)))
    assert counts == Counts(528, 7, 1, pytest.approx(9 / 256))
    assert counts.net == 6


@pytest.mark.parametrize(
    ("differ", "tolerance", "wanted"),
    [
        (((True, False, 2), (True, True, 30)), 1.5 / 32, "yellow"),
        (((True, False, 6), (True, True, 200)), 0.005, "yellow"),
        (((True, False, 7), (True, True, 200)), 0.005, "red"),
        (((True, False, 20), (False, True, 14), (True, True, 166)), 0.005, "yellow"),
        (((True, False, 20), (False, True, 4), (True, True, 176)), 0.005, "red"),
        (((True, False, 1), (True, True, 199)), 0.0075, "green"),
        (((False, True, 50), (True, True, 50)), 0.005, "green"),
    ],
    ids=[
        "2 of 32",
        "6 alone",
        "7 alone",
        "20 against 14",
        "20 against 4",
        "within the tolerance",
        "the other way round",
    ],
)
def test_red_is_beyond_chance_and_yellow_may_be_chance(differ, tolerance, wanted):
    assert level(compared(*outcomes(*differ)), tolerance) == wanted


def test_no_comparison_of_six_images_or_fewer_can_be_red():
    assert NEEDED == 7
    for images in range(1, NEEDED):
        assert level(compared(*outcomes((True, False, images))), 1.5 / images) != "red"
    assert level(compared(*outcomes((True, False, NEEDED))), 1.5 / NEEDED) == "red"


def test_what_is_said_after_the_counts():
    assert judged(Counts(9, 0), "green", "it misleads") == ""
    assert judged(Counts(9, 9, 0, 0.00195), "red", "it misleads") == ": it misleads (p = 0.0019)"
    assert judged(Counts(99, 99, 0, 1e-30), "red", "it misleads") == ": it misleads (p < 0.0001)"
    assert judged(Counts(9, 3, 0, 0.125), "yellow", "it misleads") == ": perhaps it misleads, perhaps chance (p = 0.12)"


def test_a_share_is_held_against_the_share_that_may_be():
    assert shared(1, 200, 0.005).beyond(LEVEL) is False
    assert shared(6, 200, 0.005).beyond(LEVEL) is True
    assert Counts(5, 5).beyond(LEVEL), "where chance has no part, it is beyond it"

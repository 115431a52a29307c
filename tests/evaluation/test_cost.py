"""What an examination costs, and how long it will still take."""

from __future__ import annotations

import pytest
import torch

from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.display import TimeLeft
from actkit.evaluation.cost import examination_of
from actkit.evaluation.threat import named_probe


def passes(spec, roles=("robust",)):
    data = Data("made_up", (1, 8, 8), tuple("abcdefghij"), {"test": 30}, lambda split: None)
    (piece, *_) = examination_of([spec.build()], data, roles).work
    forward, backward = (
        sum(n for p, n in piece.passes.items() if p.direction == way) for way in ("forward", "backward")
    )
    return piece.name, forward, backward, piece.images


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        # Unattacked, the steps, and the last point that PGD has not looked at.
        ("pgd20", 22, 20),
        ("pgd1000", 1002, 1000),
        ("fgsm", 3, 1),
        # APGD looks at its start and at every step, then once more at what it returns.
        ("apgd-ce", 103, 101),
        # The clean image tells the nine targets.
        ("apgd-t", 1 + 9 * 103, 9 * 101),
        ("square", 5003, 0),
    ],
)
def test_the_passes_of_an_image_that_nothing_breaks_are_what_algebra_says(name, forward, backward):
    assert passes(named_probe(name, eps="8/255")) == (f"robust.{name}", forward, backward, 30)


def test_a_limit_makes_it_cheaper_and_a_role_more_dearer():
    limited = Spec("probe", "accuracy", {"limit": 10})
    assert passes(limited) == ("robust.accuracy", 1, 0, 10)
    data = Data("made_up", (1, 8, 8), tuple("ab"), {"test": 30}, lambda split: None)
    cost = examination_of([limited.build()], data, ["robust", "natural"])
    assert (cost.units, cost.parts) == (20, 2)


def test_counting_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    passes(Spec("probe", "accuracy", {"batch_size": 7}))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_time_left_is_what_was_expected_until_the_speed_is_known():
    clock = [0.0]
    left = TimeLeft({"a": 10.0, "b": 30.0}, clock=lambda: clock[0])
    left.tell("a", 1, 10)
    assert left.left == 40
    # Half of the first piece took twice as long as expected.
    clock[0] = 10.0
    left.tell("a", 6, 10)
    assert left.left == pytest.approx(35 * 2)
    # What drops out makes a piece end early; it counts as done.
    clock[0] = 12.0
    left.tell("b", 1, 3)
    assert left.left == pytest.approx(30 * 12 / 10)


def test_what_was_kept_comes_at_once_and_says_nothing_of_the_speed():
    clock = [0.0]
    left = TimeLeft({"a": 100.0}, clock=lambda: clock[0])
    for part in range(1, 52):
        left.tell("a", part, 100)
    assert left.left == 50
    clock[0] = 20.0
    left.tell("a", 61, 100)
    assert left.left == pytest.approx(40 * 20 / 10)

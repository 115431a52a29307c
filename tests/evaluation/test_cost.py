"""What an examination costs, and how long it will still take."""

from __future__ import annotations

import pytest
import torch

from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.display import Expected, TimeLeft
from actkit.evaluation.cost import examination_of
from actkit.evaluation.threat import named_probe


def cost(spec, roles=("robust",)):
    data = Data("made_up", (1, 8, 8), tuple("abcdefghij"), {"test": 30}, lambda split: None)
    return examination_of([spec.build()], data, roles)


def passes(spec):
    made = cost(spec)
    return tuple(sum(n for p, n in made.passes.items() if p.direction == way) for way in ("forward", "backward"))


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
    assert passes(named_probe(name, eps="8/255")) == (forward, backward)


def test_the_work_is_told_in_the_order_in_which_it_is_done():
    names = [piece.name for piece in cost(Spec("probe", "autoattack", {"eps": 0.1, "targets": 2})).work]
    assert names == ["robust.autoattack/" + run for run in ("clean", "ce/0/0", "t/0/1", "t/0/2", "square/0/0")]


def test_a_limit_makes_it_cheaper_and_a_role_more_dearer():
    limited = Spec("probe", "accuracy", {"limit": 10, "batch_size": 4})
    assert cost(limited).units == 10
    assert (cost(limited, ("robust", "natural")).units, cost(limited, ("robust", "natural")).parts) == (20, 6)


def test_counting_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    passes(Spec("probe", "accuracy", {"batch_size": 7}))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_time_left_is_what_was_expected_until_the_speed_is_known():
    clock = [0.0]
    left = TimeLeft([Expected("a", 10, 10), Expected("b", 30, 3)], clock=lambda: clock[0])
    assert left.left == 40
    # Half of the first piece took twice as long as expected.
    clock[0] = 10.0
    for batch in range(5):
        left.done(f"a/{batch}")
    assert left.left == pytest.approx(35 * 2)
    # What drops out makes a piece end early: it is done when a later one is under way.
    clock[0] = 30.0
    left.done("b/0")
    assert left.left == pytest.approx(20 * 30 / 15)


def test_what_was_kept_is_not_waited_for_and_says_nothing_of_the_speed():
    clock = [0.0]
    left = TimeLeft([Expected("a", 100, 100)], [f"a/{batch}" for batch in range(50)], clock=lambda: clock[0])
    assert left.left == 50
    clock[0] = 20.0
    for batch in range(50, 60):
        left.done(f"a/{batch}")
    assert left.left == pytest.approx(40 * 20 / 10)

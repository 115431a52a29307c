"""Goals slice the targets of the examples that an attack asks about; a loss that slices by itself is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from actkit.attacks import away_from, expectation, fgsm, pgd, square
from actkit.attacks.goals import ActiveSet, ascend
from actkit.errors import InputError
from actkit.losses import cross_entropy, kl, kl_from, mimicry
from actkit.noise import Noise, seed_for

ROWS = {"all": slice(None), "some": torch.tensor([4, 0, 2])}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


def made(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noise = Noise(torch.arange(n), 1)
    return noise.uniform(3, 2, 2), noise.integers(3), noise.normal(3)


def same(new, old, x, rows) -> bool:
    """Whether two goals give the same values and gradients, bit for bit."""
    pairs = zip(ascend(new, x[rows], rows), ascend(old, x[rows], rows), strict=True)
    return all(a is b is None or a.equal(b) for a, b in pairs)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_each_target_is_sliced_by_the_rows(model, rows):
    x, y, _ = made()
    old = lambda at, rows: (cross_entropy(model(at), y[rows]), None)
    assert same(away_from(model, cross_entropy, y), old, x, rows)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("attack_cross_entropy", ["example", "batch_mean"])
def test_mimicry_away_from_labels_and_guide_is_equation_1_of_the_perturbation(model, rows, attack_cross_entropy):
    """In both readings: the label's loss of each example, and the released code's mean of it over the batch."""
    x, y, guide = made()
    weight = 1 / len(x) if attack_cross_entropy == "batch_mean" else 1.0

    def old(at, rows):
        logits = model(at)
        task = weight * cross_entropy(logits, y[rows])
        return (1 - 0.9) * task + 0.9 * kl(guide[rows], logits, temperature=2.0), None

    discrepancy = partial(mimicry, alpha=0.9, temperature=2.0, label_weight=weight)
    assert same(away_from(model, discrepancy, y, guide), old, x, rows)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_kl_from_the_clean_prediction_is_the_goal_of_trades(model, rows):
    x, _, clean = made()
    assert same(away_from(model, kl_from, clean), lambda at, rows: (kl(clean[rows], model(at)), None), x, rows)


def test_a_loss_of_the_logits_alone_needs_no_target(model):
    x, _, _ = made()
    value, fooled = away_from(model, lambda logits: logits.logsumexp(1))(x, slice(None))
    assert value.equal(model(x).logsumexp(1))
    assert fooled is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, rows: cross_entropy(logits, rows),
        lambda logits, rows, y=None: cross_entropy(logits, y[rows]),
        partial(lambda weight, logits, rows: weight * logits[rows], 2.0),
        cross_entropy,
    ],
    ids=["a lambda of logits and rows", "one with defaults", "a partial", "a loss whose target is forgotten"],
)
def test_a_loss_that_takes_rows_is_refused_with_the_new_form(model, loss):
    with pytest.raises(InputError, match="slices the rows of its targets itself now") as refused:
        away_from(model, loss)
    assert "write away_from(model, cross_entropy, y), not away_from(model, lambda logits, rows" in refused.value.help


@pytest.mark.parametrize("attack", [partial(pgd, step_size=0.05, steps=2), fgsm, partial(square, queries=3)])
def test_an_attack_is_one_line(model, attack):
    x, y, guide = made()
    noise = Noise(torch.arange(len(x)), 0)
    x_adv = attack(away_from(model, partial(mimicry, alpha=0.9), y, guide), x, noise=noise, eps=0.1)
    assert (mimicry(model(x_adv), y, guide, alpha=0.9) > mimicry(model(x), y, guide, alpha=0.9)).any()


# -- who is still attacked -----------------------------------------------------------------------------------------------


def test_an_example_leaves_when_an_eighth_of_the_batch_has_won():
    active = ActiveSet(torch.zeros(16, 1))
    one = torch.arange(16) == 3
    assert active.drop(one, torch.zeros(16, 1)) is None, "one of 16 does not pay"
    two = torch.arange(16) < 2
    left = active.drop(two, torch.arange(16.0)[:, None])
    assert left.tolist() == list(range(2, 16)) == active.rows.tolist()
    assert active.results(torch.full((14, 1), 7.0))[:, 0].tolist() == [0.0, 1.0, *[7.0] * 14]


def test_nobody_leaves_where_nobody_asks_who_has_won():
    active = ActiveSet(torch.zeros(4, 1))
    assert active.drop(None, torch.zeros(4, 1)) is None
    assert active.results(torch.ones(4, 1)).equal(torch.ones(4, 1))


def at_random(x, rows):
    """A goal that answers at random: value w . x for weights of each call's own, won where that is above 0."""
    value = x.flatten(1) @ torch.randn(x[0].numel())
    return value, value > 0


def drawn(x, seed, call, draws):
    """What `at_random` answers under the seeds of these draws."""
    found = []
    for draw in range(draws):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, call, draw))
            found.append(ascend(at_random, x, slice(None)))
    return [torch.stack(part) for part in zip(*found, strict=True)]


def test_an_expectation_is_the_mean_of_its_draws_and_so_is_its_gradient():
    x = torch.rand(5, 1, 2, 2) - 0.5
    goal = expectation(at_random, 7, seed=3)
    for call in range(2):
        value, fooled, gradient = ascend(goal, x, slice(None))
        values, wins, gradients = drawn(x, 3, call, 7)
        assert torch.allclose(value, values.mean(0), atol=1e-6)
        assert torch.allclose(gradient, gradients.mean(0), atol=1e-6)
        assert fooled.equal(wins.double().mean(0) > 0.5)


def test_an_expectation_draws_anew_at_each_call_repeats_itself_and_leaves_the_global_generator_alone():
    x, before = torch.rand(5, 1, 2, 2), torch.get_rng_state()
    goal = expectation(at_random, 2)
    first, second = (goal(x, slice(None))[0] for _ in range(2))
    assert not first.equal(second)
    assert expectation(at_random, 2)(x, slice(None))[0].equal(first)
    assert torch.get_rng_state().equal(before)


def test_an_expectation_over_a_goal_that_does_not_tell_does_not_tell():
    goal = expectation(lambda x, rows: (x.flatten(1).sum(1), None), 3)
    value, fooled = goal(torch.ones(2, 1, 2, 2), slice(None))
    assert value.tolist() == [4, 4] and fooled is None


def test_an_expectation_needs_a_draw():
    with pytest.raises(InputError, match="at least 1 draw, got 0"):
        expectation(at_random, 0)

"""Attacks against the closed forms of a linear model, and that they leave no trace."""

from __future__ import annotations

import copy
import functools
import itertools

import pytest
import torch
from torch import nn

from actkit.attacks import apgd, away_from, fgsm, norm_named, pgd, smallest_perturbation, square, targeted, untargeted
from actkit.attacks.apgd import checkpoints
from actkit.attacks.square import share
from actkit.losses import cross_entropy
from actkit.networks.roles import Role
from actkit.noise import Noise

D = 12
ORDER = {"linf": 1, "l2": 2, "l1": float("inf")}  # of the dual norm


def linear(d: int = D) -> tuple[nn.Module, torch.Tensor]:
    """Two classes, margin (w_1 - w_0) . x: the worst perturbation is known."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(d, 2))
    return model, (model[1].weight[1] - model[1].weight[0]).detach()


def inputs(n: int = 200, d: int = D) -> tuple[torch.Tensor, torch.Tensor, Noise]:
    noise = Noise(torch.arange(n), 3)
    return (
        noise.uniform(d, 1, 1, low=0.3, high=0.7),
        noise.integers(2),
        noise,
    )  # far enough from 0 and 1 that only eps binds


def margin(model: nn.Module, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((2 * y - 1) * (x.flatten(1) @ w + model[1].bias.diff())).detach()


def raising(model: nn.Module, y: torch.Tensor):
    """The goal that nobody watches: the attack goes on to its end."""
    return away_from(model, cross_entropy, y)


PGD = functools.partial(pgd, step_size=0.05, steps=40)


@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
@pytest.mark.parametrize("norm", ORDER)
def test_pgd_reaches_the_worst_margin_of_a_linear_model(norm, start):
    model, w = linear()
    x, y, noise = inputs()
    x_adv = PGD(raising(model, y), x, noise=noise, eps=0.1, norm=norm, start=start)
    worst = margin(model, w, x, y) - 0.1 * torch.linalg.vector_norm(w, ORDER[norm])
    assert torch.allclose(margin(model, w, x_adv, y), worst, atol=1e-5)


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (PGD, "linf"),
        (PGD, "l2"),
        (fgsm, "linf"),
        (fgsm, "l2"),
        (functools.partial(apgd, steps=30), "linf"),
        (functools.partial(apgd, steps=50), "l2"),
        (PGD, "l1"),
        (fgsm, "l1"),
        (functools.partial(apgd, steps=50), "l1"),
    ],
    ids=["pgd-linf", "pgd-l2", "fgsm-linf", "fgsm-l2", "apgd-linf", "apgd-l2", "pgd-l1", "fgsm-l1", "apgd-l1"],
)
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
def test_robust_accuracy_of_a_linear_model_is_the_closed_form(attack, norm, watched):
    model, w = linear()
    x, y, noise = inputs()
    goal = untargeted(model, y)
    eps = 0.05
    x_adv = attack(goal if watched else raising(model, y), x, noise=noise, eps=eps, norm=norm)
    worst = margin(model, w, x, y) - eps * torch.linalg.vector_norm(w, ORDER[norm])
    assert 40 < (worst < 0).sum() < 180, "a test where nearly all or none break would say little"
    assert goal(x_adv, slice(None))[1].equal(worst < 0)


def test_square_reaches_the_closed_form_on_images_with_few_pixels():
    """Its squares are corners of the ball: with one pixel a channel every corner can be reached."""
    model, w = linear(4)
    x, y, noise = inputs(d=4)
    goal = untargeted(model, y, loss="margin")
    x_adv = square(goal, x, noise=noise, eps=0.05, queries=300)
    worst = margin(model, w, x, y) - 0.05 * w.abs().sum()
    assert goal(x_adv, slice(None))[1].equal(worst < 0)


def test_the_worst_case_moves_each_pixel_by_eps_against_the_weight():
    model, w = linear()
    x, y, noise = inputs()
    x_adv = pgd(raising(model, y), x, noise=noise, eps=0.1, step_size=0.05, steps=10)
    expected = x.flatten(1) - 0.1 * (2 * y - 1)[:, None] * w.sign()
    assert torch.allclose(x_adv.flatten(1), expected, atol=1e-6)
    assert fgsm(raising(model, y), x, noise=noise, eps=0.1).flatten(1).allclose(expected, atol=1e-6)


ATTACKS = {
    "pgd": functools.partial(pgd, step_size=0.1, steps=3),
    "pgd unclipped start": functools.partial(pgd, step_size=0.1, steps=3, clip_start=False),
    "fgsm": fgsm,
    "apgd": functools.partial(apgd, steps=8),
    "square": functools.partial(square, queries=8),
}


@pytest.mark.parametrize(
    ("name", "norm"), [(n, norm) for n in ATTACKS for norm in ORDER if n != "square" or norm == "linf"]
)
@pytest.mark.parametrize("watched", [True, False])
def test_the_result_stays_in_the_ball_and_in_the_pixels(name, norm, watched):
    model, _ = linear()
    noise = Noise(torch.arange(100), 1)
    x, y = noise.uniform(12, 1, 1).round(decimals=0), noise.integers(2)  # at the border of [0,1]
    attack = ATTACKS[name] if norm == "linf" else functools.partial(ATTACKS[name], norm=norm)
    x_adv = attack(untargeted(model, y) if watched else raising(model, y), x, noise=noise, eps=0.3)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert norm_named(norm).length(x_adv - x).max() <= 0.3 + 1e-6


def test_eps_0_changes_nothing():
    model, _ = linear()
    x, y, noise = inputs()
    for name, attack in ATTACKS.items():
        assert attack(untargeted(model, y), x, noise=noise, eps=0.0).equal(x), name


@pytest.mark.parametrize("name", ATTACKS)
def test_who_has_won_is_dropped_and_the_others_are_not_touched_by_it(name):
    """The results of those who never win are the same, bit for bit, whether winners leave or nobody asks."""
    model, _ = linear()
    x, y, noise = inputs()
    sizes = []

    def counted(goal):
        def call(x, rows):
            sizes.append(len(x))
            return goal(x, rows)

        return call

    goal = untargeted(model, y)
    noise_of = lambda: Noise(torch.arange(200), 3)
    watched = ATTACKS[name](counted(goal), x, noise=noise_of(), eps=0.05)
    alone = ATTACKS[name](raising(model, y), x, noise=noise_of(), eps=0.05)
    held = ~goal(watched, slice(None))[1] & ~goal(alone, slice(None))[1]
    assert held.any()
    assert watched[held].equal(alone[held])
    if name != "fgsm":
        assert sizes[-1] < sizes[0] == 200


def test_apgd_looks_at_its_step_size_where_the_paper_says():
    """w_j = ceil(p_j N), p = 0, 0.22, 0.41, 0.57, 0.7, 0.8, 0.87, 0.93, 0.99 (Croce and Hein 2020)."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


def test_apgd_halves_its_step_and_goes_back_to_its_best_where_it_oscillates():
    """A valley of width much less than 2 eps: with a step of fixed size no point is near the top."""
    seen = []

    def goal(x, rows):
        seen.append(x.detach())
        return -(x - 0.5123).abs().flatten(1).sum(1), None

    x = torch.full((4, 1, 1, 1), 0.45)
    x_adv = apgd(goal, x, noise=Noise(torch.arange(4), 0), eps=0.1, steps=100)
    assert (x_adv - 0.5123).abs().max() < 0.002
    steps = torch.stack(seen).diff(dim=0).abs().amax(dim=(1, 2, 3, 4))
    assert steps[1] > 0.05 and steps[-5:].max() < 0.01


def test_targeted_goals_raise_the_target_and_win_by_any_wrong_class():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 5))
    x, _, noise = inputs()
    y = model(x).argmax(1)
    target = (y + 1) % 5
    goal = targeted(model, y, target)
    at = lambda x: (model(x).gather(1, target[:, None]) - model(x).gather(1, y[:, None])).mean()
    x_adv = apgd(lambda x, rows: (goal(x, rows)[0], None), x, noise=noise, eps=0.1, steps=20)
    assert at(x_adv) > at(x) + 0.05
    assert goal(x_adv, slice(None))[1].equal(model(x_adv).argmax(1) != y)


def test_square_changes_squares_that_shrink_and_asks_so_often():
    assert [share(q, 0.8) for q in (0, 10, 11, 51, 201, 8001)] == [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 512]
    changed, calls = [], []

    def goal(x, rows):
        calls.append(x.detach())
        return torch.arange(len(calls), len(calls) + 1).float().expand(len(x)), None  # every proposal is kept

    x = torch.full((3, 2, 8, 8), 0.5)
    square(goal, x, noise=Noise(torch.arange(3), 0), eps=0.1, queries=50)
    assert len(calls) == 51
    assert ((calls[0] - 0.5).abs() - 0.1).abs().max() < 1e-6 and calls[0].std(dim=2).max() == 0, "stripes of +-eps"
    for query, (before, after) in enumerate(itertools.pairwise(calls)):
        side = max(
            round((share(query * 200, 0.8) * 64) ** 0.5), 1
        )  # 50 queries: the schedule of 10,000 is shrunk 200 times
        for moved in (before != after).any(1):  # of each example: (height, width)
            for places in moved.nonzero().unbind(1):
                assert len(places) == 0 or places.max() - places.min() < side
        changed.append(side)
    assert (changed[0], changed[-1]) == (7, 1)
    assert not all((c[0] == c[1]).all() for c in calls), "every example has its own squares"


def test_square_keeps_only_what_raises_the_value():
    model, _ = linear(4)
    x, y, noise = inputs(d=4)
    values = []
    goal = away_from(model, cross_entropy, y)
    for queries in (1, 5, 20, 80):
        x_adv = square(goal, x, noise=Noise(torch.arange(200), 0), eps=0.05, queries=queries, rescale=False)
        values.append(goal(x_adv, slice(None))[0])
    for before, after in itertools.pairwise(values):
        assert (after >= before).all()


# -- the smallest perturbation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.3, 0.01, 1.0])
def test_fgsm_k_finds_the_smallest_perturbation_of_a_linear_model(start):
    """It is |margin| / ||w||_1; found within the last bisection step, and never below it."""
    model, w = linear()
    x, y, _ = inputs()
    x_adv, distance = smallest_perturbation(untargeted(model, y), x, eps=start)
    exact = (margin(model, w, x, y) / w.abs().sum()).clamp_min(0)
    assert (exact > 0).sum() > 50
    assert ((distance == 0) == (exact == 0)).all(), "what is misclassified already has distance 0"
    right = exact > 0
    assert (distance[right] >= exact[right] - 1e-6).all()
    assert (distance[right] <= exact[right] + max(start, 0.3) * 2**-19 + 1e-6).all()
    assert (untargeted(model, y)(x_adv, slice(None))[1]).all()
    assert torch.allclose((x_adv - x).flatten(1).abs().amax(1), distance, atol=1e-7)


def reference_fgsm_k(model, x, y, eps=0.3, k=20, steps=10):
    """foolbox 1.x and 2.x, one image at a time, written from its description (FGSM^k with exponential search and bisection)."""
    fooled = lambda x: model(x[None]).argmax(1).item() != y
    if fooled(x):
        return 0.0
    best = [float("inf")]

    def run(eps):
        x_adv = x
        for _ in range(steps):
            leaf = x_adv.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf[None]), torch.tensor([y])), leaf)
            x_adv = (x + (x_adv + eps / 6 * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
            if fooled(x_adv):
                best[0] = min(best[0], (x_adv - x).abs().max().item())
                return True
        return False

    for _ in range(k):
        if run(eps):
            break
        eps *= 1.5
    else:
        return float("inf")
    bad, good = 0.0, eps
    for _ in range(k):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if run(middle) else (good, middle)
    return best[0]


def test_fgsm_k_equals_a_search_one_image_at_a_time():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 3))
    x, _, _ = inputs(40)
    y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3  # misclassified
    _, distance = smallest_perturbation(untargeted(model, y), x)
    expected = torch.tensor([reference_fgsm_k(model, x[i], int(y[i])) for i in range(len(x))])
    assert torch.allclose(distance, expected, atol=1e-6)


def test_fgsm_k_says_where_it_finds_nothing():
    model = lambda x: torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], dim=1)
    x = torch.full((3, 1, 1, 1), 0.5)
    x_adv, distance = smallest_perturbation(untargeted(model, torch.tensor([0, 0, 1])), x, tries=3)
    assert distance.tolist() == [float("inf"), float("inf"), 0.0]
    assert x_adv.equal(x)


# -- starts, budgets, traces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_start", [True, False])
def test_the_uniform_start_is_in_the_pixels_only_if_clipped(clip_start):
    seen = []

    def goal(x, rows):
        seen.append(x.detach())
        return x.flatten(1).sum(1), None

    x = torch.zeros(50, 3, 2, 2)
    pgd(goal, x, noise=Noise(torch.arange(50), 0), eps=0.1, step_size=0.01, steps=1, clip_start=clip_start)
    assert bool(seen[0].min() < 0) is not clip_start
    assert seen[0].abs().max() <= 0.1


@pytest.mark.parametrize("attack", [functools.partial(pgd, step_size=0.001, steps=1), functools.partial(apgd, steps=1)])
def test_starts_differ_by_noise_and_repeat_with_it(attack):
    model, _ = linear()
    x, y, _ = inputs()
    first = []

    def goal(x, rows):
        first.append(x.detach())
        return cross_entropy(model(x), y[rows]), None

    for key in (1, 1, 2):
        attack(goal, x, noise=Noise(torch.arange(200), key), eps=0.1)
    calls = len(first) // 3
    assert first[0].equal(first[calls])
    assert not first[0].equal(first[2 * calls])


def test_the_l2_start_is_uniform_in_the_ball():
    seen = []
    x = torch.full((4000, 3, 1, 1), 0.5)
    goal = lambda x, rows: (seen.append(x.detach()) or x.flatten(1).sum(1), None)
    pgd(goal, x, noise=Noise(torch.arange(4000), 0), eps=0.2, step_size=0.01, steps=1, norm="l2")
    radius = (seen[0] - x).flatten(1).norm(dim=1) / 0.2
    assert radius.max() <= 1 + 1e-6
    assert abs((radius**3).mean() - 0.5) < 0.02  # in 3 dimensions radius^3 is uniform


@pytest.mark.parametrize("norm", ORDER)
def test_the_sphere_is_the_border_of_the_ball(norm):
    x = torch.zeros(50, 3, 4, 4)
    assert torch.allclose(
        norm_named(norm).length(norm_named(norm).sphere(Noise(torch.arange(50), 0), x)), torch.ones(50)
    )


BAD = {
    "negative eps": ({"eps": -0.1}, "eps must not be negative"),
    "eps in grey levels": ({"eps": 8.0}, "eps must not be above 1, got 8.0.*perhaps '8/255'"),
    "eps that is no number": ({"eps": float("nan")}, "eps must not be negative, got nan"),
    "no steps": ({"steps": 0}, "at least 1 step"),
    "negative step": ({"step_size": -1.0}, "step_size must not be negative"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_budget_that_makes_no_sense_is_refused(change, message):
    x = torch.zeros(1, 1, 1, 1)
    goal = lambda x, rows: (x.flatten(1).sum(1), None)
    settings = {"eps": 0.1, "step_size": 0.1, "steps": 1, **change}
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pgd(goal, x, noise=Noise(torch.arange(1), 0), **settings)


def test_an_l2_eps_may_be_above_1():
    goal = lambda x, rows: (x.flatten(1).sum(1), None)
    x = torch.full((1, 3, 4, 4), 0.5)
    x_adv = pgd(goal, x, noise=Noise(torch.arange(1), 0), eps=3.5, step_size=4.0, steps=1, norm="l2", start="none")
    assert x_adv.equal(torch.ones_like(x))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_attack_leaves_gradients_buffers_mode_and_random_state_as_they_were(name, mode, precision):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), precision=precision)
    noise = Noise(torch.arange(8), 0)
    x, y = noise.uniform(1, 8, 8), noise.integers(3)
    cross_entropy(role(x), y).mean().backward()  # gradients are there already
    model[1].eval()  # and the modes are mixed
    state, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    with role.frozen(mode) as g:
        x_adv = ATTACKS[name](untargeted(g, y), x, noise=noise, eps=0.1)
        smallest_perturbation(untargeted(g, y), x, tries=2)
    assert x_adv.dtype == torch.float32
    assert not x_adv.requires_grad
    assert all(v.equal(model.state_dict()[k]) for k, v in state.items())
    assert all(p.grad.equal(g) for p, g in zip(model.parameters(), grads))
    assert all(p.requires_grad for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert torch.get_rng_state().equal(random)

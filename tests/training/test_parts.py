"""Batches in parts, several batches in one update, and labels that are shares of classes."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from actkit.config.registry import Attack, Objective, register
from actkit.config.spec import Spec
from actkit.datasets import Split
from actkit.errors import InputError
from actkit.losses import cross_entropy
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.training.loop import fit, update
from helpers.models import PGD, batch, make_roles, step
from helpers.runs import QUICK, Mute, go, recipe, same, weights

COUNT = 128
X, Y = Noise(torch.arange(COUNT), 5).uniform(1, 8, 8), torch.arange(COUNT) % 3


def plain_roles(*names: str) -> dict[str, Role]:
    """Networks without batch statistics."""
    made = {}
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        made[name] = Role(name, model, optimizer=sgd)
    return made


def after(objective: Spec, accumulate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights after two updates, and the losses of the last."""
    built = objective.build()
    roles, losses = plain_roles(*built.roles), []
    for number in range(2):
        noise = Noise(torch.arange(COUNT), number)
        losses += update(built, X, Y, roles, noise=noise, accumulate=accumulate)
    flat = [p.detach().flatten() for role in roles.values() for p in role.model.parameters()]
    assert len(losses) == 2
    return torch.cat(flat), torch.cat(list(losses[-1].values()))


@register("objective", "test_two_batches")
def two_batches(x, y, robust, *, attack: Attack, noise):
    with robust.frozen("eval") as f:
        x_adv = attack(lambda x, rows: (cross_entropy(f(x), y[rows]), None), x, noise=noise)
    yield {robust: [cross_entropy(robust(x), y), 2 * cross_entropy(robust(x_adv), y)]}


OBJECTIVES = {
    "natural": Spec("objective", "natural"),
    "madry": Spec("objective", "madry", {"attack": PGD}),
    "trades": Spec("objective", "trades", {"attack": PGD}),
    "act": Spec("objective", "act", {"attack": PGD}),
    "act as released": Spec(
        "objective", "act", {"attack": PGD, "temperature": 4.0, "attack_cross_entropy": "batch_mean"}
    ),
    "fast": Spec("objective", "fast", {"eps": 0.1}),
    "several batches": Spec("objective", "test_two_batches", {"attack": PGD}),
}


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_make_the_update_of_the_whole_batch_without_batch_statistics(name, parts):
    whole, losses = after(OBJECTIVES[name], 1)
    cut, of_parts = after(OBJECTIVES[name], parts)
    assert (whole - cut).abs().max() < 1e-6
    if name != "several batches":
        assert torch.allclose(losses, of_parts, atol=1e-5)
    assert float(losses.mean()) == pytest.approx(float(of_parts.mean()), abs=1e-5)


def test_parts_are_told_the_whole_batchs_size_and_their_own_numbers():
    told = []

    @register("objective", "test_told")
    def asks(x, y, robust, *, ids, batch_size: int | None = None):
        told.append((len(x), batch_size, ids.tolist()))
        yield {robust: cross_entropy(robust(x), y)}

    objective = Spec("objective", "test_told").build()
    list(update(objective, X[:5], Y[:5], plain_roles("robust"), ids=torch.arange(5) + 70, accumulate=2))
    list(update(objective, X[:1], Y[:1], plain_roles("robust"), accumulate=2))
    assert told == [(3, 5, [70, 71, 72]), (2, 5, [73, 74]), (1, 1, [0])]


def test_a_part_ends_before_the_next_begins_and_the_update_comes_last():
    seen = []

    @register("objective", "test_moves_weights")
    def moves(x, y, robust):
        weight = robust.model[-1].weight
        seen.append(("begin", float(weight[0].detach().sum())))
        weight.data.add_(1)
        yield {robust: cross_entropy(robust(x), y)}
        weight.data.sub_(1)
        seen.append(("end", float(weight[0].detach().sum())))

    roles = plain_roles("robust")
    list(update(Spec("objective", "test_moves_weights").build(), X, Y, roles, accumulate=2))
    assert [what for what, _ in seen] == ["begin", "end", "begin", "end"]
    assert [value for _, value in seen] == pytest.approx([seen[0][1]] * 4, abs=1e-4)
    assert float(roles["robust"].model[-1].weight[0].detach().sum()) != pytest.approx(seen[0][1], abs=1e-4)


def test_an_objective_that_updates_more_than_once_a_batch_is_refused_in_parts():
    free = Spec("objective", "free", {"eps": 0.1, "step_size": 0.1, "replays": 2}).build()
    with pytest.raises(InputError, match=r"objective.free updates more than once a batch.*\(run.accumulate = 2\)"):
        list(update(free, X, Y, plain_roles("robust"), accumulate=2))


def test_a_run_in_parts_is_counted_as_one_whole_and_resumes_bit_for_bit(write, tmp_path, actkit):
    made = recipe(write, "run.accumulate=2")
    assert go(made, tmp_path / "straight").exit_code == 0
    assert go(made, tmp_path / "stopped", Mute(4)).exit_code == 75
    assert go(made, tmp_path / "stopped").exit_code == 0
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))
    said = [actkit("run", tmp_path / "quick.gin", "--dry-run", "-s", f"run.accumulate={n}").out for n in (1, 3)]
    units = [re.search(r"a step +(\d+) units", text)[1] for text in said]
    assert units[0] == units[1]
    assert "in 3 parts one after the other, 43 images at once in memory" in said[1]
    assert "parts" not in said[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run.accumulate=0"], "run.accumulate must be at least 1"),
        (["run.accumulate=200"], "cuts a batch into more parts than its 128 images"),
    ],
    ids=["none", "more than images"],
)
def test_parts_that_cannot_be_are_told(write, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        go(recipe(write, *settings), tmp_path / "run")


# -- several batches of different size in one update -----------------------------------------------------------------------


def yields(losses_of):
    objective = Spec("objective", "natural").build()

    def body(x, y, robust):
        yield {robust: losses_of(x, y, robust)}

    objective.component, objective.roles = body, ("robust",)
    return objective


def test_the_means_of_several_vectors_are_added_and_each_example_counts_their_sum():
    parts = lambda x, y, robust: [cross_entropy(robust(x), y), 0.5 * cross_entropy(robust(x[:2]), y[:2])]
    roles, by_hand = plain_roles("robust"), plain_roles("robust")["robust"]
    (found,) = step(yields(parts), roles)
    x, y, _ = batch()
    total = cross_entropy(by_hand(x), y).mean() + 0.5 * cross_entropy(by_hand(x[:2]), y[:2]).mean()
    total.backward()
    by_hand.step()
    for mine, hand in zip(roles["robust"].model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.allclose(mine, hand, atol=1e-7)
    assert found["robust"].tolist() == pytest.approx([total.item()] * 6)


def test_the_epochs_mean_loss_weighs_a_batch_of_several_vectors_by_its_examples():
    half = lambda x, y, robust: (cross_entropy(robust(x), y), 0 * cross_entropy(robust(x[:1]), y[:1]) + len(x))
    records = list(fit(yields(half), plain_roles("robust"), Split(X[:10], Y[:10]), epochs=1, batch_size=8))
    one = lambda x, y, robust: cross_entropy(robust(x), y)
    alone = list(fit(yields(one), plain_roles("robust"), Split(X[:10], Y[:10]), epochs=1, batch_size=8))
    # Batches of 8 and 2 add 8 and 2.
    assert records[-1].losses["robust"] - alone[-1].losses["robust"] == pytest.approx((8 * 8 + 2 * 2) / 10, abs=1e-4)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([], "must yield vectors of losses in its list to 'robust', got nothing"),
        ([torch.tensor(1.0)], r"got a tensor of shape \(\)"),
        ((torch.ones(3), torch.ones(0)), r"in its tuple to 'robust', got a tensor of shape \(0,\)"),
        ([3.0], "got float"),
    ],
    ids=["empty", "a mean", "an empty vector", "a number"],
)
def test_vectors_of_losses_that_are_none_are_told(losses, message):
    with pytest.raises(InputError, match=message):
        step(yields(lambda x, y, robust: losses), make_roles("robust"))


# -- labels that are shares of classes -------------------------------------------------------------------------------------


@register("objective", "test_wraps")
class wraps:
    def __init__(self, *, objective: Objective):
        self.inner, self.roles = objective, objective.roles

    def __call__(self, x, y, *models, noise, progress):
        yield from self.inner(x, y, *models, noise=noise, progress=progress)


@register("objective", "test_hard_alone")
def hard_alone(x, y, robust):
    yield {robust: torch.nn.functional.nll_loss(robust(x).log_softmax(1), y, reduction="none")}


TAKES = {
    "natural": {}, "madry": {"attack": PGD}, "trades": {"attack": PGD}, "act": {"attack": PGD, "label_smoothing": 0.1},
    "free": {"eps": 0.1, "step_size": 0.1}, "fast": {"eps": 0.1},
    "test_wraps": {"objective": Spec("objective", "madry", {"attack": PGD})},
}  # fmt: skip


@pytest.mark.parametrize("name", TAKES)
def test_one_hot_shares_train_as_the_labels_do(name):
    objective, found = Spec("objective", name, TAKES[name]), []
    assert objective.takes_soft_labels
    for y in (Y, nn.functional.one_hot(Y, 3).float()):
        built = objective.build()
        roles = plain_roles(*built.roles)
        list(update(built, X, y, roles, noise=Noise(torch.arange(COUNT), 0)))
        found.append(torch.cat([p.detach().flatten() for role in roles.values() for p in role.model.parameters()]))
    assert torch.allclose(*found, atol=1e-6)


class Shares(Split):
    """A split of a plugin's whose labels are shares, as several people's opinions are."""

    def batches(self, groups, *, device="cpu", key=None):
        for _, (x, y) in zip(groups, super().batches(groups, device=device, key=key), strict=True):
            yield x, self.wrong(0.8 * nn.functional.one_hot(y, 3).float() + 0.2 / 3) if key else y

    wrong = staticmethod(lambda y: y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda y: 1.001 * y, "sum to 1.001 to 1.001"),
        (lambda y: y - 0.1 * torch.tensor([1, 1, -2]), "these span -0.03"),
        (lambda y: y * float("nan"), "these span nan"),
        (lambda y: y.bool(), r"soft labels are floating, of shape \(images, classes\), these are bool"),
    ],
    ids=["too much", "below 0", "no number", "no shares"],
)
def test_shares_that_are_none_are_told_at_the_first_batch(wrong, message, monkeypatch):
    train = lambda: list(fit(Spec("objective", "natural").build(), plain_roles("natural"), Shares(X, Y), epochs=1, batch_size=64))  # fmt: skip
    assert len(train()) == 2
    monkeypatch.setattr(Shares, "wrong", staticmethod(wrong))
    with pytest.raises(InputError, match=message):
        train()


def test_an_objective_that_takes_one_class_an_image_is_refused_before_anything_runs(write, tmp_path, actkit):
    text = (
        QUICK.replace("act_digits", "digits")
        + "run.objective = @objective.test_hard_alone()\nrun.data = @dataset.mixup()\ndataset.mixup.data = @dataset.digits()\n"
    )
    made, message = recipe(write, text=text), "objective.test_hard_alone takes one class an image"
    with pytest.raises(InputError, match=message) as told:
        go(made, tmp_path / "run")
    assert "these take them: act, fast, free, madry, natural, trades" in told.value.help
    assert not (tmp_path / "run").exists()
    said = actkit("run", tmp_path / "quick.gin", "--dry-run")
    assert said.code == 2
    assert message in said.err
    with pytest.raises(InputError, match=message):
        list(fit(made.spec.kwargs["objective"].build(), plain_roles("robust"), Shares(X, Y), epochs=1, batch_size=64))
    inner = Spec("objective", "test_wraps", {"objective": Spec("objective", "test_hard_alone")})
    assert not inner.takes_soft_labels


MIXED = """
run.data = @dataset.mixup()
dataset.mixup.data = @dataset.mixed()
dataset.mixed.data = @dataset.noisy_labels()
dataset.noisy_labels.data = @dataset.digits()
dataset.noisy_labels.share = 0.1
dataset.mixed.extra = @extra/dataset.digits()
extra/dataset.digits.split_seed = 1
dataset.mixed.share = 0.25
dataset.digits.crop = 1
"""


def test_act_on_a_mixture_of_mixtures_stops_and_resumes_bit_for_bit(write, tmp_path):
    made = recipe(write, text=QUICK + MIXED)
    assert go(made, tmp_path / "straight").exit_code == 0
    assert go(made, tmp_path / "stopped", Mute(5)).exit_code == 75
    assert go(made, tmp_path / "stopped").exit_code == 0
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))
    steps = [json.loads(line)["step"] for line in (tmp_path / "straight/metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8], "359 images and 119 others in batches of 128"


def test_only_an_objective_says_whether_it_takes_soft_labels():
    with pytest.raises(InputError, match="only an objective says whether it takes soft labels"):
        register("attack", "test_soft", soft_labels=True)(lambda goal, x, *, noise, eps: x)

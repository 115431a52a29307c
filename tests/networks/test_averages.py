"""Averages of weights: hand-worked, resumed bit for bit, examined beside the last and the best; label smoothing."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from actkit.config.recipe import load_recipe
from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.losses import cross_entropy
from actkit.networks import model_files
from actkit.networks.averages import Average
from actkit.networks.roles import Role
from helpers.models import PGD, make_roles, step
from helpers.runs import QUICK, Mute, go, same, weights


class Track(nn.Module):
    """One weight and one running statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        return x * self.w


def walked(kind, *, first=0, epochs=3, batches=2, decay=0.5):
    """A model whose weight is the number of the batch, 1 to 6, and what was averaged."""
    role = Role("robust", model := Track(), trained=True, average=Average(model, kind, decay=decay, first=first))
    for number in range(1, epochs * batches + 1):
        with torch.no_grad():
            model.w.fill_(number)
            model.mean.fill_(10 * number)
        model.seen += 1
        finished = (number - 1) // batches
        role.end("batch", epochs=finished)
        if number % batches == 0:
            role.end("epoch", epochs=finished + 1)
    return role


def test_ema_starts_from_a_copy_and_moves_by_its_decay_after_every_batch():
    averaged = walked("ema").averaged
    want = 1.0
    for t, number in enumerate(range(2, 7), start=1):
        d = min(0.5, (1 + t) / (10 + t))
        want = d * want + (1 - d) * number
    assert averaged.name == "robust.ema"
    assert float(averaged.model.w) == pytest.approx(want)
    assert float(averaged.model.mean) == pytest.approx(10 * want)
    assert not averaged.model.training and not averaged.model.w.requires_grad


def test_swa_is_the_plain_mean_over_the_ends_of_epochs():
    assert float(walked("swa").averaged.model.w) == pytest.approx((2 + 4 + 6) / 3)


@pytest.mark.parametrize(("kind", "want"), [("swa", (4 + 6) / 2), ("ema", None)])
def test_an_average_may_begin_later(kind, want):
    found = float(walked(kind, first=1).averaged.model.w)
    if want is None:
        want = 3.0
        for t, number in enumerate((4, 5, 6), start=1):
            d = min(0.5, (1 + t) / (10 + t))
            want = d * want + (1 - d) * number
    assert found == pytest.approx(want)
    assert walked(kind, first=3).averaged is None


AVERAGED = (
    QUICK
    + """
role.average = 'ema'
natural/role.average = None
role.average_decay = 0.8
"""
)


def test_an_averaged_model_is_saved_resumed_and_examined_beside_the_last(write, tmp_path, actkit):
    made = load_recipe(str(write("a.gin", AVERAGED)))
    straight = go(made, tmp_path / "straight")
    assert go(made, tmp_path / "stopped", Mute(4)).exit_code == 75
    assert go(made, tmp_path / "stopped").exit_code == 0
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert same(one, other)
    assert "robust.ema.conv1.weight" in one and "natural.ema.conv1.weight" not in one
    assert not one["robust.ema.conv1.weight"].equal(one["robust.conv1.weight"])
    models = list(dict.fromkeys(name.rpartition(".")[0] for name in straight.summary.to_json()["results"]))
    assert models == ["robust", "natural", "robust.ema"]
    again = actkit("probe", "--ckpt", tmp_path / "straight", "--device", "cpu", "--json")
    assert {n: r["numbers"] for n, r in json.loads(again.out)[0]["results"].items()} == {
        n: r["numbers"] for n, r in straight.summary.to_json()["results"].items()
    }
    only = json.loads(actkit("probe", "--ckpt", tmp_path / "straight", "--role", "robust.ema", "--json").out)[0]
    assert list(only["models"]) == ["robust.ema"]


def test_equal_weights_are_resumed_too(write, tmp_path):
    text = AVERAGED.replace("'ema'", "'swa'") + "run.epochs = 3\n"
    made = load_recipe(str(write("s.gin", text)))
    go(made, tmp_path / "straight")
    assert go(made, tmp_path / "stopped", Mute(7)).exit_code == 75  # after two epochs of three batches
    assert go(made, tmp_path / "stopped").exit_code == 0
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))


def test_averaging_changes_no_training(write, tmp_path):
    go(load_recipe(str(write("a.gin", AVERAGED))), tmp_path / "averaged")
    go(load_recipe(str(write("q.gin", QUICK))), tmp_path / "plain")
    averaged = {k: v for k, v in weights(tmp_path / "averaged").items() if not k.startswith("robust.ema.")}
    plain = weights(tmp_path / "plain")
    assert all(averaged[k].equal(v) for k, v in plain.items() if not k.startswith("state."))


def test_the_best_the_last_and_the_averaged_model_stand_in_one_table(write, tmp_path):
    text = (
        AVERAGED
        + """
run.data = @dataset.holdout()
dataset.holdout.data = @dataset.digits()
dataset.holdout.size = 100
run.epochs = 4
run.monitor = [@val/probe.accuracy()]
val/probe.accuracy.split = 'val'
run.best = 'val'
schedule.MultiStepLR.milestones = [2]
schedule.MultiStepLR.gamma = 100.0
"""
    )
    made = go(load_recipe(str(write("b.gin", text))), tmp_path / "run")
    entries = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    scores = [e["monitor"]["robust.val"]["clean"] for e in entries]
    assert "robust.ema.val" in entries[-1]["monitor"]
    best = max(range(4), key=scores.__getitem__)
    models = list(dict.fromkeys(name.rpartition(".")[0] for name in made.summary.to_json()["results"]))
    assert best != 3  # from the third epoch on the rate is far too high
    assert models == ["robust", "natural", "robust.ema", "robust.last", "natural.last", "robust.ema.last"]
    assert made.summary.to_json()["epochs"] == best + 1
    newest, _ = model_files.newest(tmp_path / "run/checkpoints")
    last = model_files.load_role(newest / "robust.safetensors")[0]
    from actkit.evaluation.examination import examine

    data = Spec("dataset", "digits", {"test_fraction": 0.8}).build()()
    (found,) = examine([Spec("probe", "accuracy", {"limit": 100}).build()], {"m": last}, data).values()
    assert made.summary.to_json()["results"]["robust.last.accuracy"]["numbers"] == found.numbers


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("role.average_decay = 1.0", "between 0 and 1"),
        ("role.average_from = -1", "counts epochs"),
        ("role.average_from = 2", "the training has 2 epochs"),
        ("role.average = 'emma'", "'ema' or 'swa'"),
        ("natural/role.optimizer = None\nnatural/role.average = 'swa'", "is not trained"),
    ],
)
def test_a_mistake_in_an_average_gets_one_line(actkit, write, line, message):
    said = actkit("run", write("a.gin", AVERAGED + line + "\n"), "--dry-run")
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.err


# -- label smoothing -----------------------------------------------------------------------------------------------------


def test_smoothed_cross_entropy_is_that_against_the_smoothed_target():
    logits, y = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([1])
    target = torch.tensor([0.1, 0.8, 0.1])  # 1 - s at y, and s / 3 everywhere, with s = 0.3
    want = -(target * logits.log_softmax(1)).sum(1)
    assert cross_entropy(logits, y, smoothing=0.3).tolist() == pytest.approx(want.tolist())


@pytest.mark.parametrize("name", ["natural", "madry", "trades", "act", "fast"])
def test_label_smoothing_changes_the_losses_and_not_the_attack(name):
    attack = {"natural": {}, "fast": {"eps": 0.1}}.get(name, {"attack": PGD})
    losses = []
    for smoothing in (0.0, 0.2):
        objective = Spec("objective", name, {**attack, "label_smoothing": smoothing}).build()
        roles = make_roles(*objective.roles)
        seen: list[torch.Tensor] = []
        first = next(iter(roles.values()))
        first.model.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0].detach().clone()))
        (loss,) = step(objective, roles)
        losses.append((loss, seen[-1]))
    (plain, x_adv), (smoothed, x_adv_too) = losses
    assert x_adv.equal(x_adv_too)
    assert all(not plain[role].equal(smoothed[role]) for role in plain)
    with pytest.raises(InputError, match="label_smoothing must lie"):
        Spec("objective", name, {**attack, "label_smoothing": 1.0}).build()

"""How long a run still takes: its looks and its examination counted."""

from __future__ import annotations

import time

import pytest
import torch

from actkit.training import forecast as module
from actkit.training.forecast import Forecast
from actkit.training.loop import Position
from actkit.training.state import Training, headers_of
from helpers.runs import QUICK
from helpers.runs import recipe as made_recipe

MONITORED = QUICK.replace("run.monitor = []", "run.monitor = [@accuracy_now/probe.accuracy()]")


@pytest.fixture
def training(write, tmp_path):
    """Before its first batch: 2 epochs of 3 batches, a look after each, an examination."""
    run = made_recipe(write, text=MONITORED).spec.build()
    data = run.data()
    roles = run.make_roles(data, "cpu")
    return Training(run, "quick.gin", data, roles, headers_of(run, data), Position(), tmp_path)


def at(training: Training, monkeypatch, seconds: float, epoch: int, step: int) -> None:
    """The training stands there, at that time of the clock."""
    training.position.epoch, training.position.step = epoch, step
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds)


def test_nothing_is_known_before_a_second_batch(training, monkeypatch):
    forecast = Forecast(training)
    at(training, monkeypatch, 100.0, 0, 1)
    forecast.batch()
    assert forecast.left() is None
    assert not forecast.ready


def test_the_rest_of_a_training_takes_what_its_batches_took_without_the_first_and_without_looks(training, monkeypatch):
    forecast = Forecast(training)
    at(training, monkeypatch, 100.0, 0, 1)
    forecast.batch()
    at(training, monkeypatch, 110.0, 1, 3)
    forecast.looked(4.0)
    left = forecast.left()
    assert left.training == pytest.approx(3 * (10.0 - 4.0) / 2)
    assert left.looks == pytest.approx(4.0), "one more look, as long as the first"


def test_an_examination_takes_what_its_passes_take_as_looks_have_shown(training, monkeypatch):
    """A look is a forward pass of 100 images of two models; the examination such a pass, and 2 starts of a 2-step attack on as many."""
    forecast = Forecast(training)
    at(training, monkeypatch, 100.0, 0, 1)
    forecast.batch()
    at(training, monkeypatch, 110.0, 1, 3)
    forecast.looked(4.0)
    an_image = 1 + 2 * (2 * 2 + 1)
    assert forecast.left().examination == pytest.approx(4.0 * an_image)


def test_a_forecast_leaves_the_random_numbers_and_the_models_alone(training):
    before = [p.clone() for role in training.roles.values() for p in role.model.parameters()]
    state, forecast = torch.random.get_rng_state(), Forecast(training)
    training.position.step = 1
    forecast.batch()
    training.position.step = 2
    time.sleep(0.001)
    assert forecast.left().seconds > 0
    assert torch.random.get_rng_state().equal(state)
    after = [p for role in training.roles.values() for p in role.model.parameters()]
    assert all(a.equal(b) and a.requires_grad for a, b in zip(after, before, strict=True))
    assert all(p.grad is None for p in after)

"""What a dry run tells of an examination: its cost beside that of the examination itself, counted; and what its times rest on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from actkit.config import registry
from actkit.config.recipe import load_recipe
from actkit.config.spec import Spec
from actkit.datasets import Data, Split
from actkit.networks.roles import Role
from actkit.probes import measure
from actkit.training.dry_run import Timed, count, examination_of, timed, units_of

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.03, "steps": 3})
# Every probe that there is, with settings that make it quick; what is not named here has none that it needs.
SETTINGS = {
    "adversarial_images": {"attack": PGD},
    "audit": {"attack": PGD, "queries": 6, "steps": 4},
    "autoattack": {"eps": 0.1, "steps": 5, "queries": 6},
    "compression": {"epochs": 1, "split": "test"},
    "entropy": {"split": "test"},
    "fgsm_k": {"steps": 3, "tries": 4},
    "gallery": {"steps": 3, "tries": 4},
    "robust_accuracy": {"attack": PGD},
    "smallest": {"attack": PGD},
    "surface": {"eps": 0.1, "points": 3},
    "sweep": {"attack": PGD},
    "transfer": {"attack": PGD},
}
MORE = [
    ("robust_accuracy", {"attack": PGD, "mode": "worst_case"}),
    ("robust_accuracy", {"attack": PGD, "mode": "worst_case", "loss": "targeted_dlr", "starts": 2, "targets": 3}),
    ("robust_accuracy", {"attack": Spec("attack", "fgsm", {"eps": 0.1})}),
    ("robust_accuracy", {"attack": PGD, "mode": "worst_case", "draws": 3}),
    ("sweep", {"attack": PGD, "mode": "paper", "starts": 2}),
    ("audit", {"attack": PGD.replace(norm="l2"), "loss": "margin", "queries": 6, "steps": 4}),
]
# It reads files of its own.
OTHERS = ["corruptions"]


def probes() -> list:
    named = [e.name for e in registry.entries("probe") if registry.package_of(e.target) == "actkit"]
    each = [(name, SETTINGS.get(name, {})) for name in named if name not in OTHERS]
    return [pytest.param(Spec("probe", *one), id=f"{one[0]}-{i}") for i, one in enumerate([*each, *MORE])]


class Seen(nn.Module):
    """A model that counts what goes through it, an image a unit each way. `seen` is outside: what attacks look through is a copy."""

    def __init__(self, seen: Counter) -> None:
        super().__init__()
        # A function: a copy of the model keeps it as it is.
        self.note = lambda passes: seen.update(passes)
        self.read = nn.Linear(1, 10)

    def forward(self, x):
        self.note({"forward": len(x)})
        logits = self.say(self.read(x.flatten(1).mean(1, keepdim=True)))
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.note({"backward": len(gradient)}))
        return logits


class Steadfast(Seen):
    """Right on images of class 1, whatever happens to them."""

    def say(self, logits):
        return logits.tanh() + 100 * nn.functional.one_hot(torch.ones(len(logits), dtype=torch.long), 10)


class Weak(Seen):
    """As it happens to be."""

    def say(self, logits):
        return 30 * logits


def data(images: int, label: int | None = None) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(images, 1, 8, 8, generator=generator)
    y = torch.randint(10, (images,), generator=generator) if label is None else torch.full((images,), label)
    return Data("made", (1, 8, 8), tuple("abcdefghij"), {"train": images, "test": images}, lambda name: Split(x, y))


def counted(probe: Spec, model: type[Seen], on: Data) -> int:
    """Units of an examination of two models (of as many as it takes) as it happens, an image through a model once a unit."""
    torch.manual_seed(0)
    seen: Counter = Counter()
    models = {name: Role(name, model(seen)) for name in ("robust", "natural")}
    seen.clear()
    measure([probe.build()], models, on)
    return seen.total()


@pytest.mark.parametrize("probe", probes())
def test_the_told_cost_of_a_probe_is_that_of_examining_a_model_that_nothing_breaks(probe):
    on = data(1, label=1)
    told = units_of(examination_of([probe.build()], on, ["robust", "natural"]).passes)
    if probe.name in ("fgsm_k", "gallery"):
        # What is never found costs half of a search that finds something late, and goes on from there.
        assert counted(probe, Steadfast, on) < told
    else:
        assert counted(probe, Steadfast, on) == told


@pytest.mark.parametrize("probe", probes())
def test_no_examination_costs_more_than_was_told(probe):
    on = data(24)
    told = examination_of([probe.build()], on, ["robust", "natural"])
    assert counted(probe, Weak, on) <= told.units
    assert told.units > 0 or probe.name == "norms"


def test_quick_autoattack_is_told_whole():
    """A clean look; for APGD-CE and nine targets 1 + steps looks each way and a last one; nine rankings of classes; Square's queries, one more and a last."""
    probe = Spec("probe", "autoattack", {"eps": 0.1, "steps": 20, "queries": 100})
    told = units_of(examination_of([probe.build()], data(1), ["robust"]).passes)
    assert told == 1 + 10 * (2 * 21 + 1) + 9 + (100 + 1 + 1)


def test_a_gallery_is_told_for_as_many_images_as_it_shows():
    probe = Spec("probe", "gallery", {"steps": 3, "tries": 4, "count": 2})
    told = examination_of([probe.build()], data(24), ["robust"])
    assert told.units == 2 * units_of(told.passes)


def test_a_time_rests_on_the_fastest_of_several_steps_and_says_so(write):
    """One step that something else interrupted makes no estimate a thousand times too long."""
    text = "include 'digits.gin'\nrun.objective = @objective.natural()\nrun.evaluation = [@probe.accuracy()]\n"
    times = timed(count(load_recipe(str(write("r.gin", text))), folder=Path("run"), device=torch.device("cpu")))
    rests = times.rests_on
    assert len(rests.steps) > 1
    assert times.step == pytest.approx(min(rests.steps) / rests.images * 128)
    busy = Timed((0.5, 500.0), 8, load=9.0, cores=2)
    assert str(busy) == (
        "the fastest of 2 steps of 8 images: 0.5 s, the slowest 8 min; this machine is busy (a load of 9.0 on 2 cores): alone it would be faster"
    )
    assert str(Timed((0.5,), 1, load=None, cores=2)) == "a single step of 1 image: 0.5 s"

"""Runs of a second, and what they leave."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

from actkit.config.recipe import load_recipe
from actkit.display import Display, TrainingView
from actkit.networks import model_files
from actkit.training.execute import execute

# A recipe that trains in less than a second: 359 images in 3 batches an epoch, the first 100 test images.
QUICK = """
include 'act_digits.gin'
dataset.digits.test_fraction = 0.8
probe.accuracy.limit = 100
probe.robust_accuracy.limit = 100
run.epochs = 2
run.batch_size = 128
backbone.resnet.width = 4
train/attack.pgd.steps = 2
eval/attack.pgd.steps = 2
probe.robust_accuracy.starts = 2
run.evaluation = [@probe.accuracy(), @pgd20/probe.robust_accuracy()]
run.monitor = []
"""


CPU = torch.device("cpu")


class Mute(Display, TrainingView):
    """A display that can stop the run by a signal after some batches."""

    def __init__(self, stop_at: int | None = None, number: int = signal.SIGTERM):
        self.stop_at, self.number, self.notes, self.warnings = stop_at, number, [], []

    def say(self, text, style=""):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)

    def epoch(self, entry): ...

    def batch(self, record):
        if record.position.step == self.stop_at:
            os.kill(os.getpid(), self.number)

    def training(self, run):
        return contextlib.nullcontext(self)


def recipe(write, *overrides, text=QUICK):
    return load_recipe(str(write("quick.gin", text)), overrides)


def go(made, out: Path, display=None, **how):
    return execute(made, out=str(out), device=CPU, display=display or Mute(), command="actkit run quick.gin", **how)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found, _ = model_files.newest(folder / "checkpoints")
    return {f"{p.stem}.{k}": v for p in sorted(found.glob("*.safetensors")) for k, v in load_file(p).items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)

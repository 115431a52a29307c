"""What the scale of the logits does to PGD on the cross-entropy: does PGD-20 overrate a model because its softmax is flat?

    python docs/results/cifar10_small/logit_scale.py DATA      # DATA: the folder of CIFAR-10 as JPEG; writes logit_scale.json beside this file

Each model of this study is attacked by the same PGD-20 (eps 0.031, steps of eps/4, one uniform start, any iterate counts) on the same 500 test images; only the
attacker's loss differs: the cross-entropy of the logits times a factor, the margin, the DLR loss. The model's predictions do not change with the factor.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import actkit
from actkit.machine import provenance

HERE = Path(__file__).parent
IMAGES, EPS, STEPS = 500, 0.031, 20
FACTORS = (0.1, 1.0, 3.0, 10.0, 30.0)


def scaled(factor: float):
    return lambda logits, y: F.cross_entropy(factor * logits, y, reduction="none")


def accuracy(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def measure(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict:
    with torch.no_grad():
        logits = model(x)
    best, second = logits.topk(2).values.T
    found = {
        "clean": accuracy(model, x, y),
        "logit_deviation": float(logits.std(1).mean()),
        "largest_probability": float(logits.softmax(1).amax(1).mean()),
        "margin_of_two_best": float((best - second).mean()),
    }
    losses = {f"cross-entropy of logits x {factor:g}": scaled(factor) for factor in FACTORS}
    for name, loss in {**losses, "margin": "margin", "dlr": "dlr"}.items():
        x_adv = actkit.attack.pgd(model, x, y, eps=EPS, step_size=EPS / 4, steps=STEPS, loss=loss)
        found[name] = accuracy(model, x_adv, y)
        print(f"  {name}: {100 * found[name]:.1f}", flush=True)
    return found


if __name__ == "__main__":
    split = actkit.as_data(sys.argv[1]).test.sample(IMAGES)
    x, y = next(iter(split.batches([torch.arange(IMAGES)])))
    models = {}
    for run in sorted((HERE / "runs").glob("*/*")):
        for file in sorted(run.glob("checkpoints/*/*.safetensors")):
            name = f"{run.parent.name} {run.name.partition('-')[0]} {file.stem}"
            print(name, flush=True)
            models[name] = measure(actkit.load_model(file), x, y)
    made = {
        "command": "python docs/results/cifar10_small/logit_scale.py DATA",
        "data": f"CIFAR-10 as JPEG, {IMAGES} test images (a fixed random choice), fingerprint {split.fingerprint()}",
        "attack": f"PGD-{STEPS}, eps {EPS}, step eps/4, one uniform start, any iterate counts",
        **provenance(),
        "models": models,
    }
    (HERE / "logit_scale.json").write_text(json.dumps(made, indent=1) + "\n")

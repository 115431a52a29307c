"""What PGD-20 from 5 starts costs: seconds and forward passes, ours in both protocols, a loop written from the released evaluation, foolbox.

python benchmarks/evaluation.py --ckpt RUN [--images 256] [--rounds 3] [--json FILE]

A unit is one forward pass of one image; an input gradient costs 1 more, a full backward pass 2 more. Every arm sees the same images and,
but for `released`, which draws its own, the same starts; the arms of the last-iterate protocol must agree in accuracy by half a point.
foolbox is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actkit.attacks import pgd
from actkit.datasets import Data, Split
from actkit.networks import model_files
from actkit.networks.roles import Role
from actkit.probes import robust_accuracy

STARTS, STEPS = 5, 20


def ours(role: Role, x: Tensor, y: Tensor, eps: float, step: float, mode: str) -> float:
    split = Split(x, y)
    data = Data("benchmark", tuple(x.shape[1:]), tuple(map(str, range(10))), {"test": len(x)}, lambda name: split)
    attack = functools.partial(pgd, eps=eps, step_size=step, steps=STEPS, clip_start=False)
    result = robust_accuracy(role, data, attack=attack, mode=mode, starts=STARTS)
    return result.numbers["per_example_worst" if mode == "paper" else "worst_case"]


def released(role: Role, x: Tensor, y: Tensor, eps: float, step: float) -> float:
    """As the released evaluation works: weights that ask for gradients, `backward`, a clean forward each start, graphs for the last ones."""
    model: nn.Module = role.model
    model.requires_grad_(True)
    hits = torch.ones(len(x), dtype=torch.bool)
    for batch in torch.arange(len(x)).split(256):
        for _ in range(STARTS):
            model(x[batch])
            x_adv = x[batch] + torch.empty_like(x[batch]).uniform_(-eps, eps)
            for _ in range(STEPS):
                x_adv = x_adv.detach().requires_grad_()
                nn.functional.cross_entropy(model(x_adv), y[batch]).backward()
                x_adv = x_adv.detach() + step * x_adv.grad.sign()
                x_adv = torch.min(torch.max(x_adv, x[batch] - eps), x[batch] + eps).clamp(0, 1)
            hits[batch] &= model(x_adv).argmax(1) == y[batch]
    model.zero_grad()
    model.requires_grad_(False)
    return float(hits.double().mean())


def theirs(role: Role, x: Tensor, y: Tensor, eps: float, step: float) -> float:
    import foolbox

    model = foolbox.PyTorchModel(role.model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=STEPS, random_start=True)
    hits = torch.ones(len(x), dtype=torch.bool)
    for batch in torch.arange(len(x)).split(256):
        for _ in range(STARTS):
            hits[batch] &= ~attack(model, x[batch], y[batch], epsilons=eps)[2]
    return float(hits.double().mean())


class Units:
    """Counts passes of one image."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.input_gradients = self.backward = 0
        # A function is shared by copies of the model.
        model.register_forward_hook(lambda *seen: self.seen(*seen))

    def seen(self, module: nn.Module, inputs: Any, logits: Tensor) -> None:
        self.forward += len(logits)
        if logits.requires_grad:
            live = any(p.requires_grad for p in module.parameters())
            logits.register_hook(lambda g: self.back(len(g), live))

    def back(self, images: int, live: bool) -> None:
        if live:
            self.backward += images
        else:
            self.input_gradients += images

    @property
    def total(self) -> int:
        return self.forward + self.input_gradients + 2 * self.backward


def measured(
    arms: dict[str, Callable[[], float]], role: Role, *, images: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """By arm: robust accuracy, units an image, the seconds of each round, and how many times as fast as the first arm it is."""
    rows: dict[str, dict[str, Any]] = {}
    # Counted, and warmed up.
    for name, arm in arms.items():
        units = Units(role.model)
        role.forget_views()
        rows[name] = {"robust accuracy": arm(), "units an image": units.total / images, "seconds": []}
        role.model._forward_hooks.clear()
    role.forget_views()
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.perf_counter()
            arm()
            rows[name]["seconds"].append(round(time.perf_counter() - began, 3))
    base = rows[next(iter(arms))]["seconds"]
    for row in rows.values():
        ratios = [a / b for a, b in zip(base, row["seconds"], strict=True)]
        row["times as fast"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    role, header = model_files.load_role(model_files.find(given.ckpt)[-1])
    (attack,) = {s.kwargs["attack"] for s in header.evaluation if "attack" in s.kwargs}
    eps, step = (float(attack.build().keywords[name]) for name in ("eps", "step_size"))
    split = header.data.build()().test.sample(given.images)
    x, y = split.batch(torch.arange(len(split)))
    arms = {
        "released, written anew": functools.partial(released, role, x, y, eps, step),
        "actkit, paper": functools.partial(ours, role, x, y, eps, step, "paper"),
        "actkit, worst_case": functools.partial(ours, role, x, y, eps, step, "worst_case"),
    }
    if importlib.util.find_spec("foolbox"):
        arms["foolbox"] = functools.partial(theirs, role, x, y, eps, step)
    rows = measured(arms, role, images=len(x), rounds=given.rounds)
    last = [row["robust accuracy"] for name, row in rows.items() if name != "actkit, worst_case"]
    assert max(last) - min(last) <= max(0.005, 2 / len(x)), f"the arms disagree: {last}"
    for name, row in rows.items():
        print(
            f"{name:<24} {row['units an image']:6.1f} units an image  {statistics.median(row['seconds']):7.2f} s"
            f"  {row['times as fast']['median']:.2f} times as fast  robust accuracy {100 * row['robust accuracy']:.2f}"
        )
    if given.json:
        git = ["git", "-C", str(Path(__file__).parent)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
        given.json.write_text(
            json.dumps(
                {
                    "command": f"python benchmarks/evaluation.py --ckpt {given.ckpt} --images {given.images}",
                    "commit": commit,
                    "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
                    "torch": torch.__version__,
                    "model": header.backbone.to_json(),
                    "data": header.data.to_json(),
                    "attack": attack.to_json(),
                    "starts": STARTS,
                    "arms": rows,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()

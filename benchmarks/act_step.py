"""Time one training step of ACT: a plain loop written straight from the paper against actkit's own loop, in fp32 and in bf16.

    python benchmarks/act_step.py --json act_step.json

All arms live in one process and train ResNet-18 (CIFAR stem) from the same weights on the same made-up images. Before anything is
timed, a gate checks that the plain code and actkit's fp32 arm compute the same step. README.md says how to read the result.
"""

from __future__ import annotations

import copy
import json
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

import actkit
from actkit.config.spec import Spec
from actkit.networks.backbones import resnet18
from actkit.networks.roles import Precision, Role
from actkit.noise import Noise
from actkit.training.loop import update

# Section 4.1 of the paper.
EPS, STEP_SIZE, ALPHA, CLASSES, SEED = 0.031, 0.007, 0.9, 10, 0
# Of the norm of the update: rounding may flip the sign of a few tiny gradients in PGD.
TOLERANCE = 0.05
ROOT = Path(__file__).resolve().parents[1]
Models = dict[str, nn.Module]


@dataclass
class Arm:
    """One way to take the step. `step(start)` takes it; `start` is unit noise for PGD's first point, None to draw it as part of the step."""

    models: Models
    step: Callable[[Tensor | None], Any]

    def reset(self, initial: Models) -> None:
        """The initial weights and statistics again, in place: every timed step is then the same work, and none can diverge."""
        for name, model in self.models.items():
            model.load_state_dict(initial[name].state_dict())


def plain_arm(initial: Models, x: Tensor, y: Tensor, *, steps: int) -> Arm:
    """Algorithm 1 and eqs. 1 and 2 as anyone would write them first. It uses nothing of actkit but the network's architecture."""
    models = copy.deepcopy(initial)
    # G and F.
    robust, natural = models["robust"], models["natural"]
    robust_sgd, natural_sgd = sgd(robust), sgd(natural)

    def loss(logits: Tensor, guide: Tensor) -> Tensor:
        return (1 - ALPHA) * F.cross_entropy(logits, y) + ALPHA * F.kl_div(
            F.log_softmax(logits, dim=1), guide, reduction="batchmean"
        )

    def project(x_adv: Tensor) -> Tensor:
        return torch.clamp(x_adv, x - EPS, x + EPS).clamp(0, 1)

    def step(start: Tensor | None) -> tuple[float, float]:
        natural_logits = natural(x)
        guide = F.softmax(natural_logits, dim=1).detach()

        robust.eval()
        start = torch.empty_like(x).uniform_(-1, 1) if start is None else start
        x_adv = project(x + EPS * start)
        for _ in range(steps):
            x_adv.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(robust(x_adv), guide), x_adv)
            x_adv = project(x_adv.detach() + STEP_SIZE * gradient.sign())
        robust.train()

        robust_logits = robust(x_adv)
        # Eq. 1.
        robust_loss = loss(robust_logits, guide)
        # Eq. 2.
        natural_loss = loss(natural_logits, F.softmax(robust_logits, dim=1).detach())
        robust_sgd.zero_grad()
        robust_loss.backward()
        robust_sgd.step()
        natural_sgd.zero_grad()
        natural_loss.backward()
        natural_sgd.step()
        return robust_loss.item(), natural_loss.item()

    return Arm(models, step)


def actkit_arm(initial: Models, x: Tensor, y: Tensor, *, steps: int, ids: Tensor, precision: Precision) -> Arm:
    """actkit's objective 'act' through actkit's loop. PGD draws its start itself, the same in every step: `start` is not looked at."""
    attack = Spec("attack", "pgd", {"eps": EPS, "step_size": STEP_SIZE, "steps": steps})
    objective = Spec("objective", "act", {"attack": attack, "alpha": ALPHA}).build()
    models = copy.deepcopy(initial)
    roles = {name: Role(name, model, optimizer=sgd(model), precision=precision) for name, model in models.items()}
    return Arm(models, lambda start: list(update(objective, x, y, roles, noise=Noise(ids, SEED, 1))))


def channels_last(arm: Arm) -> Arm:
    """The same code on weights in actkit's memory layout, for the gate. The kernels of two layouts round differently, and the signs in
    PGD amplify that with every step: after ten, even the same code in two layouts no longer takes a comparable step.
    """
    for model in arm.models.values():
        model.to(memory_format=torch.channels_last)
    return arm


def sgd(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def compare(initial: Models, reference: Models, other: Models) -> dict[str, dict[str, float]]:
    """How two arms' updates of each model differ: in norm, relative to the reference's update, and at most in any one weight."""

    def moved(models: Models, name: str) -> Tensor:
        pairs = zip(models[name].parameters(), initial[name].parameters(), strict=True)
        return torch.cat([(after - before).detach().flatten() for after, before in pairs])

    result = {}
    for name in initial:
        a, b = moved(reference, name), moved(other, name)
        result[name] = {"relative": float((a - b).norm() / a.norm()), "max_abs": float((a - b).abs().max())}
    return result


def seconds(arm: Arm, initial: Models, device: torch.device) -> float:
    """The time of one step from the initial weights, the device's queue included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    arm.reset(initial)
    wait()
    began = time.perf_counter()
    arm.step(None)
    wait()
    return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def commit() -> str:
    """The commit, '-dirty' when the code that is timed differs from it; other files of the checkout don't matter here."""
    if not Path(actkit.__file__).resolve().is_relative_to(ROOT / "actkit"):
        return f"unknown: actkit {actkit.__version__} is not this checkout's"
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--", "actkit", "benchmarks/*.py"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if changes.strip() else "")


def machine(device: torch.device) -> dict[str, Any]:
    lines = info.read_text(encoding="utf-8").splitlines() if (info := Path("/proc/cpuinfo")).exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "platform": platform.platform(),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": name,
    }


def check(gate: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print how the arms' updates differ from the reference's; an error where actkit's fp32 arm does not compute the same step."""
    print(
        "The update by the same start against that of plain code in channels-last layout: relative in norm, largest in a weight"
    )
    for name, models in gate.items():
        differences = (f"   {role} {by['relative']:.1e}, {by['max_abs']:.1e}" for role, by in models.items())
        print(f"{name:12}" + "".join(differences))
    # `not all`, so that nan fails.
    if not all(by["relative"] < TOLERANCE for by in gate["actkit fp32"].values()):
        raise click.ClickException(
            f"plain and actkit fp32 do not compute the same step (tolerance {TOLERANCE} in norm): nothing was timed"
        )


def timed(
    arms: dict[str, Arm], initial: Models, device: torch.device, *, warmup: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each arm's steps: every round times every arm once, in shuffled order; those of the warm-up are not kept."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    shuffle = random.Random(SEED)
    for _ in range(warmup + rounds):
        for name in shuffle.sample(list(arms), len(arms)):
            times[name].append(seconds(arms[name], initial, device))
    return {name: values[warmup:] for name, values in times.items()}


def summarise(times: dict[str, list[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """The spread of each arm's seconds, and of how many times as fast as plain code it is, round by round."""
    summary = {name: {"seconds": spread(values)} for name, values in times.items()}
    for name in list(times)[1:]:
        ratios = [plain / arm for plain, arm in zip(times["plain"], times[name], strict=True)]
        summary[name]["plain/arm"] = spread(ratios)
    return summary


def show(summary: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"{'seconds':>27} (min .. max)   {'plain/arm':>15} (min .. max)")
    for name, parts in summary.items():
        columns = ("{median:10.3f} ({min:.3f} .. {max:.3f})".format(**part) for part in parts.values())
        print(f"{name:12}  " + "   ".join(columns))


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--batch", default=64, type=click.IntRange(2), help="Images in the batch.")
@click.option("--steps", default=10, type=click.IntRange(1), help="K, the steps of PGD.")
@click.option(
    "--pairs", default=5, type=click.IntRange(1), help="Rounds; each times every arm once, in shuffled order."
)
@click.option("--warmup", default=2, type=click.IntRange(0), help="Rounds before those, not kept.")
@click.option("--device", default="cpu", help="Such as cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="torch's CPU threads.  [default: torch's own choice]")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to this file.")
def main(batch: int, steps: int, pairs: int, warmup: int, device: str, threads: int | None, file: Path | None) -> None:
    """Time one training step of ACT: a plain loop against actkit's, in fp32 and in bf16."""
    given = {
        "batch": batch,
        "steps": steps,
        "pairs": pairs,
        "warmup": warmup,
        "device": device,
        "threads": threads,
        "json": file and file.name,
    }
    command = "python benchmarks/act_step.py" + "".join(
        f" --{key} {value}" for key, value in given.items() if value is not None
    )
    head, where = commit(), torch.device(device)
    if file is not None:
        # Now, not after an hour of timing.
        file.parent.mkdir(parents=True, exist_ok=True)
    if threads is not None:
        torch.set_num_threads(threads)
    # What `actkit run` sets for fp32, here for every arm: fp32 means fp32, and no arm gets a kernel that another may not use.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    torch.manual_seed(SEED)
    initial: Models = {name: resnet18(CLASSES).to(where) for name in ("robust", "natural")}
    ids = torch.arange(batch, device=where)
    made_up = Noise(ids, SEED, 0)
    x, y = made_up.uniform(3, 32, 32), made_up.integers(CLASSES)
    arms = {
        "plain": plain_arm(initial, x, y, steps=steps),
        "actkit fp32": actkit_arm(initial, x, y, steps=steps, ids=ids, precision="fp32"),
        "actkit bf16": actkit_arm(initial, x, y, steps=steps, ids=ids, precision="bf16"),
    }

    # The draws that actkit's PGD makes.
    start = Noise(ids, SEED, 1).uniform(*x.shape[1:], low=-1.0, high=1.0)
    reference = channels_last(plain_arm(initial, x, y, steps=steps))
    for arm in (reference, *arms.values()):
        arm.step(start)
    gate = {name: compare(initial, reference.models, arm.models) for name, arm in arms.items()}
    check(gate)
    times = timed(arms, initial, where, warmup=warmup, rounds=pairs)
    summary = summarise(times)
    show(summary)

    if file is not None:
        result = {"command": command, "date": time.strftime("%Y-%m-%d"), "commit": head, "machine": machine(where)}
        result |= {"gate": gate, "summary": summary, "seconds": times}
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

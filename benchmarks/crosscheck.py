"""The same attacks elsewhere: per-example agreement with foolbox, secml-torch and AutoAttack, on one model and the same starts.

`make crosscheck` installs those libraries (the extra `crosscheck`), runs this, and the tests that ask for 254 of 256. The published
AutoAttack code comes from the package pyautoattack; AUTOATTACK=path/to/auto-attack compares with a clone of its repository instead.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actkit.attacks import apgd, away_from, fgsm, pgd, smallest_perturbation, targeted, untargeted
from actkit.config.spec import Spec
from actkit.losses import cross_entropy
from actkit.networks.roles import Role
from actkit.noise import Noise

OUT = Path(__file__).parent.parent / "docs/results"
N, EPS, STEP = 256, 0.15, 0.015


@functools.cache
def subject() -> tuple[nn.Module, Tensor, Tensor]:
    """A convolutional network trained adversarially on real digits for some seconds; 256 test images and their labels."""
    data = Spec("dataset", "digits").build()()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    role = Role("robust", model, optimizer=torch.optim.Adam(model.parameters(), lr=2e-3))
    for epoch in range(12):
        for ids in data.train.order(0, epoch).split(128):
            x, y = data.train.batch(ids)
            with role.frozen("eval") as g:
                goal = away_from(g, cross_entropy, y)
                x_adv = pgd(goal, x, noise=Noise(ids, epoch), eps=EPS, step_size=0.05, steps=5)
            role.zero_grad()
            cross_entropy(role(x_adv), y).mean().backward()
            role.step()
    x, y = data.test.batch(torch.arange(N))
    return model.eval().requires_grad_(False), x, y


def noise() -> Noise:
    return Noise(torch.arange(N), 7)


def unwatched(model: nn.Module, y: Tensor) -> Any:
    return away_from(model, cross_entropy, y)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


class Seen:
    """A goal that keeps what an attack asks: the first point, and the best one of each example."""

    def __init__(self, goal: Any) -> None:
        self.goal, self.first = goal, None
        self.best = self.value = None

    def __call__(self, x: Tensor, rows: Any) -> Any:
        value, won = self.goal(x, rows)
        if self.first is None:
            self.first, self.best, self.value = x.detach(), x.detach(), value.detach()
        better = value.detach() > self.value
        self.best = torch.where(better[:, None, None, None], x.detach(), self.best)
        self.value = torch.where(better, value.detach(), self.value)
        return value, won


class Ever:
    """Who was fooled at any point that an attack asked about."""

    def __init__(self, goal: Any) -> None:
        self.goal, self.won = goal, torch.zeros(N, dtype=torch.bool)

    def __call__(self, x: Tensor, rows: Any) -> Any:
        value, won = self.goal(x, rows)
        self.won[rows] |= won
        return value, won


def foolbox_pgd(steps: int, norm: str, start: str) -> tuple[Tensor, Tensor]:
    """Who is fooled: by ours, by foolbox."""
    import eagerpy
    import foolbox

    model, x, y = subject()
    eps, step = (EPS, STEP) if norm == "linf" else (1.0, 0.1)
    goal = Seen(unwatched(model, y))
    ours = pgd(goal, x, noise=noise(), eps=eps, step_size=step, steps=steps, norm=norm, start=start)
    base = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm]

    class FromOurStart(base):  # type: ignore[misc, valid-type]
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return eagerpy.astensor(goal.first)

    attack = FromOurStart(abs_stepsize=step, steps=steps, random_start=start != "none")
    _, theirs, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)
    return fooled(model, ours, y), fooled(model, theirs, y)


def foolbox_fgsm(norm: str) -> tuple[Tensor, Tensor]:
    import foolbox

    model, x, y = subject()
    eps = EPS if norm == "linf" else 1.0
    ours = fgsm(unwatched(model, y), x, noise=noise(), eps=eps, norm=norm)
    attack = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}[norm]()
    _, theirs, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)
    return fooled(model, ours, y), fooled(model, theirs, y)


def secml_pgd(steps: int, norm: str, start: str) -> tuple[Tensor, Tensor]:
    """secml-torch returns the point of the highest loss of the first K, so ours is taken there too."""
    from secmlt.adv.backends import Backends
    from secmlt.adv.evasion.pgd import PGD
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
    from torch.utils.data import DataLoader, TensorDataset

    model, x, y = subject()
    eps, step = (EPS, STEP) if norm == "linf" else (1.0, 0.1)
    goal = Seen(unwatched(model, y))
    pgd(goal, x, noise=noise(), eps=eps, step_size=step, steps=steps, norm=norm, start=start)
    attack = PGD(
        perturbation_model=norm,
        epsilon=eps,
        num_steps=steps,
        step_size=step,
        random_start=False,
        backend=Backends.NATIVE,
    )
    attack.initializer = lambda samples: goal.first - samples
    found = attack(BasePyTorchClassifier(model), DataLoader(TensorDataset(x, y), batch_size=N))
    theirs = torch.cat([batch[0] for batch in found])
    assert goal.best is not None
    return fooled(model, goal.best, y), fooled(model, theirs, y)


def autoattack_module() -> tuple[Any, str]:
    """The published APGD, and whence."""
    if source := os.environ.get("AUTOATTACK"):
        sys.path.insert(0, source)
        from autoattack import autopgd_base

        commit = subprocess.run(
            ["git", "-C", source, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        return autopgd_base, f"fra31/auto-attack {commit or 'of unknown commit'}"
    from pyautoattack import autopgd_base

    return autopgd_base, f"pyautoattack {importlib.metadata.version('pyautoattack')}"


def autoattack_apgd(steps: int, norm: str, target: int | None) -> tuple[Tensor, Tensor]:
    """Who was fooled at any iterate: by ours, by the published APGD from our start; `target`: towards the best wrong class of that rank."""
    published, _ = autoattack_module()
    model, x, y = subject()
    eps = EPS if norm == "linf" else 1.0
    ranked = model(x).scatter(1, y[:, None], float("-inf")).argsort(1, descending=True)
    towards = None if target is None else ranked[:, target - 1]
    first = Seen(unwatched(model, y))
    apgd(first, x, noise=noise(), eps=eps, steps=1, norm=norm)
    ours = Ever(untargeted(model, y) if towards is None else targeted(model, y, towards))
    apgd(ours, x, noise=noise(), eps=eps, steps=steps, norm=norm)
    shared: dict[str, Any] = {"n_iter": steps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps, "device": "cpu"}
    if towards is None:
        theirs = published.APGDAttack(model, loss="ce", **shared)
    else:
        theirs = published.APGDAttack_targeted(model, **shared)
        theirs.y_target = towards
    theirs.init_hyperparam(x)
    _, held, _, _ = theirs.attack_single_run(x, y, x_init=first.first)
    return ours.won, ~held.bool()


def autoattack_t(steps: int, norm: str) -> tuple[Tensor, Tensor]:
    """All nine targets: who was fooled towards any of them."""
    pairs = [autoattack_apgd(steps, norm, target) for target in range(1, 10)]
    ours, theirs = (torch.stack(list(side)).any(0) for side in zip(*pairs, strict=True))
    return ours, theirs


def foolbox_smallest() -> tuple[Tensor, Tensor]:
    """FGSM^k against bisection with foolbox 3's basic iterative method: where our point fools the model at the distance that is said, and that
    is theirs within a hundredth of a pixel's range (ours keeps the best of all points, so it may be a little smaller)."""
    import foolbox

    model, x, y = subject()
    x_adv, distance = smallest_perturbation(untargeted(model, y), x)
    attack = foolbox.attacks.LinfBasicIterativeAttack(rel_stepsize=1 / 6, steps=10, random_start=False)
    low, high = torch.zeros(N), torch.full((N,), 0.6)
    start = fooled(model, x, y)
    for _ in range(14):
        middle = (low + high) / 2
        won = torch.stack(
            [
                attack(
                    foolbox.PyTorchModel(model, bounds=(0, 1)), x[i : i + 1], y[i : i + 1], epsilons=float(middle[i])
                )[2][0]
                for i in range(N)
            ]
        )
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
    theirs = torch.where(start, 0.0, high)
    honest = fooled(model, x_adv, y) & ((x_adv - x).abs().amax((1, 2, 3)) <= distance + 1e-6)
    return torch.ones(N, dtype=torch.bool), honest & (distance <= theirs + 1e-3) & (distance >= theirs - 0.01)


CHECKS: dict[str, tuple[str, Any]] = {
    "FGSM linf": ("foolbox", lambda: foolbox_fgsm("linf")),
    "FGSM l2": ("foolbox", lambda: foolbox_fgsm("l2")),
    "PGD-20 linf, no start": ("foolbox", lambda: foolbox_pgd(20, "linf", "none")),
    "PGD-20 linf, uniform start": ("foolbox", lambda: foolbox_pgd(20, "linf", "uniform")),
    "PGD-100 linf, uniform start": ("foolbox", lambda: foolbox_pgd(100, "linf", "uniform")),
    "PGD-20 l2, uniform start": ("foolbox", lambda: foolbox_pgd(20, "l2", "uniform")),
    "FGSM^k: the distance of a bisection with BIM": ("foolbox", foolbox_smallest),
    "PGD-20 linf, no start (secml)": ("secmlt", lambda: secml_pgd(20, "linf", "none")),
    "PGD-20 linf, uniform start (secml)": ("secmlt", lambda: secml_pgd(20, "linf", "uniform")),
    "PGD-20 l2, uniform start (secml)": ("secmlt", lambda: secml_pgd(20, "l2", "uniform")),
    "APGD-CE linf, 100 steps": ("autoattack", lambda: autoattack_apgd(100, "linf", None)),
    "APGD-CE l2, 100 steps": ("autoattack", lambda: autoattack_apgd(100, "l2", None)),
    "APGD-T linf, 100 steps, best wrong class": ("autoattack", lambda: autoattack_apgd(100, "linf", 1)),
    "APGD-T linf, 100 steps, 9 targets": ("autoattack", lambda: autoattack_t(100, "linf")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT / "crosscheck.json")
    out = parser.parse_args().out
    model, x, y = subject()
    rows = []
    for name, (_, check) in CHECKS.items():
        ours, theirs = check()
        rows.append(
            {
                "check": name,
                "agree": int((ours == theirs).sum()),
                "of": N,
                "fooled by ours": int(ours.sum()),
                "by theirs": int(theirs.sum()),
            }
        )
        print(
            f"{name:<45} {rows[-1]['agree']} of {N} agree; fooled: ours {rows[-1]['fooled by ours']}, theirs {rows[-1]['by theirs']}"
        )
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    versions = {p: importlib.metadata.version(p) for p in ("torch", "foolbox", "secml-torch", "numpy")}
    about = {
        "command": "make crosscheck",
        "commit": commit + (" with changes" if changed else ""),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "autoattack": autoattack_module()[1],
        "model": f"{sum(p.numel() for p in model.parameters()):,} parameters, trained adversarially on digits at eps {EPS}",
        "clean accuracy": float((model(x).argmax(1) == y).double().mean()),
        "checks": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()

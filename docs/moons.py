"""The paper's Figure 1b, moving: the decision boundaries of the robust model G and the natural model F while ACT trains them.

    python docs/moons.py [--recipe gin/act_moons.gin] [--out docs/img] [--seed 0]

writes moons.gif, its last frame moons.png, and moons.json, which says where they come from. It is also an example of actkit in plain
Python: the recipe is read and built, `actkit.fit` yields after every batch, and in between one may look at the models.

The arrows are what training does, so later on some point away from the boundary: the KL of eq. 1 also grows where G becomes more certain
than F, and PGD may climb to that local maximum.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.animation import PillowWriter
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

import actkit
from actkit.config.registry import Model
from actkit.evaluation.examination import examine
from actkit.training.run import Run

# Okabe and Ito's, safe for the colour-blind.
BLUE, VERMILLION, PURPLE, GREEN = "#0072B2", "#D55E00", "#CC79A7", "#009E73"
STYLE: dict[str, tuple[str, Any, str]] = {"robust": (BLUE, "-", "robust G"), "natural": (VERMILLION, "--", "natural F")}
FRAMES, PAUSE, FPS = 60, 16, 8
HERE = Path(__file__).parent
X, Y = torch.linspace(0, 1, 300), torch.linspace(0.1, 0.9, 240)


def margin(model: Model) -> Tensor:
    """The second class's logit less the first's, on the grid; the boundary is where it is 0."""
    points = torch.stack(torch.meshgrid(X, Y, indexing="xy"), dim=-1).view(-1, 2, 1, 1)
    with model.frozen("eval") as f, torch.no_grad():
        logits = f(points)
    return (logits[:, 1] - logits[:, 0]).view(len(Y), len(X))


def perturbed(run: Run, roles: dict[str, actkit.Role], x: Tensor, y: Tensor) -> Tensor:
    """x_adv as training itself makes it: the objective, up to its first update, with an attack that tells what it found."""
    found: list[Tensor] = []

    def attack(goal: Any, x: Tensor, *, noise: actkit.Noise) -> Tensor:
        found.append(run.objective.attack(goal, x, noise=noise))
        return found[0]

    objective = run.objective.using(attack=attack)
    updates = objective(
        x, y, *(roles[name] for name in objective.roles), noise=actkit.Noise(torch.arange(len(x)), run.seed)
    )
    next(updates)
    updates.close()
    return found[0]


def draw(
    axes: plt.Axes, run: Run, roles: dict[str, actkit.Role], train: actkit.Split, shown: Tensor, epoch: float
) -> None:
    eps = run.objective.attack.spec.get("eps")
    x, y = train.batch(shown)
    x_adv = perturbed(run, roles, x, y).flatten(1)
    margins = {name: margin(role) for name, role in roles.items()}
    axes.clear()
    axes.contourf(X, Y, margins["robust"] * margins["natural"], levels=[-1e9, 0], colors=["#E4E4E4"])
    for label, colour, marker in ((0, PURPLE, "o"), (1, GREEN, "^")):
        a, b = train.images[train.labels == label].flatten(1).T
        axes.scatter(a, b, s=14, c=colour, marker=marker, alpha=0.55, linewidths=0)
    for name, (colour, line, _) in STYLE.items():
        axes.contour(X, Y, margins[name], levels=[0], colors=colour, linestyles=line, linewidths=2.4)
    for (a, b), adversarial in zip(x.flatten(1).tolist(), x_adv.tolist(), strict=True):
        axes.add_patch(Rectangle((a - eps, b - eps), 2 * eps, 2 * eps, fill=False, edgecolor="#555555", linewidth=0.9))
        axes.annotate(
            "", adversarial, (a, b), arrowprops={"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
        )
    handles: list[Any] = [
        *(Line2D([], [], color=colour, ls=line, lw=2.4, label=label) for colour, line, label in STYLE.values()),
        Patch(color="#E4E4E4", label="they disagree"),
        Line2D(
            [],
            [],
            ls="none",
            color="#555555",
            marker="s",
            markersize=11,
            mfc="none",
            label=rf"$\ell_\infty$ ball, $\epsilon$ = {eps:g}",
        ),
        Line2D([], [], ls="none", color="black", marker=r"$\rightarrow$", markersize=13, label="perturbation"),
    ]
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=5,
        frameon=False,
        fontsize=8.5,
        columnspacing=1.2,
    )
    axes.set_title(
        f"Adversarial Concurrent Training, epoch {epoch:.{0 if epoch >= 10 else 1}f} of {run.epochs}", fontsize=12
    )
    axes.set(xlim=(0, 1), ylim=(0.1, 0.9), xticks=[], yticks=[], aspect="equal")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the boundaries of G and F while ACT trains them.")
    parser.add_argument("--recipe", default="gin/act_moons.gin")
    parser.add_argument("--out", type=Path, default=HERE / "img")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    recipe = actkit.load(args.recipe, [] if args.seed is None else [f"run.seed={args.seed}"])
    run: Run = recipe.spec.build()
    data = run.data()
    train, roles = data.train, run.make_roles(data, "cpu")
    # Six examples of each class, from left to right; frames at the start and, ever more slowly, to the end.
    order = torch.argsort(train.images[:, 0].flatten())
    moons = [order[train.labels[order] == label] for label in (0, 1)]
    shown = torch.cat([moon[torch.linspace(8, len(moon) - 9, 6).long()] for moon in moons])
    batches = -(-len(train) // run.batch_size)
    moments = {round((run.epochs * batches) ** (i / (FRAMES - 1))) for i in range(FRAMES)}

    figure = plt.figure(figsize=(6.4, 5.8))
    axes = figure.add_axes((0.01, 0.075, 0.98, 0.865))
    movie = PillowWriter(fps=FPS)
    with movie.saving(figure, args.out / "moons.gif", dpi=100):
        draw(axes, run, roles, train, shown, 0)
        movie.grab_frame()
        for record in actkit.fit(
            run.objective, roles, train, epochs=run.epochs, batch_size=run.batch_size, seed=run.seed
        ):
            if (step := record.position.step) in moments:
                draw(axes, run, roles, train, shown, step / batches)
                movie.grab_frame()
        for _ in range(PAUSE):
            movie.grab_frame()
    figure.savefig(args.out / "moons.png", dpi=100)

    probed = {name: result.numbers for name, result in examine(run.evaluation, roles, data).items()}
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    about = {
        "command": shlex.join(["python", "docs/moons.py", *sys.argv[1:]]),
        "commit": subprocess.run(git, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip(),
        "seed": run.seed,
        "results": {probe: {what: round(value, 4) for what, value in found.items()} for probe, found in probed.items()},
    }
    (args.out / "moons.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()

"""Attack strategies: what there is to choose, the network that chooses, the attack that does what was chosen, and the model that would come of it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from actkit import Backbone, Role, register

# What the released command for CIFAR-10 chooses from: radii of 3 to 15 and steps of 1 to 5 of 255 where eps is 8, and 3 to 14 steps.
RADII, STEP_SIZES, STEPS = torch.arange(3, 16) / 8, torch.arange(1, 6) / 8, torch.arange(3, 15)
SIZES = [len(RADII), len(STEP_SIZES), len(STEPS)]


@register("backbone")
def strategy(num_classes: int, *, in_chans: int = 3, net: Backbone) -> nn.Module:
    """LAS-AT's strategy network: another backbone with 30 outputs, logits of 13 radii, 5 step sizes and 12 numbers of steps. No classifier."""
    model = net(sum(SIZES), in_chans=in_chans)
    model.classifies, model.gives = False, (sum(SIZES),)
    return model


def chosen(logits: Tensor, noise) -> tuple[list[Tensor], Tensor]:
    """One draw for each image from the three softmax distributions: which of each (3 of (B,)), and the logarithm of its probability (B,)."""
    gumbel = -(-noise.uniform(sum(SIZES)).log()).log()
    parts = list(zip(logits.split(SIZES, 1), gumbel.split(SIZES, 1), strict=True))
    picks = [(part + drawn).argmax(1) for part, drawn in parts]
    logarithms = [
        part.log_softmax(1).gather(1, pick[:, None])[:, 0] for (part, _), pick in zip(parts, picks, strict=True)
    ]
    return picks, torch.stack(logarithms).sum(0)


def pgd_by_image(goal, x: Tensor, *, noise, start: float, eps: Tensor, step_size: Tensor, steps: Tensor) -> Tensor:
    """PGD (linf) whose eps, step size and number of steps, (B,) each, are the image's own; from a uniform start within `start`."""
    eps, step_size, steps = (each.view(-1, 1, 1, 1) for each in (eps, step_size, steps))
    x_adv = (x + noise.uniform(*x.shape[1:], low=-start, high=start)).clamp(0, 1)
    for i in range(int(steps.max())):
        x_adv.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(goal(x_adv, slice(None))[0].sum(), x_adv)
        moved = (x_adv + step_size * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
        x_adv = torch.where(i < steps, moved, x_adv).detach()
    return x_adv


def after_a_step(role, losses: Tensor) -> Role:
    """A copy of a model after one step of plain SGD, with its learning rate, on these losses, whose graph stays for the model's own step."""
    weights = [p for p in role.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        losses.mean(), weights, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    model = copy.deepcopy(role.model)
    with torch.no_grad():
        for p, gradient in zip((p for p in model.parameters() if p.requires_grad), gradients, strict=True):
            p -= role.lr * gradient
    return Role("ahead", model, precision=role.precision)

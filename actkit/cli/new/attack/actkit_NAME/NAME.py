from __future__ import annotations

import torch

from actkit import Goal, InputError, Noise, ascend, register


def problems(*, eps: float, step_size: float, steps: int, decay: float):
    if eps < 0:
        yield "eps", InputError(f"eps must not be negative, got {eps}")
    if step_size < 0:
        yield "step_size", InputError(f"step_size must not be negative, got {step_size}")
    if steps < 1:
        yield "steps", InputError(f"at least 1 step is needed, got {steps}")
    if decay < 0:
        yield "decay", InputError(f"decay must not be negative, got {decay}")


# An attack sees a goal, never a model or labels. goal(x, rows) gives, for the examples `rows` of the batch (an index tensor, or slice(None): all),
#   value   (B,)       what the attacker raises: a loss in training, what the probe says in an examination;
#   fooled  (B,) bool  whether the attacker has won there; None in training, where nobody asks.
# ascend(goal, x, rows) gives both and the gradient of the values with respect to x, all detached. Behind the goal stands a frozen view of the model:
# its weights get no gradient, nothing is left behind, and its mode (BatchNorm, dropout) is the one that the objective chose; eval in an examination.
# Random numbers come from `noise` alone, of shape (B, ...): noise.uniform(*x.shape[1:], low=-1.0, high=1.0). This attack draws none.
@register("attack", check=problems)
def NAME(
    goal: Goal,
    x: torch.Tensor,
    *,
    noise: Noise,
    eps: float,
    step_size: float,
    steps: int = 10,
    decay: float = 1.0,
) -> torch.Tensor:
    """PGD with momentum, linf: MI-FGSM (Dong et al. 2018, Algorithm 1). From x itself, along the sign of the accumulated gradient.

    x of shape (B, C, H, W) in [0,1]; eps and step_size in the same unit; decay is the paper's mu, and 0 plain PGD. Returns x_adv within eps of x
    and within [0,1]; where the goal tells who has won, those stay where they won.
    """
    x_adv, momentum = x.detach(), torch.zeros_like(x)
    for _ in range(steps):
        _, fooled, gradient = ascend(goal, x_adv, slice(None))
        momentum = decay * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)
        moved = (x_adv + step_size * momentum.sign()).clamp(x - eps, x + eps).clamp(0, 1)
        x_adv = moved if fooled is None else torch.where(fooled[:, None, None, None], x_adv, moved)
    return x_adv

from __future__ import annotations

import torch

from actkit import Attack, InputError, away_from, cross_entropy, kl_from, register


def problems(*, alpha: float, beta: float, temperature: float, momentum: float):
    for name, value in (("alpha", alpha), ("beta", beta)):
        if value < 0:
            yield name, InputError(f"{name} must not be negative, got {value}")
    if not temperature > 0:
        yield "temperature", InputError(f"temperature must be positive, got {temperature}")
    if not 0 <= momentum < 1:
        yield "momentum", InputError(f"momentum must lie in [0,1), got {momentum}")


def weighted_mse(apart: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """1/4 sum_jk w_j w_k (d_j - d_k)^2 of d = `apart` and w = `weight`, both (B, classes) and w summing to 1: half the variance of d under w, shape (B,)."""
    return ((weight * apart.square()).sum(1) - (weight * apart).sum(1).square()) / 2


@register("objective", check=problems)
class ikl:
    """IKL-AT (Cui et al. 2024): TRADES with the two parts of the KL's gradient taken apart and mended.

    CE(f(x), y) + beta wMSE(f(x) - f(x')) + alpha CE(softmax f(x), f(x')), where wMSE is 1/4 sum_jk w_j w_k ((f_j - f_k)(x) - (f_j - f_k)(x'))^2.
    With w = softmax f(x), held fixed, alpha 1 and beta 1 and nothing flowing to f(x') from wMSE, its gradient is that of the KL. Kept
    of the paper: the gradient of wMSE reaches both sides, w is the mean prediction softmax(f(x) / temperature) of the image's class and not the
    image's own, and the soft target is held fixed. As in the released code x' maximises the KL; alpha 4, beta 20, temperature 4 are its settings
    of CIFAR-10 (WRN-34-10).

    Simplified: the released code takes each class's mean over the epoch before; here it is a running mean, a batch at a time. Left out: its AWP, its
    eps that grows from 0, its attack of 2 to 5 steps. BatchNorm: the attack in eval mode; then two training-mode forwards, x and x'.

    Args:
        momentum: of the classes' mean predictions, which begin at 1 / classes.
    """

    def __init__(
        self,
        *,
        attack: Attack,
        alpha: float = 4.0,
        beta: float = 20.0,
        temperature: float = 4.0,
        momentum: float = 0.9,
    ):
        self.attack, self.alpha, self.beta = attack, alpha, beta
        self.temperature, self.momentum, self.means = temperature, momentum, torch.empty(0)

    def __call__(self, x, y, robust, *, noise):
        with robust.frozen("eval") as f:
            with torch.no_grad():
                clean = f(x)
            x_adv = self.attack(away_from(f, kl_from, clean), x, noise=noise)
        logits, adversarial = robust(x), robust(x_adv)
        soft = cross_entropy(adversarial, logits.detach().softmax(1))
        apart = weighted_mse(logits - adversarial, self.mean_predictions(logits.detach(), y)[y])
        yield {robust: cross_entropy(logits, y) + self.alpha * soft + self.beta * apart}

    def mean_predictions(self, logits, y):
        """Each class's mean prediction before this batch, (classes, classes), which this batch then moves."""
        classes = logits.shape[1]
        known = self.means.to(logits.device) if len(self.means) else logits.new_full((classes, classes), 1 / classes)
        members = torch.nn.functional.one_hot(y, classes).to(logits).T
        count = members.sum(1, keepdim=True)
        seen = members @ (logits / self.temperature).softmax(1) / count.clamp_min(1)
        self.means = torch.where(count > 0, self.momentum * known + (1 - self.momentum) * seen, known)
        return known

    def state_dict(self):
        return {"means": self.means}

    def load_state_dict(self, state):
        self.means = state["means"]

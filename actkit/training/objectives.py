"""Objectives: what a training step minimises. Each is a generator; every `yield {role: losses}` is one update of those roles.

`robust(x)` is a training forward (BatchNorm uses and moves batch statistics); `robust.frozen("eval")` is the view that attacks see: no
parameter gradients, running statistics, nothing left behind. The docstrings say which forward runs in which mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from actkit.attacks import away_from, check_budget, pgd
from actkit.config.registry import Attack, Model, register
from actkit.errors import InputError
from actkit.losses import cross_entropy, kl, kl_from, mimicry
from actkit.noise import Noise

Updates = Iterator[dict[Model, Tensor]]


def smoothing_problems(*, label_smoothing: float) -> Iterator[tuple[str, InputError]]:
    """What is wrong with a smoothing of labels. It is of the training loss alone; attacks go by the labels themselves."""
    if not 0 <= label_smoothing < 1:
        yield "label_smoothing", InputError(f"label_smoothing must lie in [0,1), got {label_smoothing}")


@register("objective", check=smoothing_problems, soft_labels=True)
def natural(x: Tensor, y: Tensor, natural: Model, *, label_smoothing: float = 0.0) -> Updates:
    """Standard training: cross-entropy on clean examples, one training-mode forward."""
    yield {natural: cross_entropy(natural(x), y, smoothing=label_smoothing)}


@register("objective", check=smoothing_problems, soft_labels=True)
def madry(
    x: Tensor,
    y: Tensor,
    robust: Model,
    *,
    attack: Attack,
    attack_mode: Literal["eval", "train"] = "eval",
    label_smoothing: float = 0.0,
    noise: Noise,
) -> Updates:
    """Adversarial training: cross-entropy on adversarial examples only (Madry et al. 2018, eq. 2.1).

    BatchNorm: the attack runs in `attack_mode` ('eval' as in TRADES' and ACT's code, 'train' as in Madry's own and Rice et al.'s; its
    batch statistics are then used but not kept); one training-mode forward on x_adv, so clean data never move the running statistics.
    """
    with robust.frozen(attack_mode) as g:
        x_adv = attack(away_from(g, cross_entropy, y), x, noise=noise)
    yield {robust: cross_entropy(robust(x_adv), y, smoothing=label_smoothing)}


@register("objective", check=smoothing_problems, soft_labels=True)
def trades(
    x: Tensor,
    y: Tensor,
    robust: Model,
    *,
    attack: Attack,
    beta: float = 5.0,
    label_smoothing: float = 0.0,
    noise: Noise,
) -> Updates:
    """TRADES (Zhang et al. 2019, eq. 5): CE(f(x), y) + beta D_KL(f(x) || f(x')); x' maximises the KL. `beta` is 1/lambda.

    BatchNorm: the attack in eval mode; then two training-mode forwards, x and x_adv. (The released code forwards x a third time and
    so moves the running statistics twice for clean data; the gradient is the same.) Gradient flows through both sides of the KL.
    """
    with robust.frozen("eval") as g:
        with torch.no_grad():
            clean = g(x)
        x_adv = attack(away_from(g, kl_from, clean), x, noise=noise)
    logits = robust(x)
    yield {robust: cross_entropy(logits, y, smoothing=label_smoothing) + beta * kl(logits, robust(x_adv))}


def act_problems(
    *, alpha: float, temperature: float, attack_temperature: float, label_smoothing: float
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the weights of eq. 1 and 2."""
    yield from smoothing_problems(label_smoothing=label_smoothing)
    if not 0 <= alpha <= 1:
        yield (
            "alpha",
            InputError(f"alpha must lie in [0,1], got {alpha}", help="it weighs the mimicry loss against the labels'"),
        )
    for name, value in (("temperature", temperature), ("attack_temperature", attack_temperature)):
        if not value > 0:
            yield name, InputError(f"{name} must be positive, got {value}")


@register("objective", check=act_problems, soft_labels=True)
def act(
    x: Tensor,
    y: Tensor,
    robust: Model,
    natural: Model,
    *,
    attack: Attack,
    alpha: float = 0.9,
    temperature: float = 1.0,
    attack_temperature: float = 1.0,
    attack_cross_entropy: Literal["example", "batch_mean"] = "example",
    label_smoothing: float = 0.0,
    noise: Noise,
    batch_size: int | None = None,
) -> Updates:
    """Adversarial Concurrent Training (Arani et al. 2020, Algorithm 1): x' maximises eq. 1, then G minimises eq. 1 and F eq. 2.

    As printed: temperature 1, and in the attack every example weighs its cross-entropy by 1 - alpha and its KL by alpha. The released
    code uses temperature 4 (with T^2) in the losses and 1 in the attack, where it adds the batch *mean* of the cross-entropy to the
    batch *sum* of the KL: `attack_cross_entropy = 'batch_mean'` divides each example's cross-entropy by the size of the batch (the whole
    batch's, `batch_size`, where x is a part of it).

    BatchNorm: F forwards once, on clean x in training mode, and those logits serve the attack and both losses; G is in eval mode in
    the attack and in training mode on x_adv, so its statistics never see clean data. Both models are updated at once (eq. 3).
    """
    label_weight = 1 / (batch_size or len(x)) if attack_cross_entropy == "batch_mean" else 1.0
    discrepancy = partial(mimicry, alpha=alpha, temperature=attack_temperature, label_weight=label_weight)
    loss = partial(mimicry, alpha=alpha, temperature=temperature, smoothing=label_smoothing)

    # F(x)
    natural_logits = natural(x)
    with robust.frozen("eval") as g:
        # Eq. 1 as a function of the perturbation.
        x_adv = attack(away_from(g, discrepancy, y, natural_logits.detach()), x, noise=noise)
    # G(x + delta)
    robust_logits = robust(x_adv)
    # Eq. 1 and eq. 2.
    yield {robust: loss(robust_logits, y, natural_logits), natural: loss(natural_logits, y, robust_logits)}


@register("objective", soft_labels=True)
class free:
    """Free adversarial training (Shafahi et al. 2019): m updates a batch, each also a step of the perturbation.

    One backward pass serves both: the perturbation ascends by the sign of the gradient that the update has just used. The perturbation
    is carried from batch to batch by position, zero at the start. BatchNorm: training mode throughout; every replay moves it.

    Args:
        eps, step_size: in [0,1] pixels; the official code steps by eps.
        replays: m. An epoch counts batches, so a schedule for n natural epochs has n / m here.
        clip_noise: as in Wong et al.'s code (2020), the perturbation is cut after each step so that its own image stays in [0,1], and the image is shown as
            it is: the first time with the perturbation that the batch before left, which may lead out of [0,1]. Without it, as in Shafahi et al.'s, the image is
            cut when it is shown, and the perturbation is carried whole.
    """

    def __init__(self, *, eps: float, step_size: float, replays: int = 4, clip_noise: bool = False) -> None:
        check_budget(eps=eps, step_size=step_size, steps=replays)
        self.eps, self.step_size, self.replays, self.clip_noise = eps, step_size, replays, clip_noise
        self.delta: Tensor | None = None

    def __call__(self, x: Tensor, y: Tensor, robust: Model) -> Updates:
        if self.delta is None or self.delta.shape[1:] != x.shape[1:]:
            self.delta = torch.zeros_like(x)
        if len(self.delta) < len(x):
            self.delta = torch.cat([self.delta, torch.zeros_like(x[len(self.delta) :])])
        carried = self.delta.to(x.device)
        for _ in range(self.replays):
            delta = carried[: len(x)].clone().requires_grad_()
            shown = x + delta if self.clip_noise else (x + delta).clamp(0, 1)
            yield {robust: cross_entropy(robust(shown), y)}
            assert delta.grad is not None, "the loop back-propagates before it resumes an objective"
            moved = (delta.detach() + self.step_size * delta.grad.sign()).clamp(-self.eps, self.eps)
            carried[: len(x)] = ((x + moved).clamp(0, 1) - x) if self.clip_noise else moved
        self.delta = carried

    def state_dict(self) -> dict[str, Any]:
        return {} if self.delta is None else {"delta": self.delta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.delta = state.get("delta")


@register("objective", check=smoothing_problems, soft_labels=True)
def fast(
    x: Tensor,
    y: Tensor,
    robust: Model,
    *,
    eps: float,
    step_size: float | None = None,
    label_smoothing: float = 0.0,
    noise: Noise,
) -> Updates:
    """Fast adversarial training (Wong et al. 2020): one step from a uniform start, of 1.25 eps unless said otherwise.

    BatchNorm: training mode in both forwards, and the one of the attack moves the running statistics too, as in the official code.
    It is known to collapse suddenly (catastrophic overfitting); `run.stop_on_drop` watches for that.
    """
    goal = away_from(robust, cross_entropy, y)
    x_adv = pgd(goal, x, noise=noise, eps=eps, step_size=1.25 * eps if step_size is None else step_size, steps=1)
    yield {robust: cross_entropy(robust(x_adv), y, smoothing=label_smoothing)}

from __future__ import annotations

import torch

from actkit import Attack, InputError, away_from, register


def problems(*, beta: float, clip: float):
    if beta < 0:
        yield "beta", InputError(f"beta must not be negative, got {beta}")
    if not 0 <= clip < 1:
        yield (
            "clip",
            InputError(
                f"clip must lie in [0,1), got {clip}",
                help="it is the probability that the loss leaves to wrong classes",
            ),
        )


def squared(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The squared distance of a prediction from a distribution over the classes, both (B, classes), shape (B,)."""
    return (logits.softmax(1) - target).square().sum(1)


@register("objective", check=problems, soft_labels=True)
def score(x, y, robust, *, attack: Attack, beta: float = 6.0, clip: float = 0.3, noise):
    """SCORE (Pang et al. 2022): TRADES with squared distances of probabilities, a metric, where it has divergences.

    max(0, |p(x) - e_y|^2 + beta |p(x) - p(x')|^2 - c), x' maximising |p(x') - p(x)|^2; gradient flows through both sides of the second term. c is the
    distance from e_y of a prediction that leaves the probability `clip` to the wrong classes, alike: clip^2 (1 + 1 / (classes - 1)). Below it
    nothing is learnt. Kept whole: this is the released code of the paper's comparison without more data (beta 6, clip 0.3, learning rate 0.05). Its
    best models use a million generated images, beta 3 or 4, a uniform start, and clip the second term alone, by 0: clip 0 here.

    BatchNorm: the attack in eval mode; then two training-mode forwards, x and x'.
    """
    with robust.frozen("eval") as f:
        with torch.no_grad():
            clean = f(x).softmax(1)
        x_adv = attack(away_from(f, squared, clean), x, noise=noise)
    logits = robust(x)
    target = y if y.is_floating_point() else torch.nn.functional.one_hot(y, logits.shape[1])
    bound = clip**2 * (1 + 1 / (logits.shape[1] - 1))
    apart = (logits.softmax(1) - robust(x_adv).softmax(1)).square().sum(1)
    yield {robust: (squared(logits, target) + beta * apart - bound).relu()}

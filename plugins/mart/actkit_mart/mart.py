from __future__ import annotations

import torch

from actkit import Attack, InputError, away_from, cross_entropy, kl, register


def problems(*, beta: float):
    if beta < 0:
        yield "beta", InputError(f"beta must not be negative, got {beta}")


@register("objective", check=problems)
def mart(x, y, robust, *, attack: Attack, beta: float = 5.0, noise):
    """MART (Wang et al. 2020, eq. 11): boosted cross-entropy on x', and a KL that weighs what the model is unsure of.

    BCE(f(x'), y) + beta D_KL(f(x) || f(x')) (1 - f_y(x)), where BCE adds -log(1 - max_{k != y} f_k(x')) to the cross-entropy; x' maximises the
    cross-entropy. The paper's beta is 5, the default of the released code 6. As in that code, 1.0001 stands for 1 inside the logarithm.

    BatchNorm: the attack in eval mode; then two training-mode forwards, x and x'.
    """
    with robust.frozen("eval") as f:
        x_adv = attack(away_from(f, cross_entropy, y), x, noise=noise)
    logits, adversarial = robust(x), robust(x_adv)
    others = adversarial.softmax(1).scatter(1, y[:, None], 0.0).amax(1)
    boosted = cross_entropy(adversarial, y) - torch.log(1.0001 - others)
    unsure = 1 - logits.softmax(1).gather(1, y[:, None])[:, 0]
    yield {robust: boosted + beta * kl(logits, adversarial) * unsure}

from __future__ import annotations

import torch

from actkit import Attack, away_from, cross_entropy, kl, kl_from, register


@register("objective")
def lbgat(x, y, robust, natural, *, attack: Attack, beta: float = 6.0, noise):
    """LBGAT (Cui et al. 2021, eq. 4): the robust model's logits on x' follow the natural model's on x, and both are trained.

    MSE(robust(x'), natural(x)) + CE(natural(x), y) + beta D_KL(robust(x) || robust(x')), the mean of the squares over classes; x' maximises the
    KL, as in TRADES. As published, the gradient of the squares reaches the natural model too: nothing is detached. The paper's
    LBGAT0 has beta 0, LBGAT6 beta 6.

    BatchNorm: the attack in eval mode; then training-mode forwards of the robust model on x' and x, and one of the natural model on x.
    """
    with robust.frozen("eval") as f:
        with torch.no_grad():
            clean = f(x)
        x_adv = attack(away_from(f, kl_from, clean), x, noise=noise)
    adversarial, logits, guide = robust(x_adv), robust(x), natural(x)
    boundary = (adversarial - guide).square().mean(1)
    yield {robust: boundary + beta * kl(logits, adversarial), natural: cross_entropy(guide, y)}

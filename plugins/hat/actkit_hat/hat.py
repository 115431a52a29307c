from __future__ import annotations

import torch

from actkit import Attack, away_from, cross_entropy, kl, kl_from, register


@register("objective")
def hat(x, y, robust, helper, *, attack: Attack, beta: float = 2.5, gamma: float = 0.5, stretch: float = 2.0, noise):
    """HAT (Rade and Moosavi-Dezfooli 2022, eq. 5): TRADES, and helper examples beyond x', labelled by a frozen standard model.

    CE(f(x), y) + beta D_KL(f(x) || f(x')) + gamma CE(f(x + stretch (x' - x)), argmax helper(x')); x' maximises the KL. As in the released code, the helper
    sees x', and the helper example is not clipped to [0,1]. Its settings for CIFAR-10 with ResNet-18 are beta 2.5 and gamma 0.5.

    `helper` is a role without an optimizer: give it weights by `helper/role.weights`. BatchNorm: the attack and the helper in eval mode; then three
    training-mode forwards, x, x' and the helper example.
    """
    with robust.frozen("eval") as f:
        with torch.no_grad():
            clean = f(x)
        x_adv = attack(away_from(f, kl_from, clean), x, noise=noise)
    with helper.frozen("eval") as h, torch.no_grad():
        labels = h(x_adv).argmax(1)
    logits, adversarial, beyond = robust(x), robust(x_adv), robust(x + stretch * (x_adv - x))
    yield {robust: cross_entropy(logits, y) + beta * kl(logits, adversarial) + gamma * cross_entropy(beyond, labels)}

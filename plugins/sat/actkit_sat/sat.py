from __future__ import annotations

import torch

from actkit import Attack, InputError, away_from, cross_entropy, kl, kl_from, register


def problems(*, beta: float, momentum: float, warmup: float):
    if beta < 0:
        yield "beta", InputError(f"beta must not be negative, got {beta}")
    if not 0 <= momentum < 1:
        yield "momentum", InputError(f"momentum must lie in [0,1), got {momentum}")
    if not 0 <= warmup <= 1:
        yield "warmup", InputError(f"warmup is a share of the training, in [0,1], got {warmup}")


@register("objective", check=problems)
class sat:
    """Self-adaptive training with TRADES (Huang et al. 2020): the targets move from the labels to what the model says.

    w CE(f(x), t) + beta D_KL(f(x) || f(x')), x' maximising the KL. From `warmup` on (a share of the training; 70 of 100 epochs there) each image's target
    t <- momentum t + (1 - momentum) softmax(f(x)), from its label on, and w is t's largest entry, scaled so that the batch's mean is 1. Before it
    this is TRADES. Kept whole, by the released code: momentum 0.9, beta 6; the memory of an image is found by its number (`ids`), whatever the
    order. Its standard training (no attack, noisy labels) is the example of docs/plugins.md.

    BatchNorm: the attack in eval mode; then two training-mode forwards, x and x'.
    """

    def __init__(self, *, attack: Attack, beta: float = 6.0, momentum: float = 0.9, warmup: float = 0.7):
        self.attack, self.beta, self.momentum, self.warmup = attack, beta, momentum, warmup
        self.targets = torch.empty(0)

    def __call__(self, x, y, robust, *, noise, ids, progress):
        with robust.frozen("eval") as f:
            with torch.no_grad():
                clean = f(x)
            x_adv = self.attack(away_from(f, kl_from, clean), x, noise=noise)
        logits = robust(x)
        loss = cross_entropy(logits, y)
        if progress >= self.warmup:
            target = self.moved(
                ids, torch.nn.functional.one_hot(y, logits.shape[1]).float(), logits.detach().softmax(1)
            )
            weight = target.amax(1)
            loss = weight / weight.mean() * cross_entropy(logits, target)
        yield {robust: loss + self.beta * kl(logits, robust(x_adv))}

    def moved(self, ids, labels, said):
        """The targets of these images, moved towards what the model said; rows of -1 are of images that it has not met."""
        known = self.targets.to(labels.device).view(-1, labels.shape[1])
        known = torch.cat([known, known.new_full((max(0, int(ids.max()) + 1 - len(known)), labels.shape[1]), -1.0)])
        before = torch.where(known[ids] < 0, labels, known[ids])
        known[ids] = self.momentum * before + (1 - self.momentum) * said
        self.targets = known
        return known[ids]

    def state_dict(self):
        return {"targets": self.targets}

    def load_state_dict(self, state):
        self.targets = state["targets"]

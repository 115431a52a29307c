from __future__ import annotations

import torch

from actkit import Attack, InputError, away_from, cross_entropy, register
from actkit_las.strategy import RADII, STEP_SIZES, STEPS, after_a_step, chosen, pgd_by_image


def problems(*, eps: float, every: int, label_smoothing: float):
    if not eps > 0:
        yield "eps", InputError(f"eps must be positive, got {eps}")
    if every < 1:
        yield "every", InputError(f"every counts batches, got {every}")
    if not 0 <= label_smoothing < 1:
        yield "label_smoothing", InputError(f"label_smoothing must lie in [0,1), got {label_smoothing}")


@register("objective", check=problems)
class las:
    """LAS-AT (Jia et al. 2022): a strategy network chooses each image's attack, and REINFORCE trains it.

    The robust model learns CE(f(x'), y) of x' by PGD whose radius, step size and number of steps are drawn for each image from the network's three
    softmax distributions. Once in `every` batches the network learns -log p(choices) R. R = R1 + 4 R2 + 2 R3: the batch's mean cross-entropy on x' (at
    most 10); the accuracy, under the fixed `attack`, of a copy of the robust model after a step on x'; and that copy's clean accuracy.

    Kept, by the released code: the choices, the rewards and their weights, no baseline, one reward for the batch. Simplified: on the batches from which the
    network learns, the rewarded x' also train the robust model (there they are drawn and made anew), and the copy's step is plain SGD with the
    gradient that trains the robust model. Its label smoothing of 0.7 is `label_smoothing` 1/3.

    BatchNorm: attacks in eval mode; one training-mode forward on x'. The strategy network is in training mode where it learns, in eval mode elsewhere.

    Args:
        attack: the fixed one of R2; PGD-10 from two starts there.
        eps: what the choices are shares of; the start is uniform within it.
    """

    def __init__(self, *, attack: Attack, eps: float, every: int = 20, label_smoothing: float = 0.0):
        self.attack, self.eps, self.every, self.smoothing, self.batches = attack, eps, every, label_smoothing, 0

    def __call__(self, x, y, robust, strategy, *, noise):
        learns = self.batches % self.every == 0
        self.batches += 1
        with strategy.frozen("eval") as s:
            picks, likelihood = chosen(strategy(x) if learns else s(x), noise)
        shares = [of.to(x.device)[pick] for of, pick in zip((RADII, STEP_SIZES, STEPS), picks, strict=True)]
        with robust.frozen("eval") as f:
            goal = away_from(f, cross_entropy, y)
            eps, step_size, steps = self.eps * shares[0], self.eps * shares[1], shares[2]
            x_adv = pgd_by_image(goal, x, noise=noise, start=self.eps, eps=eps, step_size=step_size, steps=steps)
            with torch.no_grad():
                first = cross_entropy(f(x_adv), y).mean().clamp(0, 10) if learns else 0
        loss = cross_entropy(robust(x_adv), y, smoothing=self.smoothing)
        if not learns:
            yield {robust: loss}
            return
        with after_a_step(robust, loss).frozen("eval") as f:
            x_fixed = self.attack(away_from(f, cross_entropy, y), x, noise=noise)
            with torch.no_grad():
                second, third = ((f(images).argmax(1) == y).float().mean() for images in (x_fixed, x))
        yield {robust: loss, strategy: -likelihood * (first + 4 * second + 2 * third)}

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]

from __future__ import annotations

import torch

from actkit import InputError, Objective, register


def problems(*, gamma: float, warmup: float):
    if not gamma > 0:
        yield (
            "gamma",
            InputError(
                f"gamma must be positive, got {gamma}",
                help="0.01 around Madry's objective, 0.005 around TRADES, in the paper",
            ),
        )
    if not 0 <= warmup <= 1:
        yield "warmup", InputError(f"warmup is a share of the training, in [0,1], got {warmup}")


@register("objective", check=problems)
class awp:
    """Adversarial weight perturbation (Wu et al. 2020, Algorithm 1) around another objective: the update's gradient is taken where the weights are worst.

    Every weight matrix w of the headline model moves by gamma ||w|| / ||g|| g along the gradient g of the inner objective's own loss, the update is
    made there, and the movement is taken back. The adversarial examples are made once, on the weights as they are. Of two models (ACT) the first is
    perturbed, and the second takes its gradient beside it.

    BatchNorm: both passes see the batch, but its running statistics move in the second alone, so each batch counts once.

    Args:
        objective: one that takes an attack: madry, trades, act, or another plugin's.
        gamma: the size of the movement, relative to each layer's weights.
        warmup: the share of the training that passes before it begins.
    """

    def __init__(self, *, objective: Objective, gamma: float = 0.005, warmup: float = 0.0) -> None:
        # Asked for here, so that a recipe is refused and not its first batch.
        try:
            objective.using(attack=objective.attack)
        except AttributeError:
            raise InputError(
                f"awp goes around an objective with an attack, which {objective.spec.selector} has not"
            ) from None
        self.inner, self.gamma, self.warmup, self.roles = objective, gamma, warmup, objective.roles

    def __call__(self, x, y, *models, noise, progress, ids, batch_size):
        # What it goes around may ask for any of these.
        given = {"noise": noise, "progress": progress, "ids": ids, "batch_size": batch_size}
        made: list[torch.Tensor] = []
        calls = 0

        # Each call of the attack is made in the first pass and replayed in the second.
        def once(*args, **kwargs):
            nonlocal calls
            if calls == len(made):
                made.append(self.inner.attack(*args, **kwargs))
            calls += 1
            return made[calls - 1]

        inner = self.inner.using(attack=once)
        if progress < self.warmup:
            yield from inner(x, y, *models, **given)
            return
        weights = [p for name, p in models[0].model.named_parameters() if p.dim() > 1 and name.endswith("weight")]
        saved = [w.detach().clone() for w in weights]
        buffers = [b for model in models for b in model.model.buffers()]
        before = [b.clone() for b in buffers]
        first = inner(x, y, *models, **given)
        losses = next(first)
        if models[0] not in losses:
            raise InputError(
                f"awp perturbs {models[0].name}, for which {self.inner.spec.selector} yields no loss at first"
            )
        gradients = torch.autograd.grad(losses[models[0]].mean(), weights, allow_unused=True, materialize_grads=True)
        first.close()
        calls = 0
        steps = [self.gamma * w.norm() / (g.norm() + 1e-20) * g for w, g in zip(saved, gradients, strict=True)]
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        try:
            for w, step in zip(weights, steps, strict=True):
                w.data.add_(step)
            yield from inner(x, y, *models, **given)
        except BaseException:
            # No update was made: the weights are exactly as they were.
            for w, value in zip(weights, saved, strict=True):
                w.data.copy_(value)
            raise
        for w, step in zip(weights, steps, strict=True):
            w.data.sub_(step)

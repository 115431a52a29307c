from __future__ import annotations

from actkit import Attack, away_from, cross_entropy, register


# Positional parameters after x, y are the roles that it trains or consults, the first being the headline model; keyword-only ones are what a recipe
# can set. `noise`, `progress` from 0 to 1, `ids` (the examples' numbers) and `batch_size` are supplied to an objective that asks for them.
@register("objective")
def NAME(x, y, robust, *, attack: Attack, share: float = 0.5, noise):
    """Cross-entropy on clean and adversarial examples: say here what it is, whose, and which forward runs in which mode."""
    with robust.frozen("eval") as f:  # no weight gradients, nothing left behind
        x_adv = attack(away_from(f, cross_entropy, y), x, noise=noise)
    clean, adversarial = cross_entropy(robust(x), y), cross_entropy(robust(x_adv), y)
    yield {robust: (1 - share) * clean + share * adversarial}  # one loss an example; each yield is one update

from __future__ import annotations

from actkit import Attack, away_from, cross_entropy, register


@register("objective", soft_labels=True)
def advprop(x, y, robust, *, attack: Attack, noise):
    """AdvProp (Xie et al. 2020): CE(f(x), y) through the main BatchNorm + CE(f(x'), y) through the auxiliary one.

    x' maximises the cross-entropy through the auxiliary one. The backbone is `two_norms(net=...)`. Kept whole; the paper trains so for clean accuracy
    and deploys the main branch, and its attack is PGD of eps 4/255, step 1/255 and 5 steps from a random start. Not written: its fine-grained version
    with a BatchNorm for each strength.

    BatchNorm: the attack in eval mode; then two training-mode forwards, x (main) and x' (adversarial), so that each set sees its own images alone.
    """
    with robust.frozen("eval", branch="adversarial") as f:
        x_adv = attack(away_from(f, cross_entropy, y), x, noise=noise)
    clean, adversarial = robust(x, branch="main"), robust(x_adv, branch="adversarial")
    yield {robust: cross_entropy(clean, y) + cross_entropy(adversarial, y)}

"""Losses, one value for each example: the loop takes the mean, once. Logits have shape (B, classes); all in fp32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from actkit.errors import InputError


def cross_entropy(logits: Tensor, y: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """CE(softmax(logits), y), shape (B,); y int64 labels of shape (B,), or shares of the classes, floating, of shape (B, classes).

    With `smoothing` s the target has 1 - s more at y than the s / classes that every class has (Szegedy et al. 2016); of shares, 1 - s times
    the share.
    """
    target = y.float() if y.is_floating_point() else y
    return F.cross_entropy(logits.float(), target, reduction="none", label_smoothing=smoothing)


def kl(p: Tensor, q: Tensor, *, temperature: float = 1.0) -> Tensor:
    """D_KL(softmax(p/T) || softmax(q/T)) T^2 of two logits (B, classes), shape (B,).

    p is the target's side, q the one that is moved towards it; T is `temperature`. T^2 keeps the gradient's size when T changes (Hinton et al. 2015); ACT's released code uses T = 4, the paper prints T = 1.
    Gradient flows through both sides: detach the one that is only a target.
    """
    log_p = F.log_softmax(p.float() / temperature, dim=1)
    log_q = F.log_softmax(q.float() / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1) * temperature**2


def kl_from(logits: Tensor, target: Tensor, *, temperature: float = 1.0) -> Tensor:
    """D_KL(softmax(target/T) || softmax(logits/T)) T^2, shape (B,): `kl(target, logits)`, with the logits first as a goal calls its loss. T is
    `temperature`.

    So `away_from(g, kl_from, clean)` moves the prediction away from the clean one. The order is that of `torch.nn.functional.kl_div`.
    """
    return kl(target, logits, temperature=temperature)


def mimicry(
    logits: Tensor,
    y: Tensor,
    guide: Tensor,
    *,
    alpha: float,
    temperature: float = 1.0,
    smoothing: float = 0.0,
    label_weight: float = 1.0,
) -> Tensor:
    """(1 - alpha) CE(logits, y) + alpha D_KL(guide || logits): eqs. 1 and 2 of ACT (Arani et al. 2020), shape (B,).

    With G's logits on x' and F's on x it is L_G (eq. 1); the other way round it is L_F (eq. 2). The guide is a target: no
    gradient crosses from one model to the other. `label_weight` multiplies the cross-entropy once more; the printed equations have 1. `temperature` is
    that of `kl`, `smoothing` that of `cross_entropy`.
    """
    task = label_weight * cross_entropy(logits, y, smoothing=smoothing)
    return (1 - alpha) * task + alpha * kl(guide.detach(), logits, temperature=temperature)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """How far the best wrong class lies above y: max_{i != y} z_i - z_y, shape (B,); positive where the model is fooled (Carlini and Wagner 2017)."""
    others = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return (others - logits.gather(1, y[:, None])[:, 0]).float()


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The difference of logits ratio, shape (B,): the margin over z_(1) - z_(3), the gap from the largest logit to the third (Croce and
    Hein 2020, eq. 6). Neither a shift nor a positive factor of the logits changes it. Raises `InputError` for fewer than 3 classes."""
    largest = _largest(logits, 3)
    return margin(logits, y) / (largest[:, 0] - largest[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The targeted difference of logits ratio, shape (B,): (z_target - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce and Hein 2020, eq. 7).

    Raises `InputError` for fewer than 4 classes."""
    largest = _largest(logits, 4)
    towards = logits.gather(1, target[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
    return towards.float() / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + 1e-12)


def _largest(logits: Tensor, count: int) -> Tensor:
    if logits.shape[1] < count:
        name = "targeted DLR" if count == 4 else "DLR"
        raise InputError(
            f"the {name} loss needs {count} classes, the model has {logits.shape[1]}", help="use the loss 'margin'"
        )
    return logits.float().topk(count, dim=1).values

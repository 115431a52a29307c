"""Per-example losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from actkit.losses import cross_entropy, kl, mimicry

# softmax of log-probabilities is the probabilities themselves, so these logits make hand work easy
P = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
Q = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
KL_PQ = [0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5), 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)]
Y = torch.tensor([0, 1])


def test_cross_entropy_is_minus_log_probability_of_the_label():
    assert cross_entropy(Q, Y).tolist() == pytest.approx([-math.log(0.5), -math.log(0.75)])


def test_kl_is_the_divergence_of_its_first_argument_from_its_second():
    assert kl(P, Q).tolist() == pytest.approx(KL_PQ)
    assert kl(Q, P)[0].item() == pytest.approx(0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2))


def test_temperature_softens_both_sides_and_multiplies_by_its_square():
    # T = 2 halves the log-odds: softmax((log .8, log .2) / 2) = sqrt(.8), sqrt(.2) normalised = 2/3, 1/3
    p, q = (2 / 3, 1 / 3), (0.5, 0.5)
    by_hand = 4 * sum(a * math.log(a / b) for a, b in zip(p, q))
    assert kl(P[:1], Q[:1], temperature=2.0).item() == pytest.approx(by_hand)


def test_equation_1_is_mimicry_of_the_robust_logits_guided_by_the_natural():
    """L_G = (1 - a) CE(G(x'), y) + a D_KL(F(x) || G(x')) with G(x') = Q, F(x) = P."""
    by_hand = [0.3 * -math.log(0.5) + 0.7 * KL_PQ[0], 0.3 * -math.log(0.75) + 0.7 * KL_PQ[1]]
    assert mimicry(Q, Y, P, alpha=0.7).tolist() == pytest.approx(by_hand)


def test_equation_2_is_the_same_with_the_models_exchanged():
    """L_F = (1 - a) CE(F(x), y) + a D_KL(G(x') || F(x))."""
    kl_qp = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert mimicry(P, Y, Q, alpha=0.7)[0].item() == pytest.approx(0.3 * -math.log(0.8) + 0.7 * kl_qp)


def test_no_gradient_reaches_the_guide():
    logits, guide = Q.clone().requires_grad_(), P.clone().requires_grad_()
    mimicry(logits, Y, guide, alpha=0.7).sum().backward()
    assert logits.grad is not None
    assert guide.grad is None


def test_losses_are_computed_in_fp32():
    assert cross_entropy(Q.bfloat16(), Y).dtype == kl(P.bfloat16(), Q.bfloat16()).dtype == torch.float32

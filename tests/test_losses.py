"""Per-example losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from actkit.errors import InputError
from actkit.losses import cross_entropy, dlr, kl, kl_from, margin, mimicry, targeted_dlr

# softmax of log-probabilities is the probabilities themselves, so these logits make hand work easy
P = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
Q = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
KL_PQ = [0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5), 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)]
Y = torch.tensor([0, 1])


def test_cross_entropy_is_minus_log_probability_of_the_label():
    assert cross_entropy(Q, Y).tolist() == pytest.approx([-math.log(0.5), -math.log(0.75)])


def test_cross_entropy_of_shares_is_their_weighted_mean_also_smoothed():
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    by_hand = [0.25 * -math.log(0.5) + 0.75 * -math.log(0.5), -math.log(0.25)]
    assert cross_entropy(Q, shares).tolist() == pytest.approx(by_hand)
    # Smoothing 0.2 makes of (1, 0) the target (0.9, 0.1).
    smoothed = 0.9 * -math.log(0.25) + 0.1 * -math.log(0.75)
    assert cross_entropy(Q, shares, smoothing=0.2)[1].item() == pytest.approx(smoothed)
    one_hot = torch.nn.functional.one_hot(Y, 2).double()
    assert cross_entropy(Q, one_hot, smoothing=0.1).tolist() == pytest.approx(
        cross_entropy(Q, Y, smoothing=0.1).tolist()
    )


def test_kl_is_the_divergence_of_its_first_argument_from_its_second():
    assert kl(P, Q).tolist() == pytest.approx(KL_PQ)
    assert kl(Q, P)[0].item() == pytest.approx(0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2))


def test_kl_from_has_the_logits_first_and_the_target_second():
    assert kl_from(Q, P).tolist() == pytest.approx(KL_PQ)
    assert kl_from(Q, P, temperature=2.0).equal(kl(P, Q, temperature=2.0))


def test_temperature_softens_both_sides_and_multiplies_by_its_square():
    # T = 2 halves the log-odds: softmax((log .8, log .2) / 2) = sqrt(.8), sqrt(.2) normalised = 2/3, 1/3
    p, q = (2 / 3, 1 / 3), (0.5, 0.5)
    by_hand = 4 * sum(a * math.log(a / b) for a, b in zip(p, q))
    assert kl(P[:1], Q[:1], temperature=2.0).item() == pytest.approx(by_hand)


def test_equation_1_is_mimicry_of_the_robust_logits_guided_by_the_natural():
    """L_G = (1 - a) CE(G(x'), y) + a D_KL(F(x) || G(x')) with G(x') = Q, F(x) = P."""
    by_hand = [0.3 * -math.log(0.5) + 0.7 * KL_PQ[0], 0.3 * -math.log(0.75) + 0.7 * KL_PQ[1]]
    assert mimicry(Q, Y, P, alpha=0.7).tolist() == pytest.approx(by_hand)


def test_a_label_weight_multiplies_the_cross_entropy_alone_and_1_keeps_the_bits():
    by_hand = [0.25 * 0.3 * -math.log(0.5) + 0.7 * KL_PQ[0], 0.25 * 0.3 * -math.log(0.75) + 0.7 * KL_PQ[1]]
    assert mimicry(Q, Y, P, alpha=0.7, label_weight=0.25).tolist() == pytest.approx(by_hand)
    printed = (1 - 0.7) * cross_entropy(Q, Y) + 0.7 * kl(P, Q)
    assert mimicry(Q, Y, P, alpha=0.7).equal(printed)


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


LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.0, -2.0], [4.0, 1.0, 3.0, 0.0, -2.0]])


def test_the_margin_is_positive_where_the_model_is_fooled():
    assert margin(LOGITS, torch.tensor([0, 1])).tolist() == [-1.0, 3.0]


def test_dlr_is_the_margin_over_the_gap_to_the_third():
    """-(z_y - max z_i) / (z_(1) - z_(3)): with y = 0, (3 - 4) / (4 - 1); with y = 1, (4 - 1) / (4 - 1)."""
    assert dlr(LOGITS, torch.tensor([0, 1])).tolist() == pytest.approx([-1 / 3, 1.0])


def test_targeted_dlr_is_the_way_to_the_target_over_the_gap_to_third_and_fourth():
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2): (1 - 4) / (4 - 0.5)."""
    assert targeted_dlr(LOGITS, torch.tensor([0, 0]), torch.tensor([1, 4])).tolist() == pytest.approx(
        [-3 / 3.5, -6 / 3.5]
    )


def test_dlr_knows_neither_scale_nor_shift():
    y = torch.tensor([0, 1])
    assert torch.allclose(dlr(1e4 * LOGITS + 7, y), dlr(LOGITS, y), atol=1e-6)


@pytest.mark.parametrize(("loss", "classes"), [("dlr", 2), ("targeted_dlr", 3)])
def test_losses_that_rank_classes_need_enough_of_them(loss, classes):
    y = torch.zeros(1, dtype=torch.long)
    with pytest.raises(InputError, match=f"needs {classes + 1} classes, the model has {classes}"):
        dlr(torch.zeros(1, classes), y) if loss == "dlr" else targeted_dlr(torch.zeros(1, classes), y, y)

"""IKL's loss by hand, its gradient beside that of the KL, and the classes' means."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import actkit_ikl  # noqa: F401  registers it
from actkit import InputError, Noise, Role, Spec, cross_entropy, kl, update
from actkit_ikl.ikl import weighted_mse

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.2, "steps": 2, "start": "gaussian", "start_std": 0.01})


class Given(nn.Module):
    """Logits 0 and w x of a single pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), self.w * x.flatten(1)[:, 0]], 1)


def test_the_loss_is_that_of_the_paper_by_hand():
    role = Role("robust", Given(), trained=True)
    x, y = torch.tensor([0.5]).view(1, 1, 1, 1), torch.tensor([1])
    objective = Spec("objective", "ikl", {"attack": PGD, "alpha": 3.0, "beta": 5.0}).build()
    (loss,) = next(objective(x, y, role, noise=Noise(torch.arange(1), 0))).values()
    # The attack ends at 0.4 or at 0.6, logits 0.8 or 1.2 in place of 1. All class means are still 1/2:
    # 1/4 (1/4 d^2 + 1/4 d^2) of the two pairs, for a difference of margins d = 0.2.
    p = 1 / (1 + math.exp(-1))
    ends = []
    for other in (0.8, 1.2):
        q = 1 / (1 + math.exp(-other))
        soft = -p * math.log(q) - (1 - p) * math.log(1 - q)
        ends.append(-math.log(p) + 3 * soft + 5 * 0.2**2 / 8)
    assert min(abs(float(loss.detach()) - end) for end in ends) < 1e-5


def test_the_weighted_square_is_the_sum_over_pairs_of_classes():
    noise = Noise(torch.arange(4), 1)
    apart, weight = noise.normal(5), noise.normal(5).softmax(1)
    pairs = (apart[:, :, None] - apart[:, None, :]).square()
    by_pairs = (weight[:, :, None] * weight[:, None, :] * pairs).sum((1, 2)) / 4
    torch.testing.assert_close(weighted_mse(apart, weight), by_pairs)


def test_with_each_images_own_prediction_as_weight_the_parts_have_the_gradient_of_the_kl():
    noise = Noise(torch.arange(4), 2)
    n, m = noise.normal(5).requires_grad_(), noise.normal(5).requires_grad_()
    own = n.detach().softmax(1)
    parts = weighted_mse(n - m.detach(), own) + cross_entropy(m, own)
    found = torch.autograd.grad(parts.sum(), (n, m))
    for mine, wanted in zip(found, torch.autograd.grad(kl(n, m).sum(), (n, m))):
        torch.testing.assert_close(mine, wanted)


def test_the_means_move_by_class_and_come_back_from_a_state():
    objective = Spec("objective", "ikl", {"attack": PGD, "temperature": 2.0, "momentum": 0.75}).build()
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 4.0, 0.0]])
    before = objective.mean_predictions(logits, torch.tensor([0, 1, 1]))
    assert before.eq(1 / 3).all()
    said = (logits / 2).softmax(1)
    wanted = torch.stack([0.25 + 0.25 * said[0], 0.25 + 0.25 * said[1:].mean(0), torch.full((3,), 1 / 3)])
    torch.testing.assert_close(objective.state_dict()["means"], wanted)
    other = Spec("objective", "ikl", {"attack": PGD}).build()
    other.load_state_dict(objective.state_dict())
    assert other.mean_predictions(logits, torch.tensor([0, 1, 1])).equal(objective.state_dict()["means"])


def test_one_update_a_batch_with_two_training_forwards():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    noise = Noise(torch.arange(6), 1)
    objective = Spec("objective", "ikl", {"attack": PGD}).build()
    losses = list(update(objective, noise.uniform(1, 8, 8), noise.integers(3), {"robust": role}, noise=noise))
    assert len(losses) == 1 and losses[0]["robust"].shape == (6,)
    assert int(model[1].num_batches_tracked) == 2


@pytest.mark.parametrize("setting", [{"alpha": -1.0}, {"beta": -1.0}, {"temperature": 0.0}, {"momentum": 1.0}])
def test_what_cannot_be_is_told(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        Spec("objective", "ikl", {"attack": PGD, **setting}).build()

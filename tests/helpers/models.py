"""Small roles and a batch for them."""

from __future__ import annotations

import torch
from torch import nn

from actkit.config.spec import Spec
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.training.loop import update

PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def make_roles(*names: str, frozen: tuple[str, ...] = ()) -> dict[str, Role]:
    roles = {}
    for i, name in enumerate(names):
        model = tiny(i)
        sgd = None if name in frozen else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        roles[name] = Role(name, model, optimizer=sgd)
    return roles


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, Noise]:
    noise = Noise(torch.arange(n), 7)
    return noise.uniform(1, 8, 8), noise.integers(3), noise


def step(objective, roles, *, n=6):
    x, y, noise = batch(n)
    return list(update(objective, x, y, roles, noise=noise))


def weights(role: Role) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in role.model.parameters()]).clone()

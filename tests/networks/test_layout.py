"""Narrow networks do not crash the process: layers for which torch is unsafe in channels-last are given contiguous inputs."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from actkit.networks.layout import channels_last, unsafe_in_channels_last


@pytest.mark.parametrize(
    ("layer", "unsafe"),
    [
        (nn.Conv2d(8, 16, 1, 2), True),
        (nn.Conv2d(12, 16, 1, (1, 2)), True),
        (nn.Conv2d(64, 16, 1, 2, groups=16), True),
        (nn.Conv2d(8, 16, 1), False),
        (nn.Conv2d(8, 16, 3, 2), False),
        (nn.Conv2d(16, 32, 1, 2), False),
        (nn.Linear(8, 2), False),
    ],
    ids=repr,
)
def test_strided_1x1_convolutions_of_few_channels_are_unsafe(layer, unsafe):
    assert unsafe_in_channels_last(layer) is unsafe


def test_an_unsafe_layer_sees_contiguous_inputs_and_its_copy_does_too():
    seen = []
    model = channels_last(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1, 2)))
    for net in (model, channels_last(copy.deepcopy(model))):
        assert len(net[1]._forward_pre_hooks) == 1
        net[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].is_contiguous()))
        net(torch.rand(2, 3, 9, 9).contiguous(memory_format=torch.channels_last))
    assert seen == [True, True]


NARROW = """
import torch
from actkit import Role
from actkit.networks.backbones import resnet
for width, size in ((8, 64), (4, 8), (3, 112)):
    net = resnet(3, in_chans=3, layers=[1, 1], width=width)
    role = Role("robust", net, optimizer=torch.optim.SGD(net.parameters(), lr=0.01))
    for _ in range(6):
        x = torch.rand(8, 3, size, size, requires_grad=True)
        torch.nn.functional.cross_entropy(role(x), torch.randint(3, (8,))).backward()
        with role.frozen("eval") as view:
            torch.autograd.grad(view(x).sum(), x)
print("alive")
"""


def test_a_narrow_network_trains_and_is_attacked_without_ending_its_process():
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]

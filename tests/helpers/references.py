"""Networks as their own authors define them, written down again from their papers and definitions: what ours are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = projection(into, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shortcut = projection(into, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(h)) + self.shortcut(x))


def projection(into: int, out: int, stride: int) -> nn.Module:
    if stride == 1 and into == out:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    """He et al. 2016 with the CIFAR stem, in the words of the released ACT code and of RobustBench."""

    def __init__(self, block: type, blocks: list[int], classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        into = 64
        for i, count in enumerate(blocks):
            layers = []
            for j in range(count):
                layers.append(block(into, 64 * 2**i, 2 if i and not j else 1))
                into = 64 * 2**i * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(into, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        return self.linear(F.avg_pool2d(h, 4).flatten(1))


class PreActBlock(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(into), nn.Conv2d(into, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if stride != 1 or into != width:
            self.shortcut = nn.Sequential(nn.Conv2d(into, width, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(x))
        shortcut = self.shortcut(h) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(h)))) + shortcut


class PreActResNet18(nn.Module):
    """He et al. 2016b, with BatchNorm before the classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        into = 64
        for i in range(4):
            width = 64 * 2**i
            setattr(
                self,
                f"layer{i + 1}",
                nn.Sequential(PreActBlock(into, width, 2 if i else 1), PreActBlock(width, width, 1)),
            )
            into = width
        self.bn, self.linear = nn.BatchNorm2d(512), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(F.avg_pool2d(F.relu(self.bn(h)), 4).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(into), nn.Conv2d(into, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.same = into == width
        self.convShortcut = None if self.same else nn.Conv2d(into, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(x))
        shortcut = x if self.same else self.convShortcut(h)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(h))))


class WideStage(nn.Module):
    def __init__(self, count: int, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(WideBlock(width if i else into, width, 1 if i else stride) for i in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, in the words of TRADES, ACT and RobustBench. `dead`: with the stage that TRADES' first version never uses."""

    def __init__(self, depth: int, width: int, classes: int, *, dead: bool = False) -> None:
        super().__init__()
        count, widths = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = WideStage(count, widths[0], widths[1], 1)
        if dead:
            self.sub_block1 = WideStage(count, widths[0], widths[1], 1)
        self.block2 = WideStage(count, widths[1], widths[2], 2)
        self.block3 = WideStage(count, widths[2], widths[3], 2)
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.avg_pool2d(F.relu(self.bn1(h)), 8).flatten(1))


class Normalised(nn.Module):
    """A model behind a normalisation, under the names that a library gives to both."""

    def __init__(self, model: nn.Module, mean: list[float], std: list[float], names: tuple[str, str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        for name, values in zip(names, (mean, std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (getattr(self, name) for name in self.names)
        return self.model((x - mean) / std)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with statistics and biases that are not their defaults, so that a swapped or forgotten one shows."""
    noise = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=noise)
            module.running_var.uniform_(0.5, 1.5, generator=noise)
            module.num_batches_tracked.fill_(7)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=noise)
                module.bias.normal_(0, 0.1, generator=noise)
    return model.eval()

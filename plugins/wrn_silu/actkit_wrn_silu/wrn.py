from __future__ import annotations

from torch import Tensor, nn

from actkit import InputError, register


class Block(nn.Module):
    """A pre-activation block: two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = None if before == after and stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        ready = self.act(self.norm1(x))
        left = x if self.shortcut is None else self.shortcut(ready)
        return left + self.conv2(self.act(self.norm2(self.conv1(ready))))


def problems(*, depth: int, width: int):
    if depth < 10 or (depth - 4) % 6:
        yield (
            "depth",
            InputError(
                f"the depth of a WideResNet is 6 n + 4, at least 10; got {depth}", help="10, 16, 22, 28, 34, 70"
            ),
        )
    if width < 1:
        yield "width", InputError(f"width must be at least 1, got {width}")


@register("backbone", check=problems)
def wrn_silu(num_classes: int, *, in_chans: int = 3, depth: int = 28, width: int = 10) -> nn.Module:
    """A WideResNet with SiLU instead of ReLU, as much of RobustBench has it (Gowal et al. 2020, section 4.5): smooth activations train more robustly.

    depth 28, 34 or 70 and width 10, 16 or 20 there. Images of any size from 8x8 on, without a normalisation layer.
    """
    channels = [16, 16 * width, 32 * width, 64 * width]
    blocks = (depth - 4) // 6
    stages = [
        Block(channels[i] if j == 0 else channels[i + 1], channels[i + 1], stride=2 if i and j == 0 else 1)
        for i in range(3)
        for j in range(blocks)
    ]
    model = nn.Sequential(
        nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False),
        *stages,
        nn.BatchNorm2d(channels[-1]),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels[-1], num_classes),
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model

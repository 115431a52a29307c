"""Random numbers that are a pure function of (key, example): the same whatever the batch, its order, or what ran before.

No library offers this for torch: `torch.Generator` draws in sequence, so an example's numbers depend on its neighbours. This is
SplitMix64 (Steele, Lea, Flood 2014) in tensor arithmetic, one stream for each example; the bits are the same on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(n: int) -> int:
    """As a signed 64-bit integer, which is what torch holds; its products wrap around."""
    return (n + (1 << 63)) % (1 << 64) - (1 << 63)


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # a logical shift; torch has only the arithmetic one


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


def seed_for(*key: int) -> int:
    """A seed for a `torch.Generator` that depends on all of the key. (Its CPU generator looks at the low 32 bits only.)"""
    return int(_shift(Noise(torch.zeros(1, dtype=torch.long), *key)._streams, 32)[0])


class Noise:
    """Private random numbers for a batch of examples.

    Args:
        ids: the examples' numbers in their data set, an int64 tensor of shape (B,); results lie on its device.
        key: what else the numbers depend on, such as the seed and the epoch.

    An example's numbers depend on (key, its number) alone: not on the batch, its order, or the device. Each call goes on where the last one ended:
    `Noise(torch.arange(4), 0).uniform(1, 8, 8)` has shape (4, 1, 8, 8).
    """

    def __init__(self, ids: Tensor, *key: int) -> None:
        self._streams = ids.long()
        for part in key:
            self._streams = _mix(self._streams * _GOLDEN + _signed(part))
        self._streams = _mix(self._streams * _GOLDEN)
        self._draws = 0

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, rows: Tensor | slice) -> Noise:
        """The same streams for some of the examples."""
        chosen = Noise.__new__(Noise)
        chosen._streams, chosen._draws = self._streams[rows], self._draws
        return chosen

    def fork(self, *key: int) -> Noise:
        """Independent streams for the same examples, for instance one for each restart of an attack."""
        return Noise(self._streams, *key)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        """Shape (B, *shape): 24 random bits each; a second call continues the streams."""
        self._draws += 1
        count = math.prod(shape)
        places = torch.arange(count, device=self._streams.device)
        start = _mix(self._streams + _signed(self._draws * _GOLDEN))
        return _shift(_mix(start[:, None] + (places + 1) * _GOLDEN), 40).view(-1, *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Shape (B, *shape), fp32, uniform on (low, high)."""
        unit = (self._bits(shape).float() + 0.5) / (1 << 24)
        return low + (high - low) * unit.clamp_max(
            1 - 2**-24
        )  # the largest would round to 1, and a normal from it is infinite

    def normal(self, *shape: int) -> Tensor:
        """Shape (B, *shape), fp32, standard normal."""
        return torch.erfinv(self.uniform(*shape, low=-1.0, high=1.0)) * math.sqrt(2)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Shape (B, *shape), int64, uniform on 0 .. high - 1."""
        return self._bits(shape) * high >> 24


class Drawn(Exception):
    """Somebody asked for a random number."""


class Untouched(Noise):
    """Noise to see by whether something depends on random numbers at all: whoever draws from it, or from what is made of it, gets `Drawn`."""

    def __getitem__(self, rows: Tensor | slice) -> Untouched:
        return Untouched(self._streams[rows])

    def fork(self, *key: int) -> Untouched:
        return Untouched(self._streams, *key)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        raise Drawn

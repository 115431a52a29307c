"""Mixtures: a data set with another's images in every batch, images and labels blended in pairs (MixUp, CutMix), labels with noise."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from actkit.config.registry import Dataset, register
from actkit.datasets.splits import Batches, Data, Examples, Labelled
from actkit.errors import InputError
from actkit.noise import Noise, seed_for

# What keeps the random numbers of a mixture apart from those of augmentation (0) and of objectives (1), which have the same key.
_BLEND, _EXTRA = 2, 3


# -- other images in every batch -----------------------------------------------------------------------------------------


@register("dataset")
def mixed(*, data: Dataset, extra: Dataset, share: float) -> Data:
    """Another data set, with training images of `extra` in every batch (Carmon et al. 2019; Gowal et al. 2021): unlabelled, generated or simply more.

    A batch holds exactly `share` of them where that is a whole number, and otherwise one more or less. An epoch shows each training image of `data`
    once, and as many of `extra` as the share asks; these go on from epoch to epoch, so that all are seen evenly. The images of `data` keep their
    numbers, those of `extra` follow. Test and validation images are `data`'s; so are the training images that a probe looks at.

    Args:
        share: of a batch, between 0 and 1; Gowal et al. use 0.7 to 0.8.
    """
    whole: Data = data()
    more: Data = extra()
    _assert_alike(whole, more)
    part = _exact(share)
    own, soft = whole.sizes["train"], whole.soft_labels or more.soft_labels
    length = own + _count_of_extra(own, part)

    def read(name: str) -> Labelled:
        if name != "train":
            split: Labelled = whole.split(name)
            return split
        return _Mixed(whole.split(name), more.split(name), part, whole.num_classes if soft else None)

    if length == own:
        raise InputError(
            f"dataset.mixed.share = {share}: an epoch of {own:,} images would hold none of {more.name}",
            help="raise it",
        )
    note = f"{length - own:,} training images an epoch are of {more.name}'s {more.sizes['train']:,}, {float(share):g} of every batch"
    sizes = {**whole.sizes, "train": length}
    return dataclasses.replace(whole, sizes=sizes, read=read, notes=(*whole.notes, *more.notes, note), soft_labels=soft)


def _assert_alike(whole: Data, more: Data) -> None:
    """Raise `InputError` for images of another shape, or other classes."""
    if tuple(more.shape) != tuple(whole.shape):
        raise InputError(
            f"dataset.mixed: images of {whole.name} are {_by(whole.shape)}, those of {more.name} {_by(more.shape)}"
        )
    if tuple(more.classes) != tuple(whole.classes):
        mine, theirs = (f"{', '.join(d.classes[:4])}{', ...' * (d.num_classes > 4)}" for d in (whole, more))
        raise InputError(
            f"dataset.mixed: {whole.name} has {whole.num_classes} classes ({mine}), {more.name} has {more.num_classes} ({theirs})",
            help=f"they must be called the same, in the same order; dataset.npz names them: dataset.npz.classes = {list(whole.classes)}"
            if more.num_classes == whole.num_classes
            else None,
        )


def _by(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _exact(share: float) -> Fraction:
    """A share as it is written: 0.7 is 7/10. Raises `InputError` outside (0, 1)."""
    if not 0 < share < 1:
        raise InputError(f"dataset.mixed.share lies between 0 and 1, got {share}")
    return Fraction(str(share)).limit_denominator(1_000_000)


def _count_of_extra(own: int, share: Fraction) -> int:
    """How many of the extra images come in an epoch that shows so many of the others."""
    return own * share.numerator // (share.denominator - share.numerator)


class _Mixed(Examples):
    """The training images of a mixture. A place is one of `data`, or, after all of those, one of `extra`; an epoch shows `len` of them."""

    ids = None

    def __init__(self, data: Labelled, extra: Labelled, share: Fraction, classes: int | None) -> None:
        self.data, self.extra, self.share, self.classes = data, extra, share, classes
        self.labels = torch.cat([data.labels, extra.labels])
        self.first = len(data.labels)
        self.first_name = int(data.names(torch.arange(self.first)).max()) + 1

    def __len__(self) -> int:
        return len(self.data) + _count_of_extra(len(self.data), self.share)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The i-th image of an epoch is an extra one where floor((i + 1) share) > floor(i share): any batch's share is exact within one."""
        counted = torch.arange(len(self) + 1) * self.share.numerator // self.share.denominator
        of_extra = counted[1:] > counted[:-1]
        order = torch.empty(len(self), dtype=torch.long)
        order[~of_extra] = self.data.order(seed, epoch)
        order[of_extra] = self.first + self._of_extra(seed, epoch, int(of_extra.sum()))
        return order

    def _of_extra(self, seed: int, epoch: int, count: int) -> Tensor:
        """The next `count` places of an endless row of permutations, where the epochs before have ended."""
        size = len(self.extra.labels)
        begin, end = epoch * count, (epoch + 1) * count
        rounds = range(begin // size, (end - 1) // size + 1)
        generators = [torch.Generator().manual_seed(seed_for(seed, number, _EXTRA)) for number in rounds]
        row = torch.cat([torch.randperm(size, generator=generator) for generator in generators])
        return row[begin - rounds.start * size :][:count]

    def names(self, places: Tensor) -> Tensor:
        own = self.data.names(places.clamp(max=self.first - 1))
        theirs = self.extra.names((places - self.first).clamp(min=0))
        return torch.where(places < self.first, own, self.first_name + theirs)

    def take(self, places: Tensor) -> Any:
        raise InputError(
            "a part of a mixture would have other shares",
            help="hold out first, then mix: dataset.mixed.data = @dataset.holdout()",
        )

    def plain(self) -> Any:
        """What a probe looks at: the images of `data`."""
        return self.data.plain()

    def sample(self, limit: int | None) -> Any:
        return self.data.sample(limit)

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x and y of each group of places, from both; the augmentation of an image of `data` is the one that it has alone."""
        mine, theirs, every = itertools.tee(groups, 3)
        own = (g[g < self.first] for g in mine)
        more = (g[g >= self.first] - self.first for g in theirs)
        # An example of `extra` has another crop than the one of `data` with its number.
        other_key = None if key is None else (*key, _EXTRA)
        of_data = iter(self.data.batches((g for g in own if len(g)), device=device, key=key))
        of_extra = iter(self.extra.batches((g for g in more if len(g)), device=device, key=other_key))
        for places in every:
            is_own = places < self.first
            found = [next(split) for split, there in ((of_data, is_own), (of_extra, ~is_own)) if there.any()]
            back = torch.cat([is_own.nonzero()[:, 0], (~is_own).nonzero()[:, 0]]).argsort().to(device)
            labels = [y if self.classes is None or key is None else _shares(y, self.classes) for _, y in found]
            yield torch.cat([x for x, _ in found])[back], torch.cat(labels)[back]

    def fingerprint(self) -> str:
        return _hashed(self.data.fingerprint(), self.extra.fingerprint(), self.share)


def _shares(y: Tensor, classes: int) -> Tensor:
    """Labels (B,) as shares of the classes, (B, classes) fp32; shares as they are."""
    return F.one_hot(y, classes).float() if y.dim() == 1 else y.float()


def _hashed(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


# -- images and labels in pairs ------------------------------------------------------------------------------------------

# Two batches of images, the share of the first of each pair (B,), and random numbers -> the blended ones, and the first's share in them.
Blend = Callable[[Tensor, Tensor, Tensor, Noise], tuple[Tensor, Tensor]]


@register("dataset")
def mixup(*, data: Dataset, alpha: float = 1.0) -> Data:
    """Another data set, each training image blended with a second (MixUp, Zhang et al. 2018): lambda x + (1 - lambda) x', and the labels alike.

    lambda is drawn from Beta(alpha, alpha). It and the second image, any of the training images, depend on the seed, the epoch and the example alone, not
    on its batch. The labels are shares of the classes, so the objective must take such.
    """
    return _blended("mixup", data(), alpha, _mix)


@register("dataset")
def cutmix(*, data: Dataset, alpha: float = 1.0) -> Data:
    """Another data set, a box of each training image replaced by the same box of a second (CutMix, Yun et al. 2019); the labels are shares of the area.

    The box has a share 1 - lambda of the area, lambda from Beta(alpha, alpha), and its centre is anywhere, so that the border may cut it. Box and second
    image depend on the seed, the epoch and the example alone. The labels are shares of the classes, so the objective must take such.
    """
    return _blended("cutmix", data(), alpha, _cut)


def _blended(name: str, whole: Data, alpha: float, blend: Blend) -> Data:
    _assert_hard(name, whole)
    if not 0 < alpha < float("inf"):
        raise InputError(f"dataset.{name}.alpha must be positive, got {alpha}", help="1 draws lambda uniformly")
    classes = whole.num_classes

    def read(split: str) -> Labelled:
        found: Labelled = whole.split(split)
        return _Blended(found, classes, float(alpha), blend) if split == "train" else found

    note = f"training images are blended in pairs, lambda of Beta({alpha:g}, {alpha:g}) (dataset.{name})"
    return dataclasses.replace(whole, read=read, notes=(*whole.notes, note), soft_labels=True)


def _assert_hard(name: str, whole: Data) -> None:
    if whole.soft_labels:
        raise InputError(
            f"dataset.{name} goes around data with one class an image, the labels of {whole.name} are shares of classes already",
            help="blend images once; mix data sets and labels below that",
        )


def _mix(x: Tensor, other: Tensor, share: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    return torch.lerp(other, x, share.view(-1, 1, 1, 1)).clamp(0, 1), share


def _cut(x: Tensor, other: Tensor, share: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    height, width = x.shape[2:]
    side, device = (1 - share).sqrt(), x.device
    inside = []
    for length in (height, width):
        # As in the published code: half the side, rounded down, to either side of the centre.
        centre, half = noise.integers(length).to(device), (length * side).long() // 2
        at = torch.arange(length, device=device)
        inside.append((at >= (centre - half)[:, None]) & (at < (centre + half)[:, None]))
    box = inside[0][:, :, None] & inside[1][:, None, :]
    kept = 1 - box.flatten(1).sum(1) / (height * width)
    return torch.where(box[:, None], other, x), kept


class _Blended(Examples):
    """Training images blended in pairs; without a key they are as they are."""

    ids = None

    def __init__(self, split: Labelled, classes: int, alpha: float, blend: Blend) -> None:
        self.split, self.classes, self.alpha, self.blend = split, classes, alpha, blend
        self.labels = split.labels

    def __len__(self) -> int:
        return len(self.split)

    def order(self, seed: int, epoch: int) -> Tensor:
        return self.split.order(seed, epoch)

    def names(self, places: Tensor) -> Tensor:
        return self.split.names(places)

    def take(self, places: Tensor) -> Any:
        return _Blended(self.split.take(places), self.classes, self.alpha, self.blend)

    def plain(self) -> Any:
        return self.split.plain()

    def sample(self, limit: int | None) -> Any:
        return self.split.sample(limit)

    def fingerprint(self) -> str:
        return self.split.fingerprint()

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x and y (B, classes) of each group of places; each of a pair is augmented as it is alone."""
        if key is None:
            yield from self.split.batches(groups, device=device)
            return
        # On the CPU, whatever the device, as the inverse of Beta's distribution function is.
        drawn = ((places, Noise(self.names(places), *key).fork(_BLEND)) for places in groups)
        pairs = ((places, noise, noise.integers(len(self.labels))) for places, noise in drawn)
        ahead, given = itertools.tee(pairs)
        both = (torch.cat([places, partners]) for places, _, partners in ahead)
        for (places, noise, _), (x, y) in zip(given, self.split.batches(both, device=device, key=key), strict=True):
            size, shares = len(places), _shares(y, self.classes)
            share = _beta(noise.uniform(), self.alpha).to(device)
            blended, kept = self.blend(x[:size], x[size:], share, noise)
            yield blended, torch.lerp(shares[size:], shares[:size], kept[:, None])


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Numbers uniform on (0, 1) as numbers of Beta(alpha, alpha), by the inverse of its distribution function."""
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, alpha, uniform.double().numpy())).float()


# -- labels with noise ---------------------------------------------------------------------------------------------------


@register("dataset")
def noisy_labels(*, data: Dataset, share: float, seed: int = 0) -> Data:
    """Another data set, a `share` of its training labels wrong: another class, each of the others as likely (symmetric noise).

    Which ones, and what they say, depends on `seed` and the example alone: not on the run's seed, the epoch, or what else is held out. Each label is
    wrong with this probability, so that their number varies as a coin's does. Images that are held out of it have theirs; for right ones, hold out first.
    """
    whole: Data = data()
    _assert_hard("noisy_labels", whole)
    if not 0 <= share <= 1:
        raise InputError(f"dataset.noisy_labels.share lies in [0,1], got {share}")
    if whole.num_classes < 2:
        raise InputError(f"dataset.noisy_labels: {whole.name} has one class, so no label can be wrong")

    def read(name: str) -> Labelled:
        found: Labelled = whole.split(name)
        return _NoisyLabels(found, whole.num_classes, share, seed) if name == "train" else found

    note = f"{100 * float(share):g} % of the training labels are wrong on purpose (dataset.noisy_labels)"
    return dataclasses.replace(whole, read=read, notes=(*whole.notes, note))


class _NoisyLabels(Examples):
    """The same examples with other labels, also as a probe looks at them."""

    ids = None

    def __init__(self, split: Labelled, classes: int, share: float, seed: int) -> None:
        self.split, self.classes, self.share, self.seed = split, classes, share, seed
        noise = Noise(split.names(torch.arange(len(split.labels))), seed)
        other = (split.labels + 1 + noise.integers(classes - 1)) % classes
        self.labels = torch.where(noise.uniform() < share, other, split.labels)

    def _around(self, split: Labelled) -> _NoisyLabels:
        return _NoisyLabels(split, self.classes, self.share, self.seed)

    def __len__(self) -> int:
        return len(self.split)

    def order(self, seed: int, epoch: int) -> Tensor:
        return self.split.order(seed, epoch)

    def names(self, places: Tensor) -> Tensor:
        return self.split.names(places)

    def take(self, places: Tensor) -> Any:
        return self._around(self.split.take(places))

    def plain(self) -> Any:
        return self._around(self.split.plain())

    def sample(self, limit: int | None) -> Any:
        return self._around(self.split.sample(limit))

    def fingerprint(self) -> str:
        return _hashed(self.split.fingerprint(), self.labels.tolist())

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x of the split and these labels."""
        ahead, given = itertools.tee(groups)
        for places, (x, _) in zip(given, self.split.batches(ahead, device=device, key=key), strict=True):
            yield x, self.labels[places].to(device)

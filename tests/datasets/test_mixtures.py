"""Mixtures: shares that are exact in every batch, numbers that stay, and labels that are shares of what is in the image."""

from __future__ import annotations

import functools
import re

import pytest
import torch

from actkit.config.spec import Spec
from actkit.datasets import Data, Split, cutmix, holdout, imagenet, mixed, mixup, noisy_labels
from actkit.datasets.splits import crop_and_flip
from actkit.errors import InputError
from helpers.images import photographs

CLASSES = tuple("0123456789")


def toy(count: int, *, name: str = "toy", classes=CLASSES, shape=(1, 4, 4), crop: int = 0):
    """Images of one grey each: label 3 of ten is 3/9."""

    def make() -> Data:
        def read(split: str) -> Split:
            labels = torch.arange(count) % len(classes)
            images = (labels / (len(classes) - 1)).view(-1, 1, 1, 1).expand(-1, *shape).contiguous()
            augment = functools.partial(crop_and_flip, pad=crop, flip=False) if crop else None
            return Split(images, labels, augment if split == "train" else None)

        return Data(name, shape, classes, {"train": count, "test": count}, read)

    return make


def noise_images(count: int):
    def make() -> Data:
        generator = torch.Generator().manual_seed(count)
        augment = functools.partial(crop_and_flip, pad=2, flip=True)
        split = Split(torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 10, augment)
        return Data("noise", (1, 8, 8), CLASSES, {"train": count, "test": count}, lambda name: split)

    return make


def batches(data: Data, size: int, *, seed=0, epoch=0, start=0):
    split = data.train
    groups = split.order(seed, epoch).split(size)[start:]
    return [(split.names(g), *b) for g, b in zip(groups, split.batches(groups, key=(seed, epoch)), strict=True)]


# -- other images in every batch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "size"), [(0.3, 10), (0.7, 50), (0.5, 8), (0.25, 4), (0.8, 5), (0.7, 128), (0.3, 7), (1 / 3, 9)]
)
def test_every_batch_holds_the_share_exactly_where_it_is_whole_and_else_within_one(share, size):
    data = mixed(data=toy(200), extra=toy(37), share=share)
    groups = data.train.order(0, 3).split(size)
    counts = [int((group >= 200).sum()) for group in groups if len(group) == size]
    assert len(counts) > 1
    whole = abs(size * share - round(size * share)) < 1e-9
    assert all(count == round(size * share) if whole else abs(count - size * share) < 1 for count in counts)
    assert sum(map(len, groups)) == len(data.train) == data.sizes["train"]


def test_an_epoch_shows_all_of_the_data_once_and_over_epochs_all_of_the_extra_evenly():
    data = mixed(data=toy(50), extra=toy(37), share=0.5)
    seen = torch.zeros(87, dtype=torch.long)
    for epoch in range(9):
        order = data.train.order(1, epoch)
        assert order[order < 50].sort().values.equal(torch.arange(50))
        assert len(order) == 100
        seen += order.bincount(minlength=87)
        assert int(seen[50:].max() - seen[50:].min()) <= 1, "no extra image is ahead of another by more than one"
    assert int(seen[50:].sum()) == 9 * 50
    assert not data.train.order(1, 0).equal(data.train.order(1, 1))
    assert not data.train.order(1, 0).equal(data.train.order(2, 0))


def test_numbers_are_stable_and_the_images_of_the_data_are_what_they_are_alone():
    held = lambda: holdout(data=noise_images(60), size=0.25)
    alone, data = held(), mixed(data=held, extra=noise_images(30), share=0.4)
    names = alone.train.names(torch.arange(len(alone.train)))
    assert data.train.names(torch.arange(len(names))).equal(names), "they are those of the whole data set"
    after = int(names.max()) + 1
    assert data.train.names(len(names) + torch.arange(30)).equal(after + torch.arange(30))
    plain = {int(n): x for ids, xs, _ in batches(alone, 9) for n, x in zip(ids, xs)}
    for ids, x, y in batches(data, 10):
        assert len(ids) < 10 or int((ids < after).sum()) == 6
        assert all(image.equal(plain[int(n)]) for n, image in zip(ids, x) if n < after)
        assert y[ids < after].equal(alone.train.labels[(names[:, None] == ids[ids < after]).int().argmax(0)])
        assert y[ids >= after].equal((ids[ids >= after] - after) % 10)


def test_test_and_validation_images_and_what_a_probe_sees_of_the_training_are_the_datas():
    data = mixed(data=toy(50, name="own"), extra=toy(37, name="more"), share=0.5)
    assert data.name == "own"
    assert (data.sizes["train"], data.sizes["test"], len(data.test), len(data.train.sample(None))) == (100, 50, 50, 50)
    assert data.notes == ("50 training images an epoch are of more's 37, 0.5 of every batch",)


def test_two_sources_of_extra_images_are_mixed_one_after_the_other():
    data = mixed(data=lambda: mixed(data=toy(30), extra=toy(11), share=0.5), extra=toy(13), share=0.25)
    order = data.train.order(0, 0)
    assert [int((g >= 41).sum()) for g in order.split(4)] == [1] * 20
    assert [int(((g >= 30) & (g < 41)).sum()) for g in order[order < 41].split(2)] == [1] * 30
    assert data.train.names(torch.arange(54)).equal(torch.arange(54))


@pytest.mark.parametrize("start", [0, 2])
def test_a_mixture_of_files_is_the_same_whatever_the_workers_and_from_wherever_it_goes_on(tmp_path, start):
    root = str(photographs(tmp_path / "images"))
    files = lambda workers: lambda: imagenet(root=root, size=8, mode="L", workers=workers)
    made = [mixed(data=files(n), extra=files(n), share=0.4) for n in (0, 1)]
    whole, later = batches(made[0], 5), batches(made[1], 5, start=start)
    assert len(later) == len(whole) - start
    for a, b in zip(whole[start:], later, strict=True):
        assert all(one.equal(other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("extra", "share", "message"),
    [
        (toy(9, name="b", shape=(1, 5, 4)), 0.5, r"images of toy are 1x4x4, those of b 1x5x4"),
        (
            toy(9, name="b", classes=("cat", "dog")),
            0.5,
            r"toy has 10 classes \(0, 1, 2, 3, ...\), b has 2 \(cat, dog\)",
        ),
        (toy(9, classes=tuple("abcdefghij")), 0.5, r"dataset.npz.classes = \['0', '1'"),
        (toy(9), 1.0, "share lies between 0 and 1, got 1.0"),
        (toy(9), 0.001, "would hold none of toy"),
    ],
    ids=["shape", "classes", "names of classes", "all of it", "none of it"],
)
def test_what_cannot_be_mixed_is_refused(extra, share, message):
    with pytest.raises(InputError) as told:
        mixed(data=toy(50), extra=extra, share=share)
    assert re.search(message, f"{told.value.message}\n{told.value.help}")


def test_a_part_of_a_mixture_is_refused_with_the_order_that_works():
    data = holdout(data=lambda: mixed(data=toy(50), extra=toy(9), share=0.5), size=10)
    with pytest.raises(InputError, match="a part of a mixture would have other shares") as told:
        data.split("val")
    assert "dataset.mixed.data = @dataset.holdout()" in told.value.help


# -- images and labels in pairs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [mixup, cutmix])
def test_the_labels_are_what_the_image_is_made_of(how):
    """Each class has its grey, so an image's mean is its labels' mean grey."""
    data = how(data=toy(300, shape=(1, 8, 8)))
    assert data.soft_labels
    assert data.notes == (f"training images are blended in pairs, lambda of Beta(1, 1) (dataset.{how.__name__})",)
    greys, blended = torch.arange(10) / 9, 0
    for _, x, y in batches(data, 64):
        assert y.shape == (len(x), 10)
        assert (y.sum(1) - 1).abs().max() < 1e-6
        assert (x.mean((1, 2, 3)) - y @ greys).abs().max() < 1e-6
        blended += int(((y > 0).sum(1) == 2).sum())
        # In a box, every pixel is of one of the two.
        assert how is mixup or all(len(image.unique()) <= 2 for image in x)
    assert blended > 200


@pytest.mark.parametrize("how", [mixup, cutmix])
def test_pairs_depend_on_the_seed_the_epoch_and_the_example_alone(how):
    data = how(data=noise_images(40))
    key = (0, 5)
    ((together, labels),) = data.train.batches([torch.arange(40)], key=key)
    alone = list(data.train.batches(torch.arange(40).split(1), key=key))
    assert together.equal(torch.cat([x for x, _ in alone]))
    assert labels.equal(torch.cat([y for _, y in alone]))
    ((other, _),) = data.train.batches([torch.arange(40)], key=(0, 6))
    assert not other.equal(together)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_lambda_has_the_moments_of_beta(alpha):
    # A class an example: the first of a pair has its own.
    data = mixup(data=toy(4000, shape=(1, 1, 1), classes=tuple(map(str, range(4000)))), alpha=alpha)
    ((_, y),) = data.train.batches([torch.arange(2000)], key=(0, 0))
    found = y[torch.arange(2000), torch.arange(2000)]
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(found.mean()) == pytest.approx(0.5, abs=4 * (variance / 2000) ** 0.5)
    assert float(found.var()) == pytest.approx(variance, rel=0.1)


def test_without_a_key_images_and_labels_are_as_they_are():
    data = mixup(data=toy(50))
    ((x, y),) = data.train.batches([torch.arange(50)])
    assert y.equal(torch.arange(50) % 10)
    assert x.equal(toy(50)().train.images)
    assert data.test.labels.equal(y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mixup(data=lambda: cutmix(data=toy(9))), "the labels of toy are shares of classes already"),
        (
            lambda: noisy_labels(data=lambda: mixup(data=toy(9)), share=0.1),
            "dataset.noisy_labels goes around data with",
        ),
        (lambda: mixup(data=toy(9), alpha=0.0), "dataset.mixup.alpha must be positive"),
        (lambda: noisy_labels(data=toy(9), share=1.5), r"dataset.noisy_labels.share lies in \[0,1\], got 1.5"),
    ],
    ids=["blended twice", "noise on shares", "alpha", "share"],
)
def test_what_cannot_be_blended_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_blended_images_mixed_with_others_have_shares_of_classes_too():
    data = mixed(data=lambda: mixup(data=toy(50)), extra=toy(20), share=0.5)
    assert data.soft_labels
    for ids, _, y in batches(data, 10):
        assert y.shape == (10, 10)
        assert y[ids >= 50].amax(1).eq(1).all()


# -- labels with noise -----------------------------------------------------------------------------------------------------


def test_the_share_of_wrong_labels_is_the_one_asked_for_and_all_others_are_as_likely():
    count, share = 20_000, 0.3
    data = noisy_labels(data=toy(count, shape=(1, 1, 1)), share=share, seed=3)
    true, found = torch.arange(count) % 10, data.train.labels
    wrong = found != true
    assert float(wrong.float().mean()) == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)
    steps = ((found - true) % 10)[wrong].bincount(minlength=10)[1:].float() / wrong.sum()
    assert steps.tolist() == pytest.approx([1 / 9] * 9, abs=0.02)
    assert data.test.labels.equal(true)
    assert data.notes == ("30 % of the training labels are wrong on purpose (dataset.noisy_labels)",)


def test_a_noisy_label_is_the_examples_own_also_in_a_part_and_in_every_epoch():
    make = lambda seed=0: noisy_labels(data=noise_images(200), share=0.5, seed=seed)
    data, held = make(), holdout(data=make, size=50)
    names = held.train.names(torch.arange(150))
    assert held.train.labels.equal(data.train.labels[names])
    assert not make(1).train.labels.equal(data.train.labels)
    for epoch in (0, 1):
        for ids, _, y in batches(data, 32, epoch=epoch):
            assert y.equal(data.train.labels[ids])
    assert data.train.sample(20).labels.equal(data.train.labels[data.train.sample(20).names(torch.arange(20))])


def test_a_recipe_names_them_each_with_its_own_scope(write):
    from actkit.config.recipe import load_recipe

    text = """
        include 'natural_digits.gin'
        run.data = @dataset.mixed()
        dataset.mixed.data = @dataset.digits()
        dataset.mixed.extra = @extra/dataset.digits()
        dataset.mixed.share = 0.3
        extra/dataset.digits.split_seed = 1
    """
    data = load_recipe(str(write("mixed.gin", text)), []).spec.kwargs["data"]
    assert data.kwargs["extra"] == Spec("dataset", "digits", {"split_seed": 1})
    assert data.build()().sizes == {"train": 1438 + 616, "test": 359}

"""`as_data`: every form in which data come is the same data; what is no image in [0,1] with a class is said in a line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

import actkit
from actkit import Data, InputError
from actkit.python.data import assert_trainable
from helpers.images import folder

X = torch.rand(10, 3, 6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 4


class Pairs(Dataset):
    """A map-style data set whose labels only reading tells."""

    def __init__(self, x=X, y=Y):
        self.x, self.y, self.read = x, y, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.read.append(i)
        return self.x[i], int(self.y[i])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y))


FORMS = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "a list of both": [X, Y.tolist()],
    "one-hot labels": (X, torch.eye(4)[Y]),
    "labels as a column": (X, Y[:, None].int()),
    "doubles": (X.double(), Y),
    "a TensorDataset": TensorDataset(X, Y),
    "a data set": Pairs(),
    "a loader": DataLoader(Pairs(), batch_size=3),
    "a shuffled loader": DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True),
    "a stream": DataLoader(Stream(), batch_size=4),
    "a part of a data set": Subset(Pairs(torch.cat([X, X]), torch.cat([Y, Y])), range(10, 20)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(form):
    data = actkit.as_data(FORMS[form])
    x, y = data.test.batch(torch.arange(10))
    assert x.equal(X)
    assert y.equal(Y)
    assert (data.shape, data.classes, dict(data.sizes)) == ((3, 6, 5), ("0", "1", "2", "3"), {"test": 10})


def test_bytes_are_images():
    assert actkit.as_data(((X * 255).to(torch.uint8), Y)).test.images.dtype == torch.uint8


def test_a_data_set_passes_and_a_name_is_found():
    digits = actkit.as_data("digits")
    assert isinstance(digits, Data)
    assert actkit.as_data(digits) is digits


def test_a_folder_of_class_folders_is_data_with_and_without_splits(tmp_path):
    root = folder(tmp_path / "pets")
    assert dict(actkit.as_data(root).sizes) == {"train": 6, "test": 6}
    alone = actkit.as_data(str(root / "train"))
    assert (dict(alone.sizes), alone.classes) == ({"test": 6}, ("cat", "dog"))
    assert len(alone.test) == 6


def test_a_file_of_arrays_is_data(tmp_path):
    np.savez(tmp_path / "mine.npz", images=X.numpy(), labels=Y.numpy())
    assert dict(actkit.as_data(tmp_path / "mine.npz").sizes) == {"test": 10}


def test_with_a_limit_a_data_set_is_read_no_further_than_the_probe_looks():
    pairs = Pairs()
    pairs.targets = Y.tolist()
    data = actkit.as_data(pairs, limit=4)
    assert len(set(pairs.read)) <= 5
    whole = actkit.as_data((X, Y)).test.sample(4)
    assert data.test.batch(torch.arange(4))[0].equal(whole.batch(torch.arange(4))[0])
    assert data.test.names(torch.arange(4)).equal(whole.names(torch.arange(4)))


def test_a_training_draws_a_data_sets_random_transforms_anew_in_each_epoch_and_only_then():
    class Jittered(Pairs):
        def __getitem__(self, i):
            return self.x[i] * torch.rand(()), int(self.y[i])

    split = actkit.as_data(Jittered(), split="train").train
    before = torch.get_rng_state()
    places = [torch.arange(10)]
    first, again, later = (next(split.batches(places, key=key))[0] for key in ((0, 0), (0, 0), (0, 1)))
    assert first.equal(again)
    assert not first.equal(later)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    "loader",
    [DataLoader(Stream(), batch_size=4), DataLoader(Pairs(), sampler=WeightedRandomSampler([1.0] * 10, 10))],
    ids=["a stream", "a weighted sampler"],
)
def test_what_can_only_be_read_through_trains_nothing(loader):
    with pytest.raises(InputError, match="give the Dataset itself"):
        assert_trainable(loader)


REFUSED = {
    "normalised": ((torch.randn(4, 3, 6, 5), Y[:4]), r"must lie in \[0,1\], these span -.*\n  help: they look normalised: give them in \[0,1\] and let the model normalise"),
    "grey levels as floats": ((X * 255, Y), "they look like grey levels: x / 255"),
    "not a number": ((X * float("nan"), Y), r"must lie in \[0,1\], these span nan to nan"),
    "channels last": ((X.permute(0, 2, 3, 1)[:, :5], Y), "their channels are last\n  help: x.permute"),
    "one image": ((X[0], Y[:1]), r"images are \(N, C, H, W\), these are \(3, 6, 5\)\n  help: a batch of one image"),
    "grey without channel": ((torch.rand(10, 6, 6), Y), r"grey images: x\[:, None\]"),
    "integers": ((X.long(), Y), "uint8 .* or floating in"),
    "labels that are no classes": ((X, Y + 0.5), "labels are whole numbers, these are float32"),
    "negative labels": ((X, Y - 1), "labels are classes from 0, these go down to -1"),
    "too few labels": ((X, Y[:9]), "there are 10 images but 9 labels"),
    "three parts": ((X, Y, Y), r"data as a tuple are \(images, labels\), this has 3 parts"),
    "no images": ((X[:0], Y[:0]), "there are no images"),
    "a number": (7, "data cannot be a int\n  help: give a tuple"),
    "a misspelt name": ("digit", "there is no data set and no folder 'digit'\n  help: did you mean 'digits'"),
    "a normalised data set": (Pairs(X * 4 - 2), "it looks normalised: take Normalize out of its transform"),
    "images of several sizes": (Pairs([X[0], X[1, :, 1:]], [0, 1]), "images of one size are wanted"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_data_is_refused_in_a_line(what):
    data, said = REFUSED[what]
    with pytest.raises(InputError, match=said):
        actkit.as_data(data)

"""Data sets: what they hold, how they are augmented, and what is said when their files are not right."""

from __future__ import annotations

import pickle
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actkit.datasets import Data, Split, cifar10, crop_and_flip, digits, imagefolder, moons
from actkit.noise import Noise


def noise(n: int, key: int = 0) -> Noise:
    return Noise(torch.arange(n), key)


@pytest.mark.parametrize(
    ("data", "counts"), [(digits(), (1438, 359)), (moons(size=50), (50, 50))], ids=["digits", "moons"]
)
def test_offline_sets_have_the_size_they_say_and_images_in_0_1(data, counts):
    assert (data.sizes["train"], data.sizes["test"]) == counts == (len(data.train), len(data.test))
    for split in (data.train, data.test):
        x, y = split.batch(torch.arange(10))
        assert x.shape[1:] == data.shape
        assert x.dtype == torch.float32
        assert 0 <= x.min() <= x.max() <= 1
        assert set(split.labels.tolist()) == set(range(data.num_classes))


def test_digits_has_each_of_its_images_in_one_split():
    data = digits()
    every = torch.cat([data.train.images, data.test.images]).flatten(1)
    from sklearn.datasets import load_digits

    raw = torch.from_numpy(load_digits().data).float() / 16
    assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, raw.tolist()))


def test_a_crop_without_offset_and_flip_is_the_image_and_others_are_its_reflect_padded_windows():
    x = torch.arange(2 * 5 * 6).view(1, 2, 5, 6).float().expand(64, -1, -1, -1) / 60
    out = crop_and_flip(x, noise(64), pad=2, flip=True)
    padded = torch.nn.functional.pad(x[:1], (2, 2, 2, 2), mode="reflect")
    windows = {tuple(padded[0, :, i : i + 5, j : j + 6].flatten().tolist()) for i in range(5) for j in range(5)}
    windows |= {
        tuple(padded[0, :, i : i + 5, j : j + 6].flip(2).flatten().tolist()) for i in range(5) for j in range(5)
    }
    seen = {tuple(image.flatten().tolist()) for image in out}
    assert seen <= windows
    assert len(seen) > 20  # many different ones
    assert crop_and_flip(x, noise(64), pad=0, flip=False).equal(x)


def test_an_examples_augmentation_does_not_depend_on_the_batch_it_is_in():
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    together = crop_and_flip(x, noise(8), pad=2, flip=True)
    alone = torch.cat([crop_and_flip(x[i : i + 1], noise(8)[i : i + 1], pad=2, flip=True) for i in range(8)])
    assert together.equal(alone)


def test_only_the_training_split_is_augmented_and_only_when_asked():
    data = digits(crop=1)
    assert data.train.augment is not None
    assert data.test.augment is None
    plain = data.train.batch(torch.arange(5))[0]
    assert plain.equal(Split(data.train.images, data.train.labels).batch(torch.arange(5))[0])
    assert not plain.equal(data.train.batch(torch.arange(5), noise=noise(5))[0])


def test_the_order_is_a_shuffle_by_seed_and_epoch():
    split = digits().train
    assert split.order(0, 0).equal(split.order(0, 0))
    assert not split.order(0, 0).equal(split.order(0, 1))
    assert not split.order(0, 0).equal(split.order(1, 0))
    assert split.order(3, 4).sort().values.equal(torch.arange(len(split)))


def test_uint8_is_divided_by_255_and_other_ranges_are_refused():
    split = Split(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), torch.tensor([0, 1]))
    assert split.batch(torch.arange(2))[0].flatten().tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match=r"must lie in \[0,1\].*normalisation is a layer"):
        try:
            Split(torch.tensor([-2.0, 2.0]).view(2, 1, 1, 1), torch.tensor([0, 1]))
        except ValueError as error:
            raise ValueError(str(error).replace("\n", " ")) from None


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_images_outside_0_1_are_refused(value):
    with pytest.raises(ValueError, match=r"must lie in \[0,1\]"):
        Split(torch.tensor([0.5, value]).view(2, 1, 1, 1), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("label", [-1, 2])
def test_every_label_out_of_range_is_told(label):
    split = Split(torch.zeros(2, 1, 1, 1), torch.tensor([0, label]))
    data = Data("two", (1, 1, 1), ("a", "b"), {"test": 2}, lambda name: split)
    with pytest.raises(ValueError, match=rf"(?s)label {label} in test, but 2 classes.*labels are 0 to 1"):
        data.split("test")


def test_a_label_out_of_range_and_an_unknown_split_are_refused():
    split = Split(torch.zeros(1, 1, 1, 1), torch.tensor([2]))
    data = Data("toy", (1, 1, 1), ("a", "b"), {"train": 1}, lambda name: split)
    with pytest.raises(ValueError, match="label 2 in train, but 2 classes"):
        data.split("train")
    with pytest.raises(ValueError, match="no split 'tets'"):
        data.split("tets")


# -- image folders -----------------------------------------------------------------------------------------------------


def folder(root: Path, *, size=(6, 5), per_class=3, classes=("cat", "dog")) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for cls in classes:
            (root / split / cls).mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
                    root / split / cls / f"{i}.png"
                )
    return root


def test_an_image_folder_holds_what_its_files_hold(tmp_path):
    data = imagefolder(root=str(folder(tmp_path)), crop=0, flip=False)
    assert (data.shape, data.classes, dict(data.sizes)) == ((3, 5, 6), ("cat", "dog"), {"train": 6, "test": 6})
    x, y = data.train.batch(torch.arange(6))
    assert y.tolist() == [0, 0, 0, 1, 1, 1]
    for i, path in enumerate(sorted((tmp_path / "train").rglob("*.png"))):
        assert (x[i] * 255).byte().permute(1, 2, 0).numpy().tolist() == np.asarray(Image.open(path)).tolist()
    assert imagefolder(root=str(tmp_path), limit=1).sizes == {"train": 2, "test": 2}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: root / "nowhere", "does not exist"),
        (lambda root: (root / "train").rename(root / "trian") and root, "has no 'train'.*did you mean 'trian'"),
        (
            lambda root: [f.unlink() for f in (root / "train").rglob("*.png")] and root,
            "there are no images.*one folder a class",
        ),
        (
            lambda root: (root / "test" / "cat").rename(root / "test" / "cow") and root,
            "classes in test that train does not have: cow",
        ),
        (lambda root: (root / "train/cat/0.png").write_bytes(b"no image") and root, "not a readable image"),
    ],
    ids=["missing", "misspelt split", "empty", "another class", "no image"],
)
def test_an_image_folder_that_is_not_right_is_told_with_the_remedy(tmp_path, break_it, message):
    root = break_it(folder(tmp_path))
    with pytest.raises(ValueError, match=message):
        try:
            imagefolder(root=str(root)).split("train")
        except ValueError as error:
            raise ValueError(str(error).replace("\n", " ")) from None


def test_hidden_folders_are_no_classes(tmp_path):
    folder(tmp_path)
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    assert imagefolder(root=str(tmp_path)).classes == ("cat", "dog")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        imagefolder(root=str(tmp_path), limit=-1)


def test_images_of_several_sizes_and_sets_too_large_for_memory_are_refused(tmp_path):
    folder(tmp_path)
    with pytest.raises(ValueError, match="GiB in memory"):
        imagefolder(root=str(tmp_path), max_gib=1e-9)
    Image.new("RGB", (9, 9)).save(tmp_path / "train/cat/9.png")
    with pytest.raises(ValueError, match="9x9, the first one 6x5"):
        imagefolder(root=str(tmp_path)).split("train")


# -- CIFAR-10 through torchvision ----------------------------------------------------------------------------------------


def fake_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, n: int = 20) -> Path:
    """The layout of CIFAR-10 with few images, and torchvision's own checksums set to match it."""
    from torchvision.datasets import CIFAR10

    base = root / CIFAR10.base_folder
    base.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), []

    def put(name: str, content: dict) -> list[str]:
        raw = pickle.dumps(content)
        (base / name).write_bytes(raw)
        return [name, md5(raw).hexdigest()]

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        sums.append(
            put(name, {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), "labels": list(range(10)) * (n // 10)})
        )
    meta = put("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return base


def test_cifar10_is_read_through_torchvision(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    data = cifar10(root=str(tmp_path))
    assert (len(data.train), len(data.test)) == (100, 20)
    assert data.train.images.shape == (100, 3, 32, 32)
    assert data.train.images.dtype == torch.uint8


def test_cifar10_says_its_shape_without_any_file_and_is_never_downloaded_unasked(tmp_path, monkeypatch):
    import torchvision.datasets.cifar as module

    monkeypatch.setattr(module, "download_and_extract_archive", lambda *a, **k: pytest.fail("it downloads"))
    data = cifar10(root=str(tmp_path))
    assert (data.shape, data.num_classes) == ((3, 32, 32), 10)
    with pytest.raises(ValueError, match=r"CIFAR-10 is not there(.|\n)*dataset.cifar10.download=true"):
        data.split("train")


def test_an_altered_cifar10_file_is_told_and_left_alone(tmp_path, monkeypatch):
    base = fake_cifar(tmp_path, monkeypatch)
    altered = base / "data_batch_3"
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="checksum is wrong"):
        cifar10(root=str(tmp_path)).split("train")
    assert altered.exists()


def test_a_sample_of_a_split_sorted_by_class_holds_all_classes_and_is_always_the_same():
    split = Split(torch.zeros(1000, 1, 1, 1), torch.arange(10).repeat_interleave(100))
    sample = split.sample(100)
    assert len(sample) == 100
    assert set(sample.labels.tolist()) == set(range(10))
    assert sample.labels.equal(split.sample(100).labels)
    assert len(split.sample(2000)) == len(split.sample(None)) == 1000

"""Data sets: what they hold, how they are augmented, and what is said when their files are not right."""

from __future__ import annotations

import http.server
import importlib.machinery
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from actkit.datasets import (
    Data,
    Split,
    cifar10,
    cifar100,
    crop_and_flip,
    decoding,
    digits,
    folders,
    holdout,
    imagefolder,
    imagenet,
    moons,
    splits,
)
from actkit.datasets import torchvision as torchvision_set
from actkit.display import listening
from actkit.errors import ActkitError, InputError
from actkit.noise import Noise
from helpers.images import folder, photographs


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


def test_the_digits_are_those_of_scikit_learn_bit_for_bit():
    from sklearn.datasets import load_digits

    data, raw = digits(split_seed=3), load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(3))
    images, labels = torch.from_numpy(raw.images).float()[:, None] / 16, torch.from_numpy(raw.target).long()
    assert torch.cat([data.test.images, data.train.images]).equal(images[order])
    assert torch.cat([data.test.labels, data.train.labels]).equal(labels[order])


def test_the_digits_are_read_without_importing_scikit_learn():
    read = "import sys; from actkit.datasets import digits; digits().train; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", read], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "the digits come with scikit-learn, which is not installed"),
        (importlib.machinery.ModuleSpec("sklearn", None, origin="/none/sklearn/__init__.py"), "digits cannot be read"),
    ],
    ids=["no package", "no file"],
)
def test_digits_that_are_not_there_are_told(spec, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=message) as told:
        digits().split("train")
    assert told.value.where.endswith("digits.csv.gz")
    assert "pip install" in told.value.help


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


# -- published sets: served from this machine, through the real download code ---------------------------------------------


def fake_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, name: str = "CIFAR10", n: int = 20) -> Path:
    """The layout of a CIFAR set with few images, and torchvision's own checksums set to match it."""
    source = getattr(torchvision.datasets, name)
    base = root / source.base_folder
    base.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), {}
    fine = name == "CIFAR100"

    def put(file: str, content: dict) -> list[str]:
        raw = pickle.dumps(content)
        (base / file).write_bytes(raw)
        sums[file] = md5(raw).hexdigest()
        return [file, sums[file]]

    def some(file: str) -> list[str]:
        labels = {"fine_labels" if fine else "labels": [i % (100 if fine else 10) for i in range(n)]}
        return put(file, {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), **labels})

    monkeypatch.setattr(source, "train_list", [some(file) for file, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [some(file) for file, _ in source.test_list])
    meta = put(source.meta["filename"], {source.meta["key"]: ["a"] * (100 if fine else 10)})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": meta[1]})
    return base


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A CIFAR archive behind http on this machine; `bend` may alter what is sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            where = state["archive"]
            if self.path != f"/{where.name}":
                self.send_error(404)
                return
            content = where.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(state["bend"](content))

        def log_message(self, *args): ...

    state = {"bend": lambda content: content, "asked": 0}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(name: str, bend=None):
        there = tmp_path / "served"
        base = fake_cifar(there, monkeypatch, name)
        source = getattr(torchvision.datasets, name)
        state["archive"] = there / source.filename
        with tarfile.open(state["archive"], "w:gz") as archive:
            archive.add(base, source.base_folder)
        if bend is not None:
            state["bend"] = bend
        monkeypatch.setattr(source, "url", f"http://127.0.0.1:{server.server_port}/{source.filename}")
        monkeypatch.setattr(source, "tgz_md5", md5(state["archive"].read_bytes()).hexdigest())
        return source

    yield serve
    server.shutdown()
    server.server_close()


SETS = {"CIFAR10": cifar10, "CIFAR100": cifar100}


@pytest.mark.parametrize("name", SETS)
def test_cifar_is_downloaded_checked_and_read(name, served, tmp_path):
    source = served(name)
    root = tmp_path / "data"
    said = []
    with listening(lambda what, done, total: said.append((what, done, total))):
        split = SETS[name](root=str(root), download=True).split("train")
    assert split.images.shape[1:] == (3, 32, 32)
    assert split.images.dtype == torch.uint8
    raw = source(root, train=True)
    assert split.images.permute(0, 2, 3, 1).numpy().tolist() == raw.data.tolist()
    assert split.labels.tolist() == raw.targets
    assert {p.name for p in root.iterdir()} == {source.base_folder, source.filename}  # nothing temporary is left
    size = (root / source.filename).stat().st_size
    assert said[-2:] == [(f"downloading {source.filename}", size, size), (f"unpacking {source.filename}", 0, 1)]
    # The second time nothing is asked for.
    assert len(SETS[name](root=str(root)).split("test")) == 20


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (lambda content: content[: len(content) // 2], "could not be downloaded.*after|ended"),
        (
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            "has the MD5 [0-9a-f]{32}, it should be [0-9a-f]{32}; it is not kept",
        ),
    ],
    ids=["cut short", "altered"],
)
def test_a_download_that_is_cut_short_or_altered_leaves_nothing(name, bend, message, served, tmp_path):
    served(name, bend)
    root = tmp_path / "data"
    with pytest.raises(InputError, match=message) as told:
        SETS[name](root=str(root), download=True).split("train")
    assert "by other means and put it there" in told.value.help
    assert list(root.iterdir()) == []


def test_a_server_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(InputError, match="could not be downloaded.*refused"):
        cifar10(root=str(tmp_path / "data"), download=True).split("train")


def test_an_archive_that_the_user_put_there_is_used_and_a_wrong_one_is_left_alone(served, tmp_path, monkeypatch):
    source = served("CIFAR10")
    monkeypatch.setattr(source, "url", "http://127.0.0.1:9/never")
    root = tmp_path / "data"
    root.mkdir()
    mine = root / source.filename
    mine.write_bytes((tmp_path / "served" / source.filename).read_bytes())
    assert len(cifar10(root=str(root)).split("test")) == 20  # it need not be asked to download
    shutil.rmtree(root / source.base_folder)
    mine.write_bytes(b"something else")
    with pytest.raises(InputError, match="this file's MD5 is [0-9a-f]{32}, it should be [0-9a-f]{32}") as told:
        cifar10(root=str(root), download=True).split("train")
    assert str(mine) == told.value.where
    assert "move it away" in told.value.help
    assert mine.read_bytes() == b"something else"


def test_cifar10_says_its_shape_without_any_file_and_is_never_downloaded_unasked(tmp_path):
    for make, classes in ((cifar10, 10), (cifar100, 100)):
        data = make(root=str(tmp_path))
        assert (data.shape, data.num_classes) == ((3, 32, 32), classes)
        assert len(set(data.classes)) == classes
        with pytest.raises(InputError, match=r"CIFAR-100? is not there") as told:
            data.split("train")
        assert f"dataset.{data.name}.download=true" in told.value.help
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_unpack_at_once(served, tmp_path, monkeypatch):
    """The other one is quicker between the look and the rename."""
    source = served("CIFAR10")
    root, rename = tmp_path / "data", Path.rename

    def quicker(self, to):
        if self.name == source.base_folder and not to.exists():
            shutil.copytree(self, to)
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", quicker)
    assert len(cifar10(root=str(root), download=True).split("test")) == 20
    assert {p.name for p in root.iterdir()} == {source.base_folder, source.filename}


def test_an_archive_that_cannot_be_unpacked_is_told(served, tmp_path, monkeypatch):
    served("CIFAR10")
    import torchvision.datasets.utils as utils

    def full(archive, to):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(utils, "extract_archive", full)
    with pytest.raises(InputError, match="cannot be unpacked.*No space left"):
        cifar10(root=str(tmp_path / "data"), download=True).split("train")
    assert [p.suffix for p in (tmp_path / "data").iterdir()] == [".gz"]


@pytest.mark.parametrize("break_it", ["alter", "remove"])
def test_a_wrong_cifar_file_is_named_with_both_sums_and_left_alone(break_it, tmp_path, monkeypatch):
    base = fake_cifar(tmp_path, monkeypatch)
    file = base / "data_batch_3"
    whole = file.read_bytes()
    file.unlink() if break_it == "remove" else file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(InputError) as told:
        cifar10(root=str(tmp_path), download=True).split("train")
    assert told.value.where == str(file)
    assert "move cifar-10-batches-py away" in told.value.help
    if break_it == "alter":
        assert md5(whole).hexdigest() in told.value.message
        assert md5(whole[:-1] + b"x").hexdigest() in told.value.message
        assert file.read_bytes() == whole[:-1] + b"x"


# -- any other of torchvision's sets ------------------------------------------------------------------------------------


def fake_mnist(root: Path, count: int = 12, *, gzipped: bool = False) -> None:
    rng = np.random.default_rng(0)
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(">I", 0x800 + array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())


def test_a_set_of_arrays_says_its_numbers_before_it_is_there_and_is_held_to_them(tmp_path):
    data = torchvision_set(name="MNIST", root=str(tmp_path))
    assert (data.shape, data.num_classes, dict(data.sizes)) == ((1, 28, 28), 10, {"train": 60_000, "test": 10_000})
    with pytest.raises(InputError, match="torchvision's MNIST cannot be read") as told:
        data.split("train")
    assert "dataset.torchvision.download=true" in told.value.help
    fake_mnist(tmp_path)
    with pytest.raises(InputError, match=r"holds 12 train images of \(1, 28, 28\), not 60,000"):
        torchvision_set(name="MNIST", root=str(tmp_path)).split("train")


def fake_emnist(root: Path, count: int = 12) -> None:
    """Letters: two parts, of other images each."""
    rng, raw = np.random.default_rng(0), root / "EMNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        images, labels = (
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            np.arange(count, dtype=np.uint8) % 26 + 1,
        )
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(">I", 0x800 + array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
            (raw / f"emnist-letters-{part}-{kind}-ubyte").write_bytes(head + array.tobytes())


def test_an_option_chooses_a_kind_of_set_but_never_which_split_is_read(tmp_path):
    fake_emnist(tmp_path)
    data = torchvision_set(name="EMNIST", root=str(tmp_path), size=14, mode="L", options={"split": "letters"})
    assert not data.train.images.equal(data.test.images)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("MNIST", {"options": {"train": True}}, "may not set 'train': it decides which split is read"),
        ("Flowers102", {"options": {"split": "train"}}, "may not set 'split': it decides which split is read"),
        ("QMNIST", {"options": {"what": "train"}}, "may not set 'what'"),
        ("MNIST", {"options": {"transform": None}}, "may not set 'transform'"),
        ("MNIST", {"options": {"tranform": None}}, "takes no 'tranform'"),
        ("Flowers102", {"test": "train"}, "not examined on what it was trained on"),
    ],
)
def test_a_setting_by_which_train_and_test_would_be_the_same_is_refused(name, settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        torchvision_set(name=name, root=str(tmp_path), size=14, **settings)


def test_images_that_are_in_both_splits_are_an_error(tmp_path):
    fake_mnist(tmp_path)
    raw = tmp_path / "MNIST/raw"
    (raw / "t10k-images-idx3-ubyte").write_bytes((raw / "train-images-idx3-ubyte").read_bytes())
    with pytest.raises(InputError, match="12 of 12 test images of torchvision's MNIST are training images too"):
        torchvision_set(name="MNIST", root=str(tmp_path), size=28, mode="L").split("test")


def test_a_set_of_arrays_can_be_resized(tmp_path):
    fake_mnist(tmp_path)
    data = torchvision_set(name="MNIST", root=str(tmp_path), size=14, mode="L")
    assert (data.shape, dict(data.sizes), data.num_classes) == ((1, 14, 14), {"train": 12, "test": 12}, 10)
    assert data.train.images.shape == (12, 1, 14, 14)
    assert data.train.labels.tolist() == [i % 10 for i in range(12)]


def test_a_torchvision_download_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def download(self):
        if self._check_exists():
            return
        fake_mnist(Path(self.root))
        if fails:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    fails = True
    with pytest.raises(InputError, match="File not found or corrupted"):
        torchvision_set(name="MNIST", root=str(tmp_path), size=14, download=True)
    assert list(tmp_path.iterdir()) == []
    fails = False
    assert len(torchvision_set(name="MNIST", root=str(tmp_path), size=14, download=True).test) == 12
    assert [p.name for p in tmp_path.iterdir()] == ["MNIST"]


@pytest.mark.parametrize(
    ("settings", "message", "help"),
    [
        ({"name": "Mnist"}, "no classification set 'Mnist'", "did you mean"),
        ({"name": "CIFAR10"}, "has a name of its own here", "@dataset.cifar10()"),
        ({"name": "EMNIST", "size": 14}, "torchvision's EMNIST cannot be read.*split", "root"),
        ({"name": "CocoDetection"}, "no classification set 'CocoDetection'", None),
        ({"name": "Flowers102"}, "images of several sizes", "dataset.torchvision.size"),
    ],
)
def test_a_torchvision_set_that_cannot_be_is_told(settings, message, help, tmp_path):
    with pytest.raises(InputError, match=message) as told:
        torchvision_set(**settings, root=str(tmp_path))
    assert help is None or help in told.value.help


# -- images that stay in their files -------------------------------------------------------------------------------------


def all_batches(split, key=None, sizes=4):
    groups = torch.arange(len(split)).split(sizes)
    parts = list(split.batches(groups, key=key))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def test_imagenet_says_its_numbers_before_it_is_there(tmp_path):
    data = imagenet(root=str(tmp_path / "none"))
    assert (data.shape, data.num_classes, data.sizes["train"]) == ((3, 224, 224), 1000, 1_281_167)
    with pytest.raises(InputError, match="does not exist"):
        data.split("train")


def test_photographs_are_cut_and_resized_as_imagenet_is(tmp_path):
    data = imagenet(root=str(photographs(tmp_path)), size=16, workers=0)
    assert (data.shape, data.classes, dict(data.sizes)) == ((3, 16, 16), ("cat", "dog"), {"train": 12, "test": 12})
    x, y = all_batches(data.test)
    assert y.tolist() == [0] * 6 + [1] * 6
    from torchvision.transforms import v2

    usual = v2.Compose([v2.Resize(18), v2.CenterCrop(16), v2.PILToTensor()])
    for i, path in enumerate(sorted((tmp_path / "val").rglob("*.jpg"))):
        assert (x[i] * 255).byte().equal(usual(Image.open(path)))


@pytest.mark.parametrize("workers", [1, 2])
def test_neither_workers_nor_batches_change_an_images_augmentation(workers, tmp_path):
    photographs(tmp_path)
    alone = imagenet(root=str(tmp_path), size=16, workers=0).train
    helped = imagenet(root=str(tmp_path), size=16, workers=workers).train
    state = torch.get_rng_state()
    x, y = all_batches(alone, key=(3, 1), sizes=12)
    again, labels = all_batches(helped, key=(3, 1), sizes=5)
    assert x.equal(again)
    assert y.equal(labels)
    assert not x.equal(all_batches(alone, key=(3, 2))[0])
    assert not x.equal(all_batches(alone)[0])  # without a key nothing is augmented
    part = alone.take(torch.tensor([7, 2]))
    assert all_batches(part, key=(3, 1))[0].equal(x[[7, 2]])
    assert torch.get_rng_state().equal(state)  # and torch's own generator is as it was


def test_an_unreadable_photograph_is_named_also_from_a_worker(tmp_path):
    photographs(tmp_path)
    (tmp_path / "train/cat/3.jpg").write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(InputError, match="not a readable image") as told:
            all_batches(imagenet(root=str(tmp_path), size=16, workers=workers).train)
        assert told.value.where.endswith("train/cat/3.jpg")


@pytest.mark.parametrize(
    ("does", "message", "help"),
    [
        (lambda: time.sleep(60), "gave no batch in time: DataLoader timed out after 1", "timeout"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "a worker that decodes images was killed", "fewer workers"),
    ],
    ids=["hangs", "killed"],
)
def test_a_worker_that_hangs_or_dies_ends_the_run_with_a_clear_line(does, message, help, tmp_path, monkeypatch):
    data = imagenet(root=str(photographs(tmp_path)), size=16, workers=1, timeout=1.0)
    monkeypatch.setattr(decoding.FileSplit, "pixels", lambda self, place, key: does())
    with pytest.raises(ActkitError, match=message) as told:
        all_batches(data.train)
    assert help in told.value.help
    assert not multiprocessing.active_children()


def test_a_worker_ignores_the_signals_that_the_main_process_answers(tmp_path, monkeypatch):
    data = imagenet(root=str(photographs(tmp_path)), size=16, workers=1, timeout=30.0)

    def pixels(self, place, key):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return torch.zeros(3, 16, 16, dtype=torch.uint8)

    monkeypatch.setattr(decoding.FileSplit, "pixels", pixels)
    assert len(all_batches(data.train)[0]) == 12


def test_the_fingerprint_of_files_tells_names_sizes_and_cuts_apart(tmp_path):
    photographs(tmp_path)
    one = imagenet(root=str(tmp_path), size=16).test.fingerprint()
    assert one == imagenet(root=str(tmp_path), size=16).test.fingerprint()
    assert one != imagenet(root=str(tmp_path), size=17).test.fingerprint()
    with (tmp_path / "val/cat/0.jpg").open("ab") as file:
        file.write(b"x")
    assert one != imagenet(root=str(tmp_path), size=16).test.fingerprint()


@pytest.mark.parametrize(
    "settings", [{"size": 0}, {"size": 8, "resize": 4}, {"workers": -1}, {"timeout": 0.0}, {"limit": 0}]
)
def test_settings_of_imagenet_that_cannot_be_are_told(settings, tmp_path):
    photographs(tmp_path)
    with pytest.raises(InputError, match=r"dataset\.imagenet"):
        imagenet(root=str(tmp_path), **settings)


# -- the cache of decoded folders ------------------------------------------------------------------------------------------


@pytest.fixture
def cached_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = folder(tmp_path / "images", per_class=250)
    decoded = []
    real = folders.decode
    monkeypatch.setattr(folders, "decode", lambda *args: decoded.append(args[0]) or real(*args))
    monkeypatch.setattr(folders, "CACHED", 500)
    return root, decoded


def test_a_decoded_folder_is_read_from_the_cache_the_second_time(cached_folder, tmp_path):
    root, decoded = cached_folder
    first = imagefolder(root=str(root)).train
    assert len(decoded) == 500
    second = imagefolder(root=str(root)).train
    assert len(decoded) == 500
    assert second.images.equal(first.images)
    assert second.labels.equal(first.labels)


@pytest.mark.parametrize(
    "change", ["a file changed", "a file is new", "the copy is damaged", "the copy is cut short", "the sum is gone"]
)
def test_the_cache_is_not_used_when_anything_changed(cached_folder, change, tmp_path):
    root, decoded = cached_folder
    imagefolder(root=str(root)).split("train")
    copy = next((tmp_path / "cache/actkit/images").glob("*.npy"))
    if change == "a file changed":
        Image.new("RGB", (6, 5), "red").save(root / "train/cat/0.png")
    elif change == "a file is new":
        Image.new("RGB", (6, 5), "red").save(root / "train/cat/9999.png")
    elif change == "the copy is damaged":
        content = bytearray(copy.read_bytes())
        content[-1] ^= 1
        copy.write_bytes(content)
    elif change == "the copy is cut short":
        copy.write_bytes(copy.read_bytes()[:100])
    else:
        copy.with_suffix(".json").unlink()
    now = imagefolder(root=str(root)).train
    assert len(decoded) >= 1000
    for i in (0, -1):
        path = sorted((root / "train" / ("cat", "dog")[i]).iterdir())[i]
        assert now.images[i].permute(1, 2, 0).numpy().tolist() == np.asarray(Image.open(path).convert("RGB")).tolist()


def test_a_cache_that_cannot_be_written_costs_only_time(cached_folder, tmp_path):
    root, _ = cached_folder
    (tmp_path / "cache").write_text("in the way")
    assert len(imagefolder(root=str(root)).train) == 500


# -- a validation split ------------------------------------------------------------------------------------------------------


def test_a_held_out_split_is_fixed_by_its_seed_and_keeps_the_test_set_apart():
    data = holdout(data=digits, size=100)
    assert dict(data.sizes) == {"train": 1338, "test": 359, "val": 100}
    whole = digits()
    train, val = data.split("train"), data.split("val")
    assert sorted([*train.ids.tolist(), *val.ids.tolist()]) == list(range(1438))
    assert val.images.equal(whole.train.images[val.ids])
    assert data.test.images.equal(whole.test.images)
    assert holdout(data=digits, size=100).split("val").ids.equal(val.ids)
    assert not holdout(data=digits, size=100, split_seed=1).split("val").ids.equal(val.ids)
    assert val.augment is None


def test_images_that_stay_keep_their_random_numbers():
    whole = digits(crop=1).train
    part = holdout(data=lambda: digits(crop=1), size=100).train
    x, _ = next(part.batches([torch.arange(20)], key=(0, 0)))
    assert x.equal(next(whole.batches([part.ids[:20]], key=(0, 0)))[0])


@pytest.mark.parametrize("size", [0, 1438, -3])
def test_a_held_out_split_must_leave_something(size):
    with pytest.raises(InputError, match="must lie between 1 and 1,437"):
        holdout(data=digits, size=size)


def test_a_split_is_held_out_once_and_its_absence_is_told_with_the_remedy():
    with pytest.raises(InputError, match="has a split 'val' already"):
        holdout(data=lambda: holdout(data=digits, size=10), size=10)
    with pytest.raises(InputError, match="no split 'val'") as told:
        digits().split("val")
    assert "dataset.holdout" in told.value.help


def test_a_sample_of_a_split_sorted_by_class_holds_all_classes_and_is_always_the_same():
    split = Split(torch.zeros(1000, 1, 1, 1), torch.arange(10).repeat_interleave(100))
    sample = split.sample(100)
    assert len(sample) == 100
    assert set(sample.labels.tolist()) == set(range(10))
    assert sample.labels.equal(split.sample(100).labels)
    assert len(split.sample(2000)) == len(split.sample(None)) == 1000


def test_small_sets_stay_on_an_accelerator_and_large_ones_come_batch_by_batch(monkeypatch):
    """The device 'meta' stands in for one."""
    split = Split(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.zeros(8, dtype=torch.long))
    x, y = split.batch(torch.arange(3), device="meta")
    assert (x.device.type, y.device.type, x.shape) == ("meta", "meta", (3, 1, 2, 2))
    assert split._on("meta")[0] is split._on("meta")[0]
    monkeypatch.setattr(splits, "RESIDENT", 31)
    assert split._on("meta")[0] is split.images
    assert split.batch(torch.arange(3), device="meta")[0].is_meta

"""Images and labels in arrays and tables: what they hold, and what is said when it is not clear."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actkit.datasets import Data, Split, npz
from actkit.datasets import parquet as parquet_set
from actkit.errors import InputError

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
NHWC = rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


# -- the door ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        *(LABELS.astype(kind) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32")),
        LABELS[:, None],
        np.eye(3, dtype=np.uint8)[LABELS],
        np.eye(3, dtype=np.float32)[LABELS],
        torch.tensor(LABELS, dtype=torch.int32),
        LABELS.tolist(),
        LABELS.astype(">i4"),
    ],
    ids=lambda v: f"{getattr(v, 'dtype', type(v).__name__)}{list(getattr(v, 'shape', [6]))}",
)
def test_labels_of_any_kind_are_the_classes_that_they_say(labels):
    split = Split(torch.zeros(6, 1, 2, 2), labels)
    assert split.labels.dtype == torch.int64
    assert split.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5] * 6, "labels are whole numbers, these are float"),
        ([float("nan")] * 6, "labels are whole numbers"),
        (np.ones((6, 3), int), r"\(6, 3\) are not one-hot"),
        (np.zeros((6, 1, 1), int), r"shape \(N,\), these \(6, 1, 1\)"),
        (np.array(["cat"] * 6), "no array of numbers"),
        (None, "no array of numbers"),
    ],
    ids=["halves", "nan", "several classes", "three dimensions", "text", "nothing"],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        Split(torch.zeros(6, 1, 2, 2), labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_images_of_any_floating_kind_and_of_true_and_false_are_taken(dtype):
    images = torch.tensor([0.0, 1.0]).to(dtype).view(2, 1, 1, 1)
    split = Split(images, torch.tensor([0, 1]))
    assert split.batch(torch.arange(2))[0].flatten().tolist() == [0.0, 1.0]
    assert split.fingerprint()


def test_images_of_other_whole_numbers_are_refused_and_arrays_are_taken():
    with pytest.raises(InputError, match="uint8.*or floating in.*these are int64"):
        Split(torch.zeros(2, 1, 1, 1, dtype=torch.int64), torch.tensor([0, 1]))
    assert Split(NHWC.transpose(0, 3, 1, 2), LABELS).images.shape == (6, 3, 5, 4)


@pytest.mark.parametrize(
    ("shape", "help"),
    [((8, 6, 1), "permute"), ((1, 8, 5), None), ((3, 8, 6), None), ((48,), r"images.view\(-1, 1, 8, 6\)"), ((1, 6, 8), None)],
)  # fmt: skip
def test_images_of_another_shape_than_declared_are_refused_with_both(shape, help):
    data = Data("odd", (1, 8, 6), ("a", "b"), {"train": 2}, lambda name: Split(torch.zeros(2, *shape), [0, 1]))
    with pytest.raises(InputError) as told:
        data.split("train")
    assert f"images of {shape} in train, but (1, 8, 6) are declared" in told.value.message
    assert help is None or pytest.importorskip("re").search(help, told.value.help)


def test_labels_that_begin_with_1_are_refused_with_the_remedy():
    data = Data("one", (1, 1, 1), tuple("abc"), {"train": 3}, lambda name: Split(torch.zeros(3, 1, 1, 1), [1, 2, 3]))
    with pytest.raises(InputError, match="label 3 in train, but 3 classes") as told:
        data.split("train")
    assert "these are 1 to 3: subtract 1" in told.value.help


# -- .npz ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_data", "train_targets", "test_data", "test_targets"),
    ],
    ids=lambda names: names[0],
)
def test_the_arrays_of_a_file_are_found_by_their_names(names, tmp_path):
    np.savez(tmp_path / "d.npz", **dict(zip(names, (NHWC, LABELS[:, None], NHWC[:3], LABELS[:3]))), extra=LABELS)
    data = npz(file=str(tmp_path / "d.npz"))
    assert (data.name, data.shape, data.classes, dict(data.sizes)) == (
        "npz:d",
        (3, 5, 4),
        tuple("012"),
        {"train": 6, "test": 3},
    )
    assert data.train.images.numpy().tolist() == NHWC.transpose(0, 3, 1, 2).tolist()
    assert data.test.labels.tolist() == [0, 1, 2]
    assert data.notes == ("left out of d.npz: extra",)


def test_medmnist_is_read_as_it_is_published(tmp_path):
    """Grey (N, 28, 28), labels (N, 1), three splits."""
    sizes = {"train": 9, "val": 3, "test": 4}
    arrays = {f"{s}_images": rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for s, n in sizes.items()}
    arrays |= {f"{s}_labels": (np.arange(n) % 3).astype(np.uint8)[:, None] for s, n in sizes.items()}
    np.savez_compressed(tmp_path / "bloodmnist.npz", **arrays)
    data = npz(file=str(tmp_path / "bloodmnist.npz"))
    assert (data.shape, data.num_classes, dict(data.sizes)) == ((1, 28, 28), 3, sizes)
    assert data.split("val").images[:, 0].numpy().tolist() == arrays["val_images"].tolist()


def test_images_and_labels_without_a_split_are_training_images(tmp_path):
    np.savez(tmp_path / "d.npz", images=GREY, labels=LABELS, classes=np.array(["cat", "dog", "cow"]))
    data = npz(file=str(tmp_path / "d.npz"))
    assert (data.shape, data.classes, dict(data.sizes), data.notes) == (
        (1, 5, 4),
        ("cat", "dog", "cow"),
        {"train": 6},
        (),
    )


@pytest.mark.parametrize(
    ("arrays", "settings", "shape"),
    [
        ({"images": np.zeros((6, 3, 5, 4), np.uint8)}, {}, (3, 5, 4)),
        ({"images": np.zeros((6, 5, 4, 1), np.uint8)}, {}, (1, 5, 4)),
        ({"images": np.zeros((6, 3, 5, 3), np.uint8)}, {"layout": "NCHW"}, (3, 5, 3)),
        ({"images": np.zeros((6, 3, 5, 3), np.uint8)}, {"layout": "NHWC"}, (3, 3, 5)),
        ({"images": np.zeros((6, 4, 5, 6), np.float32)}, {"layout": "NCHW"}, (4, 5, 6)),
    ],
)
def test_channels_are_where_the_shape_or_the_layout_says(arrays, settings, shape, tmp_path):
    np.savez(tmp_path / "d.npz", labels=LABELS, **arrays)
    data = npz(file=str(tmp_path / "d.npz"), **settings)
    assert data.shape == shape == tuple(data.train.images.shape[1:])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((6, 3, 5, 3), np.uint8), "labels": LABELS}, "does not say where the channels are"),
        ({"images": np.zeros((6, 20), np.uint8), "labels": LABELS}, r"has the shape \(6, 20\); images are"),
        ({"arr_0": GREY, "arr_1": LABELS}, "no training images are found by name among: arr_0, arr_1"),
        ({"train_images": GREY, "test_images": GREY}, "the arrays of the split 'train' cannot be told: train_images"),
        ({"images": GREY, "x": GREY, "labels": LABELS}, "no training images are found by name"),
        ({"images": GREY, "labels": LABELS + 1}, r"labels are 1 to 3, and none is 0"),
        ({"images": GREY, "labels": LABELS + 0.5}, "'labels': labels are whole numbers"),
        ({"images": GREY, "labels": np.array(["a"] * 6, object)}, "'labels' cannot be read"),
        ({"train_images": NHWC, "train_labels": LABELS, "test_images": GREY, "test_labels": LABELS}, r"images of \(3, 5, 4\) in train, but of \(1, 5, 4\) in test"),
    ],
    ids=["ambiguous layout", "flat", "no names", "no labels", "twice", "from 1", "halves", "objects", "two shapes"],
)  # fmt: skip
def test_arrays_that_are_not_clear_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=message):
        npz(file=str(tmp_path / "d.npz"))


def test_labels_from_1_are_taken_when_that_is_said_and_other_ranges_of_pixels_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", images=GREY.astype(np.float32), labels=LABELS + 1)
    data = npz(file=str(tmp_path / "d.npz"), first_label=1)
    assert data.num_classes == 3
    with pytest.raises(InputError, match=r"must lie in \[0,1\], these span"):
        data.split("train")


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4 no more", b"text"])
def test_a_file_that_is_no_npz_is_told(content, tmp_path):
    if content is not None:
        (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"no \.npz file that can be read"):
        npz(file=str(tmp_path / "d.npz"))


# -- Parquet -------------------------------------------------------------------------------------------------------------


def encoded(size=(4, 5), colour="red", format="PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, format)
    return file.getvalue()


def hub(folder: Path, *, rows: dict[str, list], names=("cat", "dog"), label="label", plain=False) -> Path:
    """Files as the Hugging Face hub writes them."""
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in rows.items():
        images = [image if plain else {"bytes": image, "path": None} for image, _ in content]
        table = arrow.table({"image": images, label: [y for _, y in content]})
        features = {label: {"names": list(names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        writer.write_table(table.replace_schema_metadata(about), folder / file)
    return folder


ROWS = [(encoded(colour=c), i % 2) for i, c in enumerate(["red", "lime", "blue", "white"])]


@pytest.mark.parametrize("plain", [False, True], ids=["bytes and path", "bytes"])
def test_a_table_of_the_hub_holds_what_its_images_hold(plain, tmp_path):
    rows = {
        "train-00000-of-00002.parquet": ROWS[:2],
        "train-00001-of-00002.parquet": ROWS[2:],
        "validation-00000-of-00001.parquet": ROWS,
    }
    data = parquet_set(root=str(hub(tmp_path / "data", rows=rows, plain=plain).parent))
    assert (data.shape, data.classes, dict(data.sizes)) == ((3, 5, 4), ("cat", "dog"), {"train": 4, "test": 4})
    assert data.train.images[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
    assert data.train.labels.tolist() == [0, 1, 0, 1]


def test_images_of_several_sizes_in_a_table_need_a_size(tmp_path):
    hub(tmp_path, rows={"train.parquet": [*ROWS, (encoded((9, 6)), 0)]})
    with pytest.raises(InputError, match="it is 9x6, the first one 4x5"):
        parquet_set(root=str(tmp_path)).split("train")
    assert parquet_set(root=str(tmp_path), size=3).train.images.shape == (5, 3, 3, 3)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ({"other.txt": []}, {}, "no Parquet files of a training split"),
        ({"train.parquet": ROWS}, {"label": "fine"}, "no column 'fine'"),
        ({"train.parquet": [(None, 0), *ROWS]}, {}, "row 0 of the column 'image' holds no encoded image"),
        ({"train.parquet": [*ROWS, (b"no image", 0), (b"", 1)]}, {}, "2 files are not readable images"),
        ({"train.parquet": [(ROWS[0][0], None), *ROWS]}, {}, "holds None, labels are whole numbers"),
    ],
    ids=["no files", "no column", "no bytes", "unreadable", "no label"],
)
def test_a_table_that_is_not_right_is_told(rows, settings, message, tmp_path):
    hub(tmp_path, rows={name: content for name, content in rows.items() if name.endswith("parquet")})
    with pytest.raises(InputError, match=message):
        parquet_set(root=str(tmp_path), **settings).split("train")


def test_a_file_that_is_no_parquet_and_a_missing_pyarrow_are_told(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        parquet_set(root=str(tmp_path))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="needs pyarrow, which is not installed") as told:
        parquet_set(root=str(tmp_path))
    assert "actkit[parquet]" in told.value.help

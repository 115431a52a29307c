"""What lies in a folder of images is taken or named: splits as people call them, classes, files of any kind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image

from actkit.datasets import holdout, imagefolder, imagenet
from actkit.errors import InputError
from helpers.images import folder, photographs


def picture(path: Path, *, size=(6, 5), **save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path, **save)
    return path


def said(root: Path, **settings) -> str:
    return "\n".join(imagefolder(root=str(root), **settings).notes)


# -- splits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "test"), {"train": 6, "test": 6}),
        (("train", "val"), {"train": 6, "test": 6}),
        (("Training", "VALID"), {"train": 6, "test": 6}),
        (("train", "validation"), {"train": 6, "test": 6}),
        (("train", "testing", "val"), {"train": 6, "test": 6, "val": 6}),
        (("train",), {"train": 6}),
    ],
)
def test_splits_are_found_as_people_call_them(names, splits, tmp_path):
    folder(tmp_path / "made")
    for name in names:
        shutil.copytree(tmp_path / "made/train", tmp_path / "set" / name)
    data = imagefolder(root=str(tmp_path / "set"))
    assert dict(data.sizes) == splits
    assert ("the split 'test' is the folder" in "\n".join(data.notes)) == (
        "val" not in splits and len(names) > 1 and "test" not in names
    )


def test_a_split_that_two_folders_could_be_is_asked_about(tmp_path):
    folder(tmp_path)
    for name in ("val", "valid"):
        shutil.copytree(tmp_path / "test", tmp_path / name)
    with pytest.raises(InputError, match="'val' and 'valid' could both be the split 'val'") as told:
        imagefolder(root=str(tmp_path))
    assert "dataset.imagefolder.val=NAME" in told.value.help
    assert dict(imagefolder(root=str(tmp_path), val="valid").sizes) == {"train": 6, "test": 6, "val": 6}


def test_class_folders_without_splits_are_training_images_that_holdout_divides_by_class(tmp_path):
    folder(tmp_path / "made", per_class=10)
    shutil.move(tmp_path / "made/train", tmp_path / "set")
    data = imagefolder(root=str(tmp_path / "set"))
    assert (data.classes, dict(data.sizes)) == (("cat", "dog"), {"train": 20})
    with pytest.raises(InputError, match="no split 'test'") as told:
        data.split("test")
    assert "dataset.holdout.split = 'test'" in told.value.help
    held = holdout(data=lambda: data, size=0.2, stratified=True)
    assert dict(held.sizes) == {"train": 16, "test": 4}
    assert held.test.labels.tolist() == [0, 0, 1, 1]
    assert sorted([*held.train.ids.tolist(), *held.test.ids.tolist()]) == list(range(20))
    both = holdout(data=lambda: held, size=2, stratified=True)
    assert dict(both.sizes) == {"train": 14, "test": 4, "val": 2}
    assert both.split("val").labels.tolist() == [0, 1]


def test_a_stratified_split_takes_the_share_of_each_class_and_one_at_least():
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    from actkit.datasets import Data, Split

    data = Data("odd", (1, 1, 1), tuple("abc"), {"train": 100}, lambda name: Split(torch.zeros(100, 1, 1, 1), labels))
    held = holdout(data=lambda: data, size=20, stratified=True)
    assert held.test.labels.bincount().tolist() == [18, 1, 1]
    with pytest.raises(InputError, match="cannot be held out so that each of 3 classes is on both sides"):
        holdout(data=lambda: data, size=2, stratified=True).split("test")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: [picture(root / split / f"{i}.png") for split in ("train", "test") for i in range(3)], "the images lie in 'test' itself"),
        (lambda root: [picture(root / f"set/{s}/{c}/0.png") for s in ("train", "test") for c in "ab"], "'set' holds splits: is it the root"),
        (lambda root: [picture(root / f"{s}/{c}/0.png") for s in ("learn", "check") for c in "ab"], "has no 'train', and its folders are no classes"),
        (lambda root: [picture(root / f"{c}/{s}/0.png") for s in ("train", "test") for c in "ab"], "'a' holds splits"),
        (lambda root: picture(root / "0.png"), "there are no images in class folders"),
    ],
    ids=["no class folders", "a folder too many", "unusual names", "splits in classes", "loose images"],
)  # fmt: skip
def test_a_layout_that_could_be_misread_is_refused(build, message, tmp_path):
    build(tmp_path)
    with pytest.raises(InputError) as told:
        imagefolder(root=str(tmp_path))
    assert message in str(told.value)


def test_a_class_may_be_called_train(tmp_path):
    for cls in ("car", "plane", "train"):
        picture(tmp_path / cls / "0.png")
    assert imagefolder(root=str(tmp_path)).classes == ("car", "plane", "train")


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: [p.unlink() for p in (root / "train/dog").iterdir()], "classes without an image in train: dog"),
        (lambda root: [(root / s / "bird").mkdir() for s in ("train", "test")], "without an image in train: bird; classes without an image in test: bird"),
        (lambda root: shutil.rmtree(root / "test/cat"), "classes in train that test does not have: cat"),
        (lambda root: [p.rename(p.with_suffix(".txt")) for p in (root / "train/dog").iterdir()], "3 no image by its ending .txt"),
    ],
    ids=["empty in train", "empty in both", "missing in test", "of other files alone"],
)  # fmt: skip
def test_a_class_that_is_empty_or_missing_in_a_split_is_refused_with_its_name(spoil, message, tmp_path):
    spoil(folder(tmp_path))
    for read in (lambda: imagefolder(root=str(tmp_path)), lambda: imagenet(root=str(tmp_path), val="test")):
        with pytest.raises(InputError) as told:
            read()
        assert message in str(told.value)


NAMES = [
    "with blank",
    "$5 $",
    "<b>",
    "a=b",
    "100%{x}",
    "猫",
    "@run()",
    "é" * 60,
    "a\nb",
    "tench, Tinca",
    "%s",
    "-rf",
    "~",
]


def test_class_names_of_any_text_are_kept_as_they_are(tmp_path):
    folder(tmp_path, classes=NAMES, per_class=1)
    data = imagefolder(root=str(tmp_path), crop=0)
    assert data.classes == tuple(sorted(NAMES))
    assert data.test.labels.tolist() == list(range(len(NAMES)))


def test_names_that_are_no_utf_8_are_shown_as_their_bytes(tmp_path):
    folder(tmp_path)
    for split in ("train", "test"):
        os.rename(os.fsencode(tmp_path / split / "cat"), os.fsencode(tmp_path / split) + b"/caf\xe9")
        os.rename(
            os.fsencode(tmp_path / split) + b"/caf\xe9/0.png", os.fsencode(tmp_path / split) + b"/caf\xe9/\xff.png"
        )
    for read in (imagefolder(root=str(tmp_path)), imagefolder(root=str(tmp_path), size=4, workers=1)):
        assert read.classes == ("caf\\xe9", "dog")
        assert len(next(read.train.batches([torch.arange(6)]))[0]) == 6


def test_the_same_name_composed_otherwise_is_the_same_class(tmp_path):
    folder(tmp_path, classes=("caf\u00e9", "dog"))
    (tmp_path / "test/caf\u00e9").rename(tmp_path / "test/cafe\u0301")
    assert imagefolder(root=str(tmp_path)).classes == ("caf\u00e9", "dog")


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_said_with_counts_and_reasons(tmp_path):
    folder(tmp_path)
    (tmp_path / "train/cat/._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "train/cat/Thumbs.db").write_bytes(b"x")
    (tmp_path / "train/cat/notes.txt").write_bytes(b"x")
    (tmp_path / "train/cat/x.png").mkdir()
    (tmp_path / "train/__MACOSX").mkdir()
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    (tmp_path / "train/loose.png").write_bytes(b"x")
    (tmp_path / "README").write_text("x")
    (note,) = imagefolder(root=str(tmp_path)).notes
    assert note.startswith("taken: train 6, test 6; left out: ")
    for part in (
        "2 hidden (train/.ipynb_checkpoints, train/cat/._0.png)",
        "1 no image by its ending .db (train/cat/Thumbs.db)",
        "1 no image by its ending .txt (train/cat/notes.txt)",
        "1 empty folders (train/cat/x.png)",
        "1 left behind by a system (train/__MACOSX)",
        "1 in no class folder (train/loose.png)",
        "1 beside the splits' folders (README)",
    ):
        assert part in note
    assert imagefolder(root=str(folder(tmp_path / "clean"))).notes == ()


def test_a_run_a_dry_run_and_a_probe_say_what_was_left_out(actkit, tmp_path):
    folder(tmp_path / "d", size=(8, 8), per_class=8)
    (tmp_path / "d/train/cat/notes.txt").write_text("x")
    recipe = tmp_path / "r.gin"
    recipe.write_text(
        "include 'natural_digits.gin'\nrun.epochs = 1\nrun.monitor = []\nrun.evaluation = [@probe.accuracy()]\n"
        f"run.data = @dataset.imagefolder()\ndataset.imagefolder.root = '{tmp_path}/d'\nrun.batch_size = 8\n"
    )
    left = "taken: train 16, test 16; left out: 1 no image by its ending .txt (train/cat/notes.txt)"
    for extra in (["--dry-run"], ["--out", tmp_path / "run"]):
        ran = actkit("run", recipe, "--device", "cpu", *extra)
        assert (ran.code, left in ran.out + ran.err) == (0, True)
    probed = actkit("probe", "--ckpt", tmp_path / "run", "--device", "cpu")
    assert left in probed.out + probed.err


@pytest.mark.parametrize("ending", ["jfif", "JPG", "JPEG", "Png", "webp", "gif", "bmp", "tif", "avif"])
def test_endings_of_any_case_and_kind_are_taken(ending, tmp_path):
    for split in ("train", "test"):
        for cls in "ab":
            format = {"jfif": "JPEG", "jpg": "JPEG", "tif": "TIFF"}.get(ending.lower(), ending.upper())
            picture(tmp_path / split / cls / f"0.{ending}", format=format)
    assert dict(imagefolder(root=str(tmp_path)).sizes) == {"train": 2, "test": 2}


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animated_file_is_taken_and_that_is_said(ending, tmp_path):
    folder(tmp_path, size=(8, 8))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(
        tmp_path / f"train/cat/-0.{ending}",
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if ending == "webp" else {}),
    )
    data = imagefolder(root=str(tmp_path), crop=0, flip=False)
    assert any(
        f"1 files hold several frames (train/cat/-0.{ending}): the first is taken" in note for note in data.notes
    )
    assert (next(data.train.batches([torch.arange(1)]))[0][0, :, 0, 0] * 255).tolist() == [255, 0, 0]


def test_nested_folders_belong_to_their_class_and_links_are_followed_but_never_in_circles(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "train/cat/2020/may/9.png")
    picture(tmp_path / "elsewhere/8.png")
    (tmp_path / "train/cat/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/cat/back").symlink_to(tmp_path / "train")
    (tmp_path / "train/cat/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/cat/7.png").symlink_to(tmp_path / "train/cat/0.png")
    data = imagefolder(root=str(tmp_path))
    assert data.sizes["train"] == 9
    assert "1 links that lead back (train/cat/back)" in "\n".join(data.notes)
    assert "1 folders that are read already" in "\n".join(data.notes)


def spoil(root: Path) -> Path:
    (root / "train/cat/0.png").write_bytes(b"no image")
    (root / "train/dog/gone.png").symlink_to("/nowhere/x.png")
    (root / "test/cat/1.png").write_bytes((root / "test/cat/1.png").read_bytes()[:60])
    os.mkfifo(root / "test/dog/pipe.png")
    (root / "test/dog/photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    return root


BROKEN = ["train/cat/0.png", "train/dog/gone.png", "test/cat/1.png", "test/dog/pipe.png", "test/dog/photo.heic"]


@pytest.mark.parametrize(
    "read",
    [
        lambda root, **s: imagefolder(root=root, **s),
        lambda root, **s: imagefolder(root=root, size=4, workers=0, **s),
        lambda root, **s: imagenet(root=root, val="test", size=4, workers=0, **s),
    ],
    ids=["in memory", "by workers", "imagenet"],
)
def test_unreadable_files_are_named_all_at_once_or_left_out_with_a_count(read, tmp_path):
    root = spoil(folder(tmp_path))
    with pytest.raises(InputError, match="5 files are not readable images") as told:
        read(str(root)).split("train")
    assert all(name in str(told.value) for name in BROKEN)
    assert "skip_unreadable = True" in told.value.help
    data = read(str(root), skip_unreadable=True)
    assert dict(data.sizes) == {"train": 5, "test": 5}
    assert "5 unreadable (" in "\n".join(data.notes)
    for split in ("train", "test"):
        assert len(next(data.split(split).batches([torch.arange(5)]))[0]) == 5


def test_damage_in_the_middle_of_files_is_named_all_at_once_too(tmp_path):
    folder(tmp_path)
    for name in ("cat/0.png", "dog/1.png"):
        path = tmp_path / "train" / name
        content = bytearray(path.read_bytes())
        content[45] ^= 0xFF
        path.write_bytes(content)
    with pytest.raises(InputError, match="2 files are not readable images"):
        imagefolder(root=str(tmp_path)).split("train")
    assert imagefolder(root=str(tmp_path), skip_unreadable=True).sizes["train"] == 4


# -- images of any size ------------------------------------------------------------------------------------------------


def test_with_a_size_an_image_folder_cuts_as_imagenet_does(tmp_path):
    root = str(photographs(tmp_path))
    mine, theirs = imagefolder(root=root, size=16, workers=0), imagenet(root=root, size=16, workers=0)
    assert (mine.shape, mine.classes, dict(mine.sizes)) == (theirs.shape, theirs.classes, dict(theirs.sizes))
    places = [torch.arange(12)]
    for split, key in (("train", (3, 1)), ("train", None), ("test", None)):
        one, other = (next(data.split(split).batches(places, key=key))[0] for data in (mine, theirs))
        assert one.equal(other)
    assert mine.test.fingerprint() == theirs.test.fingerprint()


def test_without_crop_and_flip_training_images_are_their_centres(tmp_path):
    data = imagefolder(root=str(photographs(tmp_path)), size=16, workers=0, crop=0, flip=False)
    places = [torch.arange(12)]
    assert next(data.train.batches(places, key=(0, 0)))[0].equal(next(data.train.batches(places))[0])


def test_a_setting_that_does_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="resize does nothing without size"):
        imagefolder(root=str(folder(tmp_path)), resize=8)


# -- any folder --------------------------------------------------------------------------------------------------------

KINDS = {
    "png": lambda p: picture(p.with_suffix(".png")),
    "upper": lambda p: picture(p.with_suffix(".JPG"), format="JPEG"),
    "deep": lambda p: Image.fromarray(np.full((5, 6), 9999, np.uint16)).save(p.with_suffix(".png")),
    "clear": lambda p: Image.new("RGBA", (6, 5)).save(p.with_suffix(".png")),
    "cmyk": lambda p: Image.new("CMYK", (6, 5)).save(p.with_suffix(".jpg")),
    "gif": lambda p: picture(p.with_suffix(".gif")),
    "turned": lambda p: picture(p.with_suffix(".png"), size=(5, 6), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    "text": lambda p: p.with_suffix(".txt").write_text("x"),
    "bare": lambda p: p.write_bytes(b"x"),
    "hidden": lambda p: (p.parent / f".{p.name}.png").write_bytes(b"x"),
    "empty": lambda p: p.with_suffix(".png").write_bytes(b""),
    "wrong": lambda p: p.with_suffix(".webp").write_bytes(b"RIFF\0\0\0\0WEBPVP8 "),
    "broken link": lambda p: p.with_suffix(".png").symlink_to("/nowhere"),
    "circle": lambda p: p.with_suffix(".png").symlink_to(p.with_suffix(".png")),
    "link up": lambda p: p.symlink_to(p.parent.parent),
    "pipe": lambda p: os.mkfifo(p.with_suffix(".png")),
    "folder": lambda p: p.with_suffix(".png").mkdir(),
    "nested": lambda p: picture(p / "inner.png"),
}  # fmt: skip
GOOD = {"png", "upper", "deep", "clear", "cmyk", "gif", "turned", "nested"}

letters = some.text(some.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12)
class_names = letters.filter(lambda name: name not in (".", "..") and not name.startswith("."))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=some.lists(class_names, min_size=2, max_size=3, unique=True),
    kinds=some.lists(some.sampled_from(sorted(KINDS)), max_size=6),
    skip=some.booleans(),
)
def test_every_file_of_any_folder_is_used_or_named(classes, kinds, skip, tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    for split in ("train", "test"):
        for cls in classes:
            picture(root / split / cls / "base.png")
    for i, kind in enumerate(kinds):
        KINDS[kind](root / "train" / classes[i % len(classes)] / f"f{i}")
    good = sum(kind in GOOD for kind in kinds)
    try:
        data = imagefolder(root=str(root), crop=0, skip_unreadable=skip)
        train = data.train
    except InputError as error:
        told = str(error)
        bad = [i for i, kind in enumerate(kinds) if kind in ("empty", "wrong", "broken link", "circle", "pipe")]
        assert (bad and not skip) or "two folders" in told or "system" in told or "classes" in told
        assert not bad or skip or all(f"f{i}." in told for i in bad)
        return
    assert len(train) == len(classes) + good
    left = "\n".join(data.notes)
    named = sum(int(part.split()[0].replace(",", "")) for part in left.partition("left out: ")[2].split("; ") if part)
    assert named == len(kinds) - good

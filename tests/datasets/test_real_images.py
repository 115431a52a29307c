"""Slow: the large networks train some steps on real images. Run with  make slow;  skipped where there is no CIFAR-10 as JPEG."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from helpers import ROOT

ARCHIVE = Path(os.environ.get("ACTKIT_CIFAR10_JPEG", ROOT.parent / "shared/data/cifar10-jpeg.tar.xz"))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Twenty images of each class and split."""
    if not ARCHIVE.is_file():
        pytest.skip("ACTKIT_CIFAR10_JPEG names no archive of train/<class>/*.jpg and test/<class>/*.jpg")
    root, seen = tmp_path_factory.mktemp("cifar"), {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            folder = str(Path(member.name).parent)
            if member.isfile() and seen.setdefault(folder, 0) < 20:
                seen[folder] += 1
                archive.extract(member, root, filter="data")
    return root


SMALL = [
    "run.steps=3", "run.monitor=[]", "run.precision=bf16", "run.batch_size=16", "probe.accuracy.limit=20", "train/attack.pgd.steps=2",
    "run.evaluation=[@probe.accuracy(), @pgd/probe.robust_accuracy()]", "probe.robust_accuracy.limit=4", "probe.robust_accuracy.starts=1",
    "eval/attack.pgd.steps=2",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        ("act_cifar10_wrn_28_10", ["run.data=imagefolder", "dataset.imagefolder.root={root}"]),
        ("act_imagenet", ["dataset.imagenet.root={root}", "dataset.imagenet.val=test", "dataset.imagenet.size=64", "dataset.imagenet.workers=2"]),
        ("free_imagenet", ["dataset.imagenet.root={root}", "dataset.imagenet.val=test", "dataset.imagenet.size=64"]),
        ("fast_imagenet", ["dataset.imagenet.root={root}", "dataset.imagenet.val=test", "dataset.imagenet.size=64"]),
    ],
)  # fmt: skip
def test_a_large_network_trains_and_is_examined_on_real_images(recipe, data, cifar, actkit, tmp_path):
    settings = [part for s in [*SMALL, *data] for part in ("-s", s.format(root=cifar))]
    said = actkit("run", f"gin/{recipe}.gin", *settings, "--out", tmp_path / "run", "--device", "cpu")
    assert said.code == 0, said.err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["steps"] == 3
    again = json.loads(actkit("probe", "--ckpt", tmp_path / "run", "--json", "--device", "cpu").out)[0]
    assert again["results"] == summary["results"]

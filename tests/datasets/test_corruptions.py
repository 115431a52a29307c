"""Corrupted test sets: read as they are published, and measured by kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from actkit.datasets import Data, Split, corruptions
from actkit.errors import InputError
from actkit.networks.roles import Role
from actkit.probes import corruptions as probe

N = 4
LABELS = torch.tensor([0, 1, 0, 1])


def clean() -> Data:
    return Data(
        "two",
        (3, 2, 2),
        ("dark", "light"),
        {"train": N, "test": N},
        lambda name: Split(torch.zeros(N, 3, 2, 2), LABELS),
    )


class Bright(nn.Module):
    """Says 'light' where the mean pixel is above one half."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        over = (x.mean((1, 2, 3)) - 0.5) * self.scale
        return torch.stack([-over, over], 1)


def arrays(root: Path, kinds=("fog", "snow", "spatter"), labels: int = 5) -> Path:
    """At severity s, fog turns the first s - 1 images round; snow none, spatter all."""
    root.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        images = np.zeros((5, N, 2, 2, 3), np.uint8)
        images[:, LABELS.bool().numpy()] = 255
        for severity in range(1, 6):
            turned = {"fog": severity - 1, "spatter": N}.get(kind, 0)
            images[severity - 1, :turned] = 255 - images[severity - 1, :turned]
        np.save(root / f"{kind}.npy", images.reshape(5 * N, 2, 2, 3))
    np.save(root / "labels.npy", np.tile(LABELS.numpy(), labels))
    return root


def folders(root: Path) -> Path:
    """The same as ImageNet-C has it, without one of the classes in order."""
    for kind in ("fog", "snow"):
        images = np.load(arrays(root / "made") / f"{kind}.npy").reshape(5, N, 2, 2, 3)
        for severity in range(1, 6):
            for i, label in enumerate(LABELS.tolist()):
                place = root / "c" / kind / str(severity) / ("dark", "light")[label]
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[severity - 1, i]).save(place / f"{i}.png")
    return root / "c"


@pytest.mark.parametrize("labels", [1, 5], ids=["labels once", "labels for each severity"])
def test_severities_lie_one_after_the_other(labels, tmp_path):
    data = corruptions(data=clean, root=str(arrays(tmp_path, labels=labels)), kind="fog", severity=3)
    assert data.name == "two (fog 3)"
    assert (data.test.images[:, 0, 0, 0].tolist(), data.test.labels.tolist()) == ([255, 0, 0, 255], [0, 1, 0, 1])
    assert data.train.images.equal(clean().train.images)


@pytest.mark.parametrize("make", [arrays, folders])
def test_the_probe_gives_the_mean_and_each_kind(make, tmp_path):
    root = make(tmp_path / "c")
    found = probe(Role("robust", Bright()), clean(), root=str(root))
    # Of four images, fog leaves 4, 3, 2, 1 and 0 right.
    assert found.numbers == {"mean": 0.75, "fog": 0.5, "snow": 1.0}
    assert found.headline == "mean"
    assert found.examples["fog"].shape == (5, N)
    assert found.pictures[0].data["groups"] == ["snow", "fog"]  # the order of the paper


def test_kinds_and_severities_may_be_chosen(tmp_path):
    root, role = str(arrays(tmp_path)), Role("robust", Bright())
    assert probe(role, clean(), root=root, kinds=["spatter"], severities=[1]).numbers == {"mean": 0.0, "spatter": 0.0}
    assert probe(role, clean(), root=root, limit=2).examples["fog"].shape == (5, 2)


def test_a_probe_looks_at_no_more_images_than_the_test_split_has(tmp_path):
    """So that a dry run, whose splits hold one, costs nothing."""
    data = Data("two", (3, 2, 2), ("dark", "light"), {"train": 1, "test": 1}, clean().read)
    assert probe(Role("robust", Bright()), data, root=str(arrays(tmp_path))).examples["fog"].shape == (5, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: root / "none", "does not exist"),
        (lambda root: (root / "labels.npy").unlink(), "no labels.npy beside"),
        (lambda root: [p.unlink() for p in root.glob("*.npy")], "there are no corrupted images"),
        (lambda root: (root / "fog.npy").write_bytes(b"x"), "the array cannot be read"),
        (lambda root: np.save(root / "labels.npy", np.zeros(7, int)), "five severities, one after the other"),
        (lambda root: np.save(root / "fog.npy", np.zeros((20, 3, 3, 3), np.uint8)), r"images of \(3, 3, 3\) in test"),
        (lambda root: np.save(root / "labels.npy", np.full(20, 2)), "label 2 in test, but 2 classes"),
    ],
    ids=["no folder", "no labels", "empty", "no array", "another count", "another shape", "other classes"],
)
def test_a_corrupted_set_that_is_not_right_is_told(spoil, message, tmp_path):
    where = spoil(arrays(tmp_path))
    with pytest.raises(InputError, match=message):
        probe(Role("robust", Bright()), clean(), root=str(where if isinstance(where, Path) else tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"kind": "fogg"}, "no corruption 'fogg'"), ({"kind": "fog", "severity": 6}, "severity is 1 to 5, got 6")],
)
def test_a_corruption_that_is_not_there_is_told(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        corruptions(data=clean, root=str(arrays(tmp_path)), **settings)


def test_classes_that_the_data_set_does_not_have_are_refused(tmp_path):
    root = folders(tmp_path)
    (root / "fog/1/dark").rename(root / "fog/1/darker")
    with pytest.raises(InputError, match="classes that two does not have: darker"):
        corruptions(data=clean, root=str(root), kind="fog", severity=1)

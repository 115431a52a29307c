"""The dataset does what it says."""

from __future__ import annotations

import actkit_NAME  # noqa: F401  registers it
from actkit import Spec


def test_it_is_the_same_every_time_and_its_splits_differ():
    data = Spec("dataset", "NAME", {"count": 20}).build()()
    again = Spec("dataset", "NAME", {"count": 20}).build()()
    assert data.sizes == {"train": 20, "test": 20}
    assert data.split("train").fingerprint() == again.split("train").fingerprint()
    assert data.split("train").fingerprint() != data.split("test").fingerprint()

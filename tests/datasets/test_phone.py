"""A folder as it comes from a phone, from the first command to the report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """
include 'natural_digits.gin'
run.epochs = 1
run.batch_size = 4
run.monitor = []
run.evaluation = [@probe.robust_accuracy()]
probe.robust_accuracy.starts = 1
eval/attack.pgd.steps = 1
run.data = @dataset.imagefolder()
dataset.imagefolder.size = 16
dataset.imagefolder.workers = 0
"""


def photos(root: Path) -> Path:
    """Pictures of several sizes and formats, turned this way and that, with what a phone and a computer leave beside them."""
    rng = np.random.default_rng(0)
    formats = {"JPG": "JPEG", "png": "PNG", "webp": "WEBP"}
    for split in ("train", "val"):
        for cls in ("$5 mug", "<Lämp>"):
            (root / split / cls).mkdir(parents=True)
            for i, (ending, format) in enumerate(formats.items()):
                height, width = rng.integers(30, 60, 2)
                image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
                exif = image.getexif()
                exif[0x0112] = int(rng.integers(1, 9))
                image.save(root / split / cls / f"IMG {i}.{ending}", format, exif=exif)
    (root / "train/$5 mug/IMG 1.MOV").write_bytes(b"film")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def test_a_phones_pictures_are_trained_on_and_examined(actkit, tmp_path):
    root = photos(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 = phone")))
    (tmp_path / "r.gin").write_text(RECIPE)
    out = tmp_path / "run"
    ran = actkit("run", tmp_path / "r.gin", "-s", f"dataset.imagefolder.root={root}", "--out", out, "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "1 no image by its ending .mov (train/$5 mug/IMG 1.MOV)" in ran.out + ran.err
    assert "&lt;Lämp&gt;" in (out / "report.html").read_text()
    again = actkit("probe", "--ckpt", out, "--pictures", tmp_path / "p", "--json", "--device", "cpu")
    assert again.code == 0, again.err
    assert json.loads(again.out)[0]["results"] == json.loads((out / "summary.json").read_text())["results"]

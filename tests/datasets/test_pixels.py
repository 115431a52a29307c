"""Image files of any depth and mode decode right, however they are read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actkit.datasets import imagefolder, imagenet
from actkit.datasets.pixels import Unreadable, header_of, image_of
from actkit.errors import InputError

# Two sizes of steps: the same ramp in 64 levels of 16 bits, and what it is in 8.
RAMP = np.linspace(0, 65535, 64).reshape(8, 8).round().astype(np.uint16)
WANTED = (RAMP / 257.0).round().astype(np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def layout(root: Path, image: Image.Image, ending: str, **settings) -> Path:
    for split in ("train", "test"):
        for cls in "ab":
            (root / split / cls).mkdir(parents=True)
            image.save(root / split / cls / f"0.{ending}", **settings)
    return root


def every_way(root: Path, side: int, mode: str, **settings) -> list[torch.Tensor]:
    """The first test image as uint8, read in each of the ways in which images are read."""
    ways = [
        imagefolder(root=str(root), mode=mode, crop=0, **settings),
        imagefolder(root=str(root), mode=mode, size=side, resize=side, workers=0, **settings),
        imagenet(root=str(root), val="test", mode=mode, size=side, resize=side, workers=0, **settings),
    ]
    return [(next(data.test.batches([torch.arange(1)]))[0][0] * 255).round() for data in ways]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("ending", ["png", "tiff", "pgm", "jp2"])
def test_a_ramp_of_16_bits_is_one_of_8_bits_however_it_is_read(ending, mode, tmp_path):
    root = layout(tmp_path, Image.fromarray(RAMP), ending)
    for got in every_way(root, 8, mode):
        assert (got[0] - torch.tensor(WANTED).float()).abs().max() <= 1


def saved(image: Image.Image, format: str, **settings) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **settings)
    file.seek(0)
    return file


def grey(file: io.BytesIO, mode: str = "L", background: float = 1.0) -> np.ndarray:
    return np.asarray(image_of(file, mode, background)).astype(int)


def test_white_is_zero_and_floating_pixels_have_their_range():
    inverted = saved(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
    assert np.abs(grey(inverted) - (255 - WANTED.astype(int))).max() <= 1
    floating = saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF")
    assert np.abs(grey(floating) - WANTED).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ((RAMP / 100).astype(np.float32), r"must lie in \[0,1\], these span 0 to 655"),
        (RAMP.astype(np.int32), "of 32 bits have no stated white"),
    ],
    ids=["floating beyond 1", "32 bits"],
)
def test_pixels_without_a_stated_white_are_refused(pixels, message):
    with pytest.raises(Unreadable, match=message):
        image_of(saved(Image.fromarray(pixels), "TIFF"), "L")


@pytest.mark.parametrize(
    ("mode", "format", "off"),
    [
        ("1", "PNG", 0),
        ("L", "PNG", 0),
        ("P", "PNG", 0),
        ("P", "GIF", 0),
        ("LA", "PNG", 0),
        ("RGBA", "PNG", 0),
        ("CMYK", "TIFF", 1),
        ("CMYK", "JPEG", 8),
        ("YCbCr", "TIFF", 1),
        ("LAB", "TIFF", 3),
        ("HSV", "WEBP", 60),
    ],
)
def test_an_opaque_image_of_any_mode_is_what_pillow_shows_of_it(mode, format, off):
    smooth = Image.fromarray(np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8))
    image = smooth.convert(mode) if mode != "LAB" else lab(smooth)
    shown = smooth if mode == "LAB" else image.convert("RGB")
    got = grey(saved(image, format), "RGB")
    assert np.abs(got - np.asarray(shown).astype(int)).max() <= off


def lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))


@pytest.mark.parametrize("background", [0.0, 0.5, 1.0])
def test_what_is_see_through_lies_over_the_stated_background(background):
    clear = np.dstack([RGB, np.zeros((5, 7), np.uint8)])
    half = np.dstack([RGB, np.full((5, 7), 128, np.uint8)])
    behind = round(255 * background)
    assert (grey(saved(Image.fromarray(clear), "PNG"), "RGB", background) == behind).all()
    mixed = RGB * (128 / 255) + behind * (127 / 255)
    assert np.abs(grey(saved(Image.fromarray(half), "PNG"), "RGB", background) - mixed).max() <= 1
    palette = Image.fromarray(RGB[..., 0]).convert("P")
    seen = grey(saved(palette, "PNG", transparency=int(RGB[0, 0, 0])), "L", background)
    assert seen[0, 0] == behind
    deep = grey(saved(Image.fromarray(RAMP), "PNG", transparency=65535), "L", background)
    assert deep[-1, -1] == behind
    assert np.abs(deep.flatten()[:-1] - WANTED.flatten()[:-1]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_an_image_lies_as_its_orientation_says_and_its_header_knows_its_size(format, orientation, tmp_path):
    from PIL import ImageOps

    stored = Image.fromarray(RGB)
    exif = stored.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "x"
    stored.save(path, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    with Image.open(path) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    got = np.asarray(image_of(path, "RGB"))
    assert got.tolist() == wanted.tolist()
    assert header_of(path)[:2] == (got.shape[1], got.shape[0])


def test_a_background_that_is_no_grey_is_refused(tmp_path):
    layout(tmp_path, Image.fromarray(RGB), "png")
    with pytest.raises(InputError, match=r"background is a grey in \[0,1\]"):
        imagefolder(root=str(tmp_path), background=255)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("part", [0, 10, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_found_by_its_header(format, part, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = saved(noise, format).getvalue()
    path = tmp_path / "x"
    path.write_bytes(content)
    assert header_of(path).problem == ""
    path.write_bytes(content[: part if part in (0, 10) else int(len(content) * part)])
    assert header_of(path).problem


def test_no_program_is_started_for_a_file_that_only_ends_as_an_image(tmp_path):
    """Pillow would hand PostScript to Ghostscript."""
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    assert "none of the formats" in header_of(path).problem

"""Image files as 8-bit pixels: one decoding for every way in which images are read.

Whatever a file holds, its whole range becomes 0..255: 16 and 12 bits are scaled, floating pixels lie in [0,1]. What is see-through lies over a grey
`background`; an EXIF orientation is carried out; of an animated file, or one of several pages, the first frame is taken. Colour profiles are not applied.
"""

from __future__ import annotations

import functools
import stat
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from actkit.errors import InputError
from actkit.files import shown_path

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["RGB", "L"]

# By their endings, in lower case: what is taken for an image. A phone's .heic is one that Pillow cannot read: it is named, not passed over.
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".jp2", ".heic", ".heif"),
)
# Pillow's formats that are read. Others start programs (EPS), or are no pictures.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "PPM", "TIFF", "JPEG2000", "AVIF")
# Changed whenever the same file decodes to other pixels: copies in the cache are then made anew.
DECODING = 2

_ORIENTATION, _PHOTOMETRIC, _BITS, _WHITE_IS_ZERO = 0x0112, 262, 258, 0
# EXIF's orientations that lie on their side.
_TURNED = (5, 6, 7, 8)


class Unreadable(ValueError):
    """Why an image cannot be used, in a few words."""


class Header(NamedTuple):
    """What is known of an image file without its pixels; `problem`: why it cannot be used."""

    width: int = 0
    height: int = 0
    frames: bool = False
    problem: str = ""


def image_of(source: Path | IO[bytes], mode: Mode, background: float = 1.0) -> Image:
    """An image file as a Pillow image of this mode, 8 bits a channel, upright.

    Args:
        background: the grey, in [0,1], that lies behind what is see-through.

    Raises `Unreadable`.
    """
    try:
        with _open(source) as opened:
            return to_mode(opened, mode, background)
    except Unreadable:
        raise
    # Pillow's readers raise whatever a damaged file makes of them: OSError, SyntaxError, struct.error, KeyError ...
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def to_mode(image: Image, mode: Mode, background: float = 1.0) -> Image:
    """An opened image as one of this mode, 8 bits a channel, upright. Raises `Unreadable` where it has no stated white."""
    from PIL import Image as pillow

    turned = _upright(image)
    if turned.mode.startswith("I") or turned.mode == "F":
        turned = _eight_bits(image, turned)
    elif turned.mode == "LAB":
        turned = _from_lab(turned)
    if not turned.has_transparency_data:
        return turned.convert(mode)
    seen = turned.convert("RGBA")
    behind = pillow.new("RGB", seen.size, (round(255 * background),) * 3)
    behind.paste(seen.convert("RGB"), mask=seen.getchannel("A"))
    return behind.convert(mode)


def pixels_of(image: Image) -> np.ndarray:
    """A Pillow image of mode RGB or L as (C, H, W) uint8."""
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def header_of(path: Path) -> Header:
    """What an image file says of itself. Where its end is missing, or its kind has none, all of it is decoded to be sure."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Header(problem="no regular file")
        with _open(path) as image:
            width, height = image.size
            # Pillow says the size of a TIFF as it is looked at, of the others as it is stored.
            if image.format != "TIFF" and _orientation(image) in _TURNED:
                width, height = height, width
            # The second picture in a phone's JPEG (MPO) is a smaller one, or a depth map.
            frames = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            if not _has_its_end(path, image.format):
                image.seek(0)
                image.load()
            return Header(width, height, frames)
    # As in `image_of`.
    except Exception as error:
        return Header(problem=_reason(error))


def unreadable(problems: list[tuple[Path, str]]) -> InputError:
    """The error that names image files which cannot be used, each with its reason; of very many, the first."""
    skip = "or leave out what cannot be read: skip_unreadable = True of the data set"
    if len(problems) == 1:
        ((path, reason),) = problems
        help = f"remove or replace the file, {skip}"
        return InputError(f"not a readable image: {reason}", where=shown_path(path), help=help)
    shown = [f"\n      {shown_path(path)}: {reason}" for path, reason in problems[:20]]
    more = f"\n      and {len(problems) - 20:,} more" if len(problems) > 20 else ""
    help = f"remove or replace them, {skip}"
    return InputError(f"{len(problems):,} files are not readable images:{''.join(shown)}{more}", help=help)


def _open(source: Path | IO[bytes]) -> Any:
    from PIL import Image as pillow

    _silence()
    return pillow.open(source, formats=_FORMATS)


@functools.cache
def _silence() -> None:
    """Pillow's warnings (of damaged metadata, of large images) are its own affair: what cannot be used is an error here.

    Once and for all: setting filters back is not safe among threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "none of the formats that are read (JPEG, PNG, GIF, WebP, AVIF, BMP, PPM, TIFF, JPEG 2000)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).split("\n")[0]
    return said or type(error).__name__


def _orientation(image: Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    # Damaged metadata do not make the picture unreadable.
    except Exception:
        return 1


def _upright(image: Image) -> Image:
    """The picture as its EXIF orientation says that it is looked at."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image.load()
    turn = turns.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    # Which value is see-through, of an image without an alpha channel.
    turned.info = dict(image.info)
    return turned


def _eight_bits(image: Image, turned: Image) -> Image:
    """A grey image of more than 8 bits as 8, rounded to the nearest; with an alpha channel where one value is see-through."""
    from PIL import Image as pillow

    values = np.asarray(turned)
    tags = getattr(image, "tag_v2", {})
    if turned.mode == "F":
        levels = _unit(values.astype(np.float64))
    else:
        levels = values.astype(np.float64) / _white(image, values, tags)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 1 - levels
    grey = pillow.fromarray((levels * 255).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(pillow.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _white(image: Image, values: np.ndarray, tags: Any) -> int:
    """The value that is white. Raises `Unreadable` where pixels are signed or wider than 16 bits: no file says what is white there."""
    # Pillow brings PNG and PGM to 16 bits itself; a TIFF says how many it has.
    bits = tags.get(_BITS, (16,))[0] if tags else 16
    if bits > 16 or values.min() < 0 or values.max() > (1 << bits) - 1:
        raise Unreadable(
            f"whole numbers from {values.min()} to {values.max()} of {bits} bits have no stated white; save it with 8 or 16 bits"
        )
    return (1 << bits) - 1


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    # Also where one is not a number.
    if not (low >= 0 and high <= 1):
        raise Unreadable(f"floating pixels must lie in [0,1], these span {low:g} to {high:g}")
    return values


def _from_lab(image: Image) -> Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    seen = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    assert seen is not None
    return seen


def _has_its_end(path: Path, format: str | None) -> bool:
    """Whether a file ends as one of its format does. False where that cannot be told."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(0, size - 4096))
        tail = file.read()
    if format in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail[-512:]
    if format == "PNG":
        return b"IEND\xaeB`\x82" in tail
    if format == "WEBP":
        return size >= int.from_bytes(head[4:8], "little") + 8
    return False

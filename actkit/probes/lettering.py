"""Text on pictures: any name, as it is. Nothing is read as mathematics, and what no installed font can draw stands as a number with a legend."""

from __future__ import annotations

import contextlib
import functools
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

# Characters of a name that fit beside others; a longer one is cut in its middle.
_LONGEST = 40
_SANS = "DejaVu Sans"


class Lettering:
    """What a picture's texts are drawn as.

    Args:
        texts: all that may be on it.
        page: whether whoever shows it has fonts of their own, as a browser has: then every text stays as it is.
    """

    def __init__(self, texts: Iterable[str], *, page: bool = False) -> None:
        strange = frozenset(c for text in texts for c in _visible(text) if ord(c) > 127)
        self._fonts, self._missing = ((), frozenset[str]()) if page else _fonts_for(strange)
        self._numbers: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """As matplotlib is to be given it."""
        return self._drawn(text, _short(_visible(text)))

    def whole(self, text: str) -> str:
        """The same in full, whatever its length: a title, or what an axis shows."""
        return self._drawn(text, _visible(text))

    def wrapped(self, text: str, width: int = 24) -> str:
        """The same in several lines, where it is long."""
        shown = _short(_visible(text))
        return self._drawn(text, shown if len(shown) <= width else "\n".join(textwrap.wrap(shown, width)))

    def _drawn(self, text: str, shown: str) -> str:
        if self._missing & set(shown):
            shown = self._numbers.setdefault(text, f"[{len(self._numbers) + 1}]")
        # matplotlib leaves what begins with '_' out of a legend, and takes what stands between two '$' for mathematics.
        return (f" {shown}" if shown.startswith("_") else shown).replace("$", r"\$")

    @property
    def legend(self) -> str:
        """What the numbers stand for, a line each, in characters that any font has; '' where there are none."""
        return "\n".join(
            f"{number} {_visible(text).encode('ascii', 'backslashreplace').decode()}".replace("$", r"\$")
            for text, number in self._numbers.items()
        )

    @contextlib.contextmanager
    def drawing(self, settings: dict[str, object] | None = None) -> Iterator[None]:
        """Meanwhile, matplotlib draws with fonts that have the characters, and does not warn of those that the reader's own will have."""
        import matplotlib

        chosen: dict[Any, Any] = {"font.family": ["sans-serif", *self._fonts]} if self._fonts else {}
        chosen |= settings or {}
        with matplotlib.rc_context(chosen), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            # Of very many long names: they are drawn over each other then, and the numbers lie beside the picture.
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            yield


def _visible(text: str) -> str:
    """Control characters as their escapes: a file of a picture may hold none."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 14]}…{text[-12:]}"


@functools.cache
def _fonts_for(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Installed fonts that have these characters, those of matplotlib's own apart; and the characters that none has."""
    from matplotlib.font_manager import findfont, fontManager

    missing = {c for c in characters if ord(c) not in _codes(findfont(_SANS))}
    found: list[str] = []
    for font in sorted(fontManager.ttflist, key=lambda font: (font.weight != 400, font.style != "normal", font.name)):
        if not missing:
            break
        # A font of last resort has a box for everything.
        if "lastresort" in font.name.replace(" ", "").lower() or font.name == _SANS:
            continue
        has = {c for c in missing if ord(c) in _codes(font.fname)}
        if has:
            found.append(font.name)
            missing -= has
    return tuple(found), frozenset(missing)


@functools.cache
def _codes(file: str) -> frozenset[int]:
    """The characters that a font file has."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    # Whatever is wrong with one of the machine's fonts, there are others.
    except Exception:
        return frozenset()

"""Downloads: to a temporary name, checked, then renamed. What the user put there is never deleted or written over."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from actkit import __version__
from actkit.display import tell
from actkit.errors import InputError
from actkit.files import md5, writing


def fetch(url: str, to: Path, expected: str) -> Path:
    """The file at `to`, downloaded unless it is there; its MD5 is `expected` (what the data sets' own pages publish).

    Raises `InputError` when it cannot be fetched or is not the file that it should be.
    """
    by_hand = f"get {to.name} by other means and put it there"
    if to.exists():
        if (found := md5(to)) != expected:
            raise InputError(
                f"this file's MD5 is {found}, it should be {expected}",
                where=str(to),
                help="move it away, and it is downloaded again",
            )
        return to
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with writing(to, durable=True) as part:
            found = _retrieve(url, part)
            if found != expected:
                raise InputError(
                    f"the download of {url} has the MD5 {found}, it should be {expected}; it is not kept",
                    where=str(to),
                    help=f"try again later, or {by_hand}",
                )
    # urllib's errors are OSErrors.
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "reason", None) or error
        raise InputError(
            f"{url} could not be downloaded: {said}", where=str(to), help=f"check the network, or {by_hand}"
        ) from error
    return to


def _retrieve(url: str, to: Path) -> str:
    """Write what the URL gives to a file; its MD5. Raises `OSError` when it ends too early."""
    request = urllib.request.Request(url, headers={"User-Agent": f"actkit/{__version__}"})
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with urllib.request.urlopen(request, timeout=60) as answer, to.open("wb") as file:
        length = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            tell(f"downloading {Path(url).name}", done, length)
        if length and done != length:
            raise OSError(f"it ended after {done:,} of {length:,} bytes")
    return digest.hexdigest()

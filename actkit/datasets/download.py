"""Downloads: to a temporary name, checked, then renamed. What the user put there is never deleted or written over."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from actkit import __version__
from actkit.display import tell
from actkit.errors import InputError


def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


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
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        found = _retrieve(url, part)
        if found != expected:
            raise InputError(
                f"the download of {url} has the MD5 {found}, it should be {expected}; it is not kept",
                where=str(to),
                help=f"try again later, or {by_hand}",
            )
        part.rename(to)
    except (OSError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
        said = getattr(error, "reason", None) or error
        raise InputError(
            f"{url} could not be downloaded: {said}", where=str(to), help=f"check the network, or {by_hand}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return to


def _retrieve(url: str, to: Path) -> str:
    """Write what the URL gives to a file; its MD5. Raises `OSError` when it ends too early."""
    request = urllib.request.Request(url, headers={"User-Agent": f"actkit/{__version__}"})
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with urllib.request.urlopen(request, timeout=60) as answer, to.open("xb") as file:
        length = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            tell(f"downloading {Path(url).name}", done, length)
        if length and done != length:
            raise OSError(f"it ended after {done:,} of {length:,} bytes")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def whole(root: Path) -> Iterator[Path]:
    """A temporary folder in `root` whose contents are moved into `root` when all went well; what is there already stays as it is."""
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".actkit-", dir=root))
    try:
        yield temporary
        for new in sorted(temporary.iterdir()):
            to = root / new.name
            if not to.exists():
                try:
                    new.rename(to)
                except OSError:
                    if not to.exists():  # another process was quicker
                        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

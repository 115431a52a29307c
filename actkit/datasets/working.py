"""What reading a data set tells while it works, and where it keeps what it need not do twice."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Tell = Callable[[str, int, int], Any]  # what is done, how much of it, of how much

_tell: contextvars.ContextVar[Tell] = contextvars.ContextVar("tell", default=lambda what, done, total: None)


@contextlib.contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Meanwhile, data sets that download or decode say here how far they are."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def tell(what: str, done: int, total: int) -> None:
    _tell.get()(what, done, total)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder(name: str) -> Path:
    """actkit's folder for what can be made again: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "actkit" / name


def cached(key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that was made before for this key (anything that JSON takes), checked against its sum; or made now and kept.

    A copy that is damaged is made again; a disk that cannot hold one costs only the time.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    file, about = cache_folder("images") / f"{name}.npy", cache_folder("images") / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError):
        wanted = json.loads(about.read_text(encoding="utf-8"))["sha256"]
        found = np.load(file, allow_pickle=False)
        if _sum(found) == wanted:
            return found
    made = make()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as opened:
                np.save(opened, made, allow_pickle=False)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        temporary.write_text(json.dumps({"sha256": _sum(made), "of": key}), encoding="utf-8")
        temporary.replace(about)
    return made


def _sum(array: np.ndarray) -> str:
    head = f"{array.dtype} {array.shape}".encode()
    digest = hashlib.sha256(head)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

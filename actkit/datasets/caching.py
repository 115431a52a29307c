"""What reading a data set tells while it works, and where it keeps what it need not do twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from actkit.files import cache_folder


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

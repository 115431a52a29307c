"""Interrupted examinations: what is done is kept, and the same examination goes on from there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from actkit.config.spec import Spec
from actkit.display import Display, Expected, TimeLeft
from actkit.errors import InputError
from actkit.files import sha256, sha256_of, writing
from actkit.machine import versions
from actkit.networks import model_files
from actkit.probes import Progress


@contextlib.contextmanager
def resumable(
    path: Path | None, key: str, display: Display, *, every: float = 5.0, work: Sequence[Expected] = ()
) -> Iterator[Progress]:
    """The progress of an examination, kept in a file while it is unfinished: the same one (by `key`) goes on from there.

    Without a path nothing is kept. `work` is what its pieces are expected to take, so that the display can say what is left.
    """
    kept = {} if path is None else _kept(path, key)
    if kept:
        display.say(f"going on with an interrupted examination: {len(kept)} parts are done")
    saved = time.monotonic()

    def save() -> None:
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as temporary:
            model_files.save_tensors(kept, temporary, {"actkit": json.dumps({"key": key})})

    left = TimeLeft(work, kept) if work else None

    def done() -> None:
        nonlocal saved
        if left is not None:
            left.done(next(reversed(kept)))
        if time.monotonic() - saved > every:
            saved = time.monotonic()
            try:
                save()
            except OSError as error:  # the examination itself needs no file
                saved = float("inf")
                display.warn(f"progress cannot be kept, an interruption would lose it: {error.strerror}: {path}")

    try:
        with display.progress(left):
            yield Progress(kept, done=done)
    except BaseException:
        if kept:
            with contextlib.suppress(OSError):  # what ended the examination is worth more than its progress
                save()
        raise
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _kept(path: Path, key: str) -> dict[str, Tensor]:
    try:
        if not path.is_file():
            return {}
        tensors, about = model_files.read(path)
    # A cache that may not be looked into is none.
    except (InputError, OSError):
        return {}
    return tensors if isinstance(about, dict) and about.get("key") == key else {}


def key_of(
    files: Sequence[Path], data: Spec, evaluation: Sequence[Spec], tested: Mapping[str, str], device: torch.device
) -> str:
    """Two examinations with the same key give the same answer: weights, probes, data, their code and the software are the same."""
    parts = [
        [sha256(file) for file in files],
        data.to_json(),
        [spec.to_json() for spec in evaluation],
        tested,
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        versions(),
        sorted({_code_of(spec) for spec in [data, *evaluation, *_backbones(files)] for spec in _within(spec)}),
    ]
    return sha256_of(parts, 24)


def _backbones(files: Sequence[Path]) -> list[Spec]:
    return [model_files.header(file).backbone for file in files]


def _within(spec: Spec) -> Iterator[Spec]:
    yield spec
    for value in spec.kwargs.values():
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, Spec):
                yield from _within(inner)


def _code_of(spec: Spec) -> str:
    """The sum of the file that a component is written in, so that a plugin mended meanwhile is not taken for the old one."""
    source = Path(spec.entry.location.rpartition(":")[0])
    return sha256(source) if source.is_file() else spec.entry.location

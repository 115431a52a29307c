"""What a call finds around it and leaves as it was: random numbers, torch's switches, a terminal or none, plugins."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from actkit.config.plugins import load_installed_plugins
from actkit.display import Display, TimeLeft, TrainingView, listening
from actkit.machine import deterministic


@functools.cache
def load_plugins() -> None:
    """Load the installed plugins, once; a warning for each that fails. `ACTKIT_DISABLE_PLUGINS` keeps them out, as on the command line."""
    if not os.environ.get("ACTKIT_DISABLE_PLUGINS"):
        for said in load_installed_plugins():
            warnings.warn(said, stacklevel=3)


@contextlib.contextmanager
def private_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Meanwhile, whoever draws from the global generators (a defence with noise, random transforms) draws by the seed; then they are as they were."""
    before, numpy_before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % (1 << 32))
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


@contextlib.contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Meanwhile, fp32 is fp32 on the device and kernels are the same every time, as in all of actkit; then torch's switches are as they were."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32
    try:
        deterministic(device)
        # Gradients are taken whatever the caller's own mode is.
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


@contextlib.contextmanager
def private(seed: int, device: torch.device) -> Iterator[None]:
    """`private_randomness` and `exact_arithmetic` together."""
    with private_randomness(seed, device), exact_arithmetic(device):
        yield


class Line(Display):
    """How far it is, on one line of a terminal that is wiped at the end; warnings are Python's."""

    def __init__(self) -> None:
        self._width = 0

    def warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)

    def show(self, text: str) -> None:
        """The line as it is now; '' wipes it."""
        print("\r" + text.ljust(self._width), end="" if text else "\r", file=sys.stderr, flush=True)
        self._width = len(text)

    @contextlib.contextmanager
    def progress(self, left: TimeLeft | None = None) -> Iterator[None]:
        def told(what: str, part: int, parts: int) -> None:
            self.show(f"{what}: {part - 1:,} of {parts:,}")

        try:
            with listening(told):
                yield
        finally:
            self.show("")

    @contextlib.contextmanager
    def training(self, run: Any) -> Iterator[TrainingView]:
        try:
            yield _TrainingLine(self.show)
        finally:
            self.show("")


class _TrainingLine(TrainingView):
    def __init__(self, show: Callable[[str], None]) -> None:
        self.show = show

    def batch(self, record: Any) -> None:
        epoch = record.position.epoch + (not record.epoch_ended)
        batch = record.position.batch or record.batches
        self.show(f"epoch {epoch}: batch {batch} of {record.batches}")


def display_of(progress: bool) -> Display:
    """A line on a terminal; elsewhere, in a notebook or a pipe, silence."""
    return Line() if progress and sys.stderr is not None and sys.stderr.isatty() else Display()

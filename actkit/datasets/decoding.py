"""Images that are decoded as they are needed, by worker processes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actkit.datasets.pixels import Mode, Unreadable, image_of, unreadable
from actkit.datasets.splits import Batches, Examples
from actkit.errors import ActkitError, InputError
from actkit.noise import seed_for


@dataclass(frozen=True)
class FileSplit(Examples):
    """Labelled image files, decoded by worker processes a few batches ahead.

    Plain, an image is resized so that its short side is `resize`, and its centre taken; augmented, it is a random crop of 8 to 100 % of its area
    and 3/4 to 4/3 in aspect, resized, and flipped or not: the usual transforms of ImageNet, which the released code uses too.

    Args:
        files: paths below `root`, as bytes in an array (a list of a million texts would be copied into every worker).
        background: the grey, in [0,1], that lies behind what is see-through.
        crop, flip: whether an augmented image is a random crop (or the centre), and flipped or not.
        workers: processes that decode; 0 decodes in this one. Their number changes no pixel.
        timeout: seconds to wait for a batch before giving up.
    """

    root: Path
    files: np.ndarray
    labels: Tensor
    size: int
    resize: int
    mode: Mode = "RGB"
    augmented: bool = False
    workers: int = 0
    timeout: float = 120.0
    ids: Tensor | None = None
    background: float = 1.0
    crop: bool = True
    flip: bool = True

    def take(self, places: Tensor) -> FileSplit:
        return dataclasses.replace(
            self, files=self.files[places.numpy()], labels=self.labels[places], ids=self.names(places)
        )

    def plain(self) -> FileSplit:
        return dataclasses.replace(self, augmented=False)

    def path(self, place: int) -> Path:
        return self.root / os.fsdecode(bytes(self.files[place]))

    def pixels(self, place: int, key: tuple[int, ...] | None) -> Tensor:
        """One image as uint8, shape (C, size, size). Raises `InputError` when the file is no readable image."""
        from torchvision.transforms import functional as transforms
        from torchvision.transforms import v2

        path = self.path(place)
        try:
            image = image_of(path, self.mode, self.background)
        except Unreadable as error:
            raise unreadable([(path, str(error))]) from error
        augmented = self.augmented and key is not None
        if augmented and self.crop:
            with self._generator(place, key):
                image = v2.RandomResizedCrop(self.size)(image)
                image = v2.RandomHorizontalFlip()(image) if self.flip else image
        else:
            image = transforms.center_crop(transforms.resize(image, [self.resize]), [self.size, self.size])
            if augmented and self.flip:
                with self._generator(place, key):
                    image = v2.RandomHorizontalFlip()(image)
        return transforms.pil_to_tensor(image)

    @contextlib.contextmanager
    def _generator(self, place: int, key: tuple[int, ...] | None) -> Iterator[None]:
        """Meanwhile, torch's own generator is that of this example."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(*(key or ()), int(self.names(torch.tensor(place)))))
            yield

    def batches(
        self, groups: Iterable[Tensor], *, device: torch.device | str = "cpu", key: tuple[int, ...] | None = None
    ) -> Batches:
        """x and y of each group of places; augmented, as a function of `key` and the example, when one is given.

        Raises `InputError` for an unreadable file, `ActkitError` when a worker dies or hangs.
        """
        given, ahead = itertools.tee(groups)
        labels = self.labels
        for places, pixels in zip(given, self._decoded(ahead, key, torch.device(device)), strict=True):
            x = pixels.to(device, non_blocking=True).float() / 255
            yield x, labels[places].to(device, non_blocking=True)

    def _decoded(self, groups: Iterable[Tensor], key: tuple[int, ...] | None, device: torch.device) -> Iterator[Tensor]:
        loader = torch.utils.data.DataLoader(
            _Decoder(self, key),
            batch_sampler=_PlacesAsLists(groups),
            num_workers=self.workers,
            collate_fn=_stack_or_error,
            timeout=self.timeout if self.workers else 0,
            worker_init_fn=_ignore_signals,
            pin_memory=device.type == "cuda",
            # A private one: an iterator draws from it.
            generator=torch.Generator(),
        )
        others = set(multiprocessing.active_children())
        try:
            for pixels in loader:
                if isinstance(pixels, InputError):
                    raise pixels
                yield pixels
        except RuntimeError as error:
            _kill(set(multiprocessing.active_children()) - others)
            if (explained := worker_error(error)) is not None:
                raise explained from error
            raise

    def fingerprint(self) -> str:
        """A short hash of the files' names, sizes and labels and of how they are cut: their bytes are too many to be read for it."""
        cut: tuple[object, ...] = (self.size, self.resize, self.mode)
        digest = hashlib.sha256(repr(cut if self.background == 1.0 else (*cut, self.background)).encode())
        for place, label in enumerate(self.labels.tolist()):
            digest.update(b"%s %d %d\n" % (bytes(self.files[place]), self.path(place).stat().st_size, label))
        return "files-" + digest.hexdigest()[:12]


class _PlacesAsLists:
    """Groups of places as the lists that a DataLoader wants, made as they are asked for."""

    def __init__(self, groups: Iterable[Tensor]) -> None:
        self.groups = groups

    def __iter__(self) -> Iterator[list[int]]:
        return (places.tolist() for places in self.groups)


@dataclass(frozen=True)
class _Decoder(torch.utils.data.Dataset):
    split: FileSplit
    key: tuple[int, ...] | None

    def __getitem__(self, place: int) -> Tensor | InputError:
        try:
            return self.split.pixels(place, self.key)
        # Handed over as it is: raised in a worker, it would come with the worker's traceback in its text.
        except InputError as error:
            return error


def _stack_or_error(images: list[Tensor | InputError]) -> Tensor | InputError:
    wrong = [image for image in images if isinstance(image, InputError)]
    return wrong[0] if wrong else torch.stack([image for image in images if isinstance(image, Tensor)])


def worker_error(error: RuntimeError) -> ActkitError | None:
    """What torch says of a worker that hangs or dies, in a clear line; None for any other error. A death may show anywhere, by a signal."""
    said = str(error).splitlines()[0] if str(error) else ""
    if not said.startswith("DataLoader "):
        return None
    if "timed out" in said:
        return ActkitError(
            f"the workers that decode images gave no batch in time: {said}",
            help="a slow disk or network wants a larger timeout (dataset.imagenet.timeout, dataset.imagefolder.timeout), or fewer workers",
        )
    return ActkitError(
        f"a worker that decodes images was killed: {said}",
        help="most often memory, or shared memory in a container, is short: take fewer workers (dataset.imagenet.workers, dataset.imagefolder.workers)",
    )


def _kill(workers: set[Any]) -> None:
    """Kill workers that heed nothing gentler; torch's own handler would raise an error for each."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if mine else None
    for worker in workers:
        worker.kill()
        worker.join()
    if mine:
        signal.signal(signal.SIGCHLD, before)


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM go to the whole process group; the main process alone decides what they mean."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

"""How long data take: the first load of an image folder, a second start from the cache, an epoch of loading and augmentation alone.

    python benchmarks/data.py cifar10-jpeg          # <root>/train/<class>/*, <root>/test/<class>/*

Each of the two starts is a process of its own, with a cache of its own at first. Written to docs/results/data_cifar10.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "docs/results"


def start(root: str) -> dict[str, float]:
    """Seconds of one start: listing, reading both splits, one epoch in batches of 128."""
    import torch

    from actkit.datasets import imagefolder

    began = time.perf_counter()
    data = imagefolder(root=root)
    listed = time.perf_counter()
    train, _ = data.train, data.test
    read = time.perf_counter()
    groups = train.order(0, 0).split(128)
    images = sum(len(x) for x, _ in train.batches(groups, key=(0, 0)))
    assert images == len(train)
    ended = time.perf_counter()
    return {
        "images": len(train) + len(data.test),
        "epoch_images": images,
        "listing": listed - began,
        "reading": read - listed,
        "epoch": ended - read,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(start(given.root)))
        return
    with tempfile.TemporaryDirectory() as cache:
        told = {**os.environ, "XDG_CACHE_HOME": cache}
        runs = [
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, given.root, "--one"], env=told, check=True, capture_output=True
                ).stdout
            )
            for _ in ("first", "second")
        ]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    import torch

    found = {
        "command": f"python benchmarks/data.py {given.root}",
        "commit": commit,
        "machine": f"{len(os.sched_getaffinity(0))} cores of {cpu}",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "unit": "seconds",
        "note": "the files had been read by the system before: its own cache was warm",
        "first_start": runs[0],
        "second_start": runs[1],
    }
    (RESULTS / "data_cifar10.json").write_text(json.dumps(found, indent=1) + "\n")
    for name in ("first_start", "second_start"):
        print(name, {k: round(v, 2) for k, v in found[name].items()})


if __name__ == "__main__":
    main()

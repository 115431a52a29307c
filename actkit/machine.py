"""This machine: its device, its cores, and the versions and the commit that a result file says made it."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from actkit import __version__
from actkit.errors import InputError


def versions() -> dict[str, str]:
    return {
        "actkit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


@functools.cache
def provenance() -> dict[str, Any]:
    """The versions, with the commit of actkit's checkout (None for an installed wheel) and the machine: what a result file says of its origin."""
    root, processor = Path(__file__).parents[1], platform.processor()
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        processor = found[1] if found else processor
    commit = None
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
            said = subprocess.run(describe, capture_output=True, text=True, timeout=30)
            commit = said.stdout.strip() or None
    return {
        **versions(),
        "commit": commit,
        "processor": f"{processor}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def deterministic(device: torch.device) -> None:
    """fp32 means fp32 (no TF32), and the same kernels every time; bf16 comes from autocast alone."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def pick_device(name: str) -> torch.device:
    """'auto' is the first GPU, else the CPU. Raises `InputError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|(cuda|mps|xpu)(:\d+)?", name):
        raise InputError(
            f"--device {name}: there is no device {name!r}",
            help="cuda is the first GPU, cuda:1 the second; or auto, or cpu",
        )
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"--device {name}: torch finds no GPU here", help="auto or cpu; `nvidia-smi` and torch's build say why"
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--device {name} cannot be used: {str(error).splitlines()[0]}", help="auto, cpu or cuda:N"
        ) from error
    return device


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

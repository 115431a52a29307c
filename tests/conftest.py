from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# One thread a process: the suite runs several side by side, and OpenMP's busy waiting makes threads that share a core many times slower.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts what it puts into the background with SIGINT ignored, and whatever that starts inherits it: tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# And nohup has SIGHUP ignored.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def actkit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def call(*args: str | Path) -> Said:
        from actkit.cli.group import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.main([str(a) for a in args], prog_name="actkit")
        captured = capsys.readouterr()
        return Said(int(stop.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write files into a temporary folder: write(name=text) or write('name.gin', text)."""

    def call(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return call


@pytest.fixture
def quick(write: Callable[..., Path]) -> Path:
    from helpers.runs import QUICK

    return write("quick.gin", QUICK)


@pytest.fixture(scope="session")
def warm() -> Iterator[str]:
    """A Python that has imported torch and actkit already: started as `sys.executable` is, with `-m` or `-c`. See `helpers.processes`."""
    from helpers.processes import warm_python

    with warm_python() as python:
        yield python

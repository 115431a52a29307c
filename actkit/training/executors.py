"""Where command lines run: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from actkit.errors import FAILED, RESUMABLE, InputError
from actkit.machine import cores


class Executor(Protocol):
    """Runs command lines of actkit's somewhere."""

    jobs: int

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        """The exit code; what it prints goes into the log. Once stopped, it starts nothing more and answers RESUMABLE."""

    def stop(self, number: int) -> None:
        """Pass a signal on to what is running, and start nothing more."""


class Local:
    """Processes on this machine, so many at a time.

    Each has its share of the cores, since OpenMP's threads wait by spinning, and one of the GPUs by turns where there are several.

    Args:
        gpus: names for CUDA_VISIBLE_DEVICES to hand out; none where the command lines say which device to take.
    """

    def __init__(self, jobs: int, *, gpus: Sequence[str] = ()) -> None:
        self.jobs = jobs
        self._running: set[subprocess.Popen[bytes]] = set()
        # A second signal may come while the first is handled.
        self._lock = threading.RLock()
        self._stopped = False
        self._free = queue.SimpleQueue[str]()
        for i in range(jobs if gpus else 0):
            self._free.put(gpus[i % len(gpus)])
        self._gpus = bool(gpus)

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        environment = {**_environment(share_of_cores(self.jobs)), **os.environ}
        gpu = self._free.get() if self._gpus else None
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        try:
            return self._run(arguments, log, environment)
        finally:
            if gpu is not None:
                self._free.put(gpu)

    def _run(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        with log.open("ab") as file:
            with self._lock:
                if self._stopped:
                    return RESUMABLE
                # A session of its own: Ctrl-C reaches the study alone, which passes it on.
                process = subprocess.Popen(
                    [sys.executable, "-m", "actkit", *arguments],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self, number: int) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(number)


def _environment(threads: int) -> dict[str, str]:
    """What a run is told unless the user says otherwise. It prints as it goes, so that its log has results and messages in their order."""
    return {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def share_of_cores(jobs: int) -> int:
    """How many threads each of so many runs at a time may use."""
    return max(1, cores() // jobs)


def ray_executor() -> Executor:
    """A cluster's processes, through Ray (extra `ray`). Raises `InputError` where Ray is missing or no cluster answers."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray", help="pip install 'actkit[ray]'") from error
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError as error:
        raise InputError(f"no Ray cluster answers: {error}", help="start one here: ray start --head") from error
    return Cluster(ray)


class Cluster:
    """Runs each cell as a Ray task: the folders must lie where all machines see them. Each takes one GPU where the cluster has any, else one core."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        self.jobs = gpus or max(1, int(has.get("CPU", 1)))
        self._running: list[Any] = []
        self._lock = threading.RLock()
        self._stopped = False
        self._remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0)(run_on_machine)

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        with self._lock:
            if self._stopped:
                return RESUMABLE
            task = self._remote.remote(list(arguments), str(Path.cwd()), str(log.absolute()))
            self._running.append(task)
        try:
            return int(self._ray.get(task))
        # It was cancelled, or the machine is gone.
        except self._ray.exceptions.RayError as error:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n")
            return RESUMABLE if self._stopped else FAILED
        finally:
            with self._lock:
                self._running.remove(task)

    def stop(self, number: int) -> None:
        with self._lock:
            self._stopped = True
            for task in self._running:
                self._ray.cancel(task)


def run_on_machine(arguments: list[str], folder: str, log: str) -> int:
    """What a machine of the cluster does. Cancelled, which reaches it as KeyboardInterrupt, it lets the run finish its batch and save."""
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "actkit", *arguments],
            cwd=folder,
            env={**_environment(1), **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            return process.wait()

"""A Python that is warm already: processes that need not import torch again.

Most tests of a process ask what it says, how it ends and what a signal does to it, not how it starts; importing torch and timm takes four seconds
of each. So one server imports them once, computes nothing, and forks a child for each request. `warm_python` gives a program that is started like
`sys.executable` (`-m module ...` or `-c code ...`): it hands its arguments, working folder, environment and standard streams to the server, passes
signals on to the child, and ends as the child ends. A test starts it with plain `subprocess`, and so does code under test that starts `sys.executable`,
for within a child that is this program again.

A child is a process like any other, but for this:

- Modules are imported already. What imports what, and how long it takes, is tested by cold starts (`sys.executable`).
- What modules read from the environment while they are imported is the server's (OMP_NUM_THREADS=1); HOME, the caches' folders and PYTHONPATH are the child's.
- Its process id is not that of the `Popen`; its session is always its own. What cannot be passed on (SIGKILL) ends both.
- The global random numbers of torch and NumPy and the seed of `hash` are the same in all children.
- It ends without taking its modules apart; threads are waited for, and what `atexit` holds is done.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers import ROOT

# What a test would wait for: torch, timm and all of actkit that a command may need.
IMPORTED = (
    "torch", "timm", "sklearn.datasets", "matplotlib.backends.backend_agg", "matplotlib.figure", "pytest", "rich.progress", "jinja2", "actkit",
    "actkit.cli", "actkit.cli.display", "actkit.training.study", "actkit.training.execute", "actkit.reports.page", "actkit.evaluation.resume",
)  # fmt: skip

# The program: passes everything to the server behind the socket, and ends as the child does. It imports little, since it is started often.
LAUNCHER = """#!{python} -IS
import json, os, signal, socket, sys

PASSED_ON = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
asked = json.dumps({{
    "arguments": sys.argv[1:], "executable": {launcher!r}, "cwd": os.getcwd(), "environment": dict(os.environ)
}}).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "little")], [0, 1, 2])
server.sendall(asked)
answers = server.makefile()
pid = int(answers.readline())
for number in PASSED_ON:
    signal.signal(number, lambda number, frame: os.kill(pid, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
code = int(answers.readline() or 255)
if code < 0 and code not in (-signal.SIGKILL, -signal.SIGSTOP):
    signal.signal(-code, signal.SIG_DFL)
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextlib.contextmanager
def warm_python() -> Iterator[str]:
    """The path of the program. The server ends, and its children with it, when the block is left or this process dies."""
    with tempfile.TemporaryDirectory(prefix="warm-") as place:
        address, launcher = f"{place}/socket", Path(place) / "python"
        launcher.write_text(LAUNCHER.format(python=sys.executable, socket=address, launcher=str(launcher)))
        launcher.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # In a folder of its own, so that nothing of the caller's working folder is imported.
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(ROOT / "tests"), address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("the server of warm processes did not start; what it says stands on stderr")
            yield str(launcher)
        finally:
            server.communicate()


# The server returns in the child alone, with what the child has to do.
SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers.processes import serve
request = serve(sys.argv[2])
if request is not None:
    request.run()
"""


@dataclass(frozen=True)
class Request:
    """What a child is asked for: the arguments of a Python, and where it runs."""

    arguments: list[str]
    executable: str
    cwd: str
    environment: dict[str, str]

    def settle(self, streams: list[int]) -> None:
        """Make the process that was forked the one that is asked for."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.executable = self.executable
        given = [path for path in self.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [self.cwd, *given, *sys.path]

    def run(self) -> None:
        """Run it as Python would: an exception, or SystemExit, ends the process in the usual way."""
        try:
            self._run()
            Leaving.code = 0
        except SystemExit as end:
            Leaving.code = end.code if isinstance(end.code, int) else int(end.code is not None)
            raise
        except KeyboardInterrupt:
            Leaving.code = -signal.SIGINT
            raise

    def _run(self) -> None:
        option, what, *rest = self.arguments
        if option == "-m":
            sys.argv = [what, *rest]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif option == "-c":
            sys.argv = ["-c", *rest]
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        else:
            raise ValueError(f"-m MODULE or -c CODE is wanted, not {self.arguments}")


class Leaving:
    """The last thing that a process does: taking torch apart, module by module, would cost ten times what forking did."""

    code = 0

    @classmethod
    def leave(cls) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if cls.code < 0:
            signal.signal(-cls.code, signal.SIG_DFL)
            os.kill(os.getpid(), -cls.code)
        os._exit(cls.code)


def serve(address: str) -> Request | None:
    """Answer requests. Returns in each child, with its request, and in the server itself (None) when its stdin ends."""
    # Before all that is imported now registers, so that it comes last.
    atexit.register(Leaving.leave)
    _warm_up()
    ended, wake = os.pipe()
    for end in (ended, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(address)
        listener.listen()
        for file in (sys.stdin, listener, ended):
            selector.register(file, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    _end(running)
                    return None
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    request, streams = _receive(client)
                    if (pid := os.fork()) == 0:
                        Leaving.code = 1  # until it has done what it is asked for
                        for other in (client, *running.values()):
                            other.close()
                        os.close(ended)
                        os.close(wake)
                        request.settle(streams)
                        return request
                    for stream in streams:
                        os.close(stream)
                    running[pid] = client
                    selector.register(client, selectors.EVENT_READ, pid)
                    _tell(client, pid)
                elif key.fileobj == ended:
                    os.read(ended, 4096)
                    for pid, code in _reaped():
                        selector.unregister(running[pid])
                        with running.pop(pid) as client:
                            _tell(client, code)
                elif key.data in running:  # its program was killed: the child goes with it
                    os.kill(key.data, signal.SIGKILL)


def _warm_up() -> None:
    """Import what children need; their `sys.path` begins with what each is given, not with what this process was."""
    own = {str(ROOT / "tests"), "", os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    for name in IMPORTED:
        __import__(name)
    sys.path[:] = [path for path in sys.path if path not in own]
    # Those of libraries, too.
    threads = Path("/proc/self/task")
    assert (len(list(threads.iterdir())) if threads.is_dir() else threading.active_count()) == 1
    gc.collect()
    # A collection in a child would copy what all share.
    gc.freeze()


def _tell(client: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # a program that was killed hears nothing
        client.sendall(b"%d\n" % number)


def _receive(client: socket.socket) -> tuple[Request, list[int]]:
    size, streams, _, _ = socket.recv_fds(client, 8, 3)
    with client.makefile("rb") as file:
        return Request(**json.loads(file.read(int.from_bytes(size, "little")))), streams


def _reaped() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])


def _end(running: Mapping[int, socket.socket]) -> None:
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

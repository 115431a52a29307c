"""The processes that tests start warm are processes: their arguments, folder, environment, output, exit code and signals are their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

TELL = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:], "cwd": os.getcwd(), "home": os.environ["HOME"], "path": sys.path[:2], "torch": "torch" in sys.modules,
    "default": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "session": os.getsid(0) == os.getpid(), "executable": sys.executable,
    "given": sys.stdin.read(), "unknown": os.environ.get("NOBODY_SET_THIS"),
}))
print("and this is said on stderr", file=sys.stderr)
"""


def run(python, *arguments, **how):
    return subprocess.run([python, *arguments], capture_output=True, text=True, timeout=60, **how)


def test_a_child_has_its_own_arguments_folder_environment_and_streams(warm, tmp_path):
    environment = {"HOME": "/nowhere", "PYTHONPATH": str(tmp_path / "extra"), "PATH": os.environ["PATH"]}
    done = run(warm, "-c", TELL, "a", "b", cwd=tmp_path, env=environment, input="asked")
    assert (done.returncode, done.stderr) == (0, "and this is said on stderr\n")
    assert json.loads(done.stdout) == {
        "arguments": ["a", "b"], "cwd": str(tmp_path), "home": "/nowhere", "path": [str(tmp_path), str(tmp_path / "extra")], "torch": True,
        "default": True, "session": True, "executable": warm, "given": "asked", "unknown": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('of its own')", 1),
        ("raise ValueError('of its own')", 1),
        ("import os; os._exit(75)", 75),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_a_child_ends_with_the_code_that_a_cold_process_would(warm, code, ends):
    done = run(warm, "-c", code)
    assert done.returncode == ends
    assert ("of its own" in done.stderr) == ("of its own" in code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_reaches_the_child(warm, number):
    code = f"import signal, sys, time; signal.signal({int(number)}, lambda *_: sys.exit(7)); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([warm, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == 7


def test_a_program_that_is_killed_takes_its_child_with_it(warm):
    with subprocess.Popen(
        [warm, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"], stdout=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        child = int(process.stdout.readline())
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert process.stdout.read() == "", "the child's end of the pipe is closed"
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("the child is still there")


def test_children_share_nothing_that_one_of_them_changes(warm):
    assert run(warm, "-c", "import actkit; actkit.changed = True").returncode == 0
    assert run(warm, "-c", "import actkit; print(hasattr(actkit, 'changed'))").stdout == "False\n"


def test_a_child_waits_for_its_threads_and_does_what_is_left_for_its_end(warm):
    code = "import atexit, threading; atexit.register(print, 'last'); threading.Timer(0.2, print, ['late']).start(); print('first')"
    assert run(warm, "-c", code).stdout.split() == ["first", "late", "last"]


def test_actkit_answers_as_in_a_cold_process(warm, tmp_path):
    cold, ours = (run(python, "-m", "actkit", "list", "objective", cwd=tmp_path) for python in (sys.executable, warm))
    assert (ours.returncode, ours.stdout, ours.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert cold.returncode == 0

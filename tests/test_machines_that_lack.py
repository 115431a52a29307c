"""Files: what goes on where a machine lacks locks, a home or a cache that can be written."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd

import pytest

from actkit.datasets import imagefolder
from actkit.errors import InputError
from actkit.files import cache_folder, in_use, locked, locked_file, shown_path
from helpers.images import folder
from helpers.runs import Mute, go, recipe

NO_LOCKS = ["ENOLCK", "ENOSYS", "EOPNOTSUPP"]


@pytest.fixture
def failing(monkeypatch):
    """flock fails with this error."""

    def fail(name: str) -> None:
        number = getattr(errno, name)

        def flock(*args):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return fail


@pytest.mark.parametrize("name", NO_LOCKS)
def test_without_locks_a_run_says_so_and_goes_on(name, failing, write, tmp_path):
    failing(name)
    display = Mute()
    assert go(recipe(write, "run.epochs=1"), tmp_path / "run", display).exit_code == 0
    (warning,) = (one for one in display.warnings if "most of the ball" not in one)
    assert "lies on a file system without locks" in warning
    assert "no second run uses it" in warning
    assert in_use(tmp_path / "run") == ""


@pytest.mark.parametrize("name", NO_LOCKS)
def test_without_locks_a_file_is_changed_all_the_same(name, failing, tmp_path):
    failing(name)
    with locked_file(tmp_path / "x.json"):
        pass


def test_a_lock_that_is_denied_for_another_reason_is_told_as_that(failing, tmp_path):
    failing("EIO")
    with pytest.raises(InputError, match="cannot be locked: Input/output error"), locked(tmp_path):
        pass


@pytest.fixture
def homeless(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_a_user_without_a_home_has_no_cache(homeless, tmp_path):
    assert cache_folder("images") is None
    data = imagefolder(root=str(folder(tmp_path, per_class=500)), crop=0)
    assert len(data.train) == 1000


def test_a_run_and_a_probe_need_no_home(homeless, write, tmp_path, actkit):
    assert go(recipe(write, "run.epochs=1"), tmp_path / "run").exit_code == 0
    assert actkit("probe", "--ckpt", tmp_path / "run", "--device", "cpu").code == 0


def test_a_path_that_is_no_utf_8_can_be_printed():
    assert shown_path(os.fsdecode(b"caf\xe9/x")) == "caf\\xe9/x"
    assert shown_path("猫") == "猫"

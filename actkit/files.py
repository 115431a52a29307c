"""Files: whole or absent, summed, one process at a time; where what can be made again is kept."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from actkit.errors import InputError


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- whole or absent -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary name in the same folder, for a file or a folder; what was written there takes the place of `path` when all went well.

    A file replaces an older one. A folder replaces an empty one. After an error nothing of it is left, and `path` is as it was.

    Args:
        durable: on the disk before this returns, also if the machine then loses its power. The files in a folder are the writer's business.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        if durable:
            fsync(temporary)
        temporary.replace(path)
        if durable:
            fsync(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """This process's name beside `path` for what is not whole yet."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


def remove_temporary(folder: Path, pattern: str) -> None:
    """Remove the folders that interrupted writers of these names have left behind."""
    for left in folder.glob(f".tmp-*-{pattern}"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def adding_to(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`; its contents are moved there when all went well. What is there already stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    try:
        yield temporary
        for new in sorted(temporary.iterdir()):
            to = folder / new.name
            if not to.exists():
                try:
                    new.rename(to)
                except OSError:
                    # Unless another process was quicker.
                    if not to.exists():
                        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file whole or not at all, as UTF-8; bytes of a path that are none are escaped."""
    with writing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, data: Any, *, durable: bool = False) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n", durable=durable)


# -- sums ----------------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(path: Path) -> str:
    """What data sets' own pages publish; it guards against accidents alone."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of(data: Any, length: int = 64) -> str:
    """The first characters of the SHA-256 of what JSON can hold: a short name for settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:length]


# -- one process at a time -----------------------------------------------------------------------------------------------


IN_USE = "another run is using this folder"
# What a file system without locks answers: some NFS, Lustre and FUSE.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class NoLocks(Exception):
    """The file system has no locks."""


def in_use(folder: Path) -> str:
    """Who holds the run's folder, 'process 12 on host'; '' when nobody does, or where the file system has no locks."""
    try:
        with (folder / ".lock").open("r+") as file:
            try:
                _lock(file, wait=False)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except (OSError, NoLocks):
        pass
    return ""


@contextlib.contextmanager
def locked(folder: Path, *, warn: Callable[[str], object] = lambda text: None) -> Iterator[None]:
    """Hold the run's folder; a second run in it is refused. The lock goes with the process, however it ends.

    Where the file system has no locks, that is said to `warn`, and the run goes on.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("a+")
    except OSError as error:
        raise InputError(
            f"the run's folder cannot be used: {error.strerror}", where=str(folder), help="choose another --out"
        ) from error
    with opened as file:
        try:
            _lock(file, wait=False)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{IN_USE} ({file.read().strip()})",
                where=str(folder),
                help="choose another --out",
            ) from error
        except NoLocks as error:
            warn(
                f"{folder} lies on a file system without locks ({error}): take care that no second run uses it meanwhile"
            )
        except OSError as error:
            raise InputError(
                f"the run's folder cannot be locked: {error.strerror}", where=str(folder), help="choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextlib.contextmanager
def locked_file(file: Path) -> Iterator[None]:
    """Hold one file while it is read and changed; whoever else wants it waits, unless the file system has no locks."""
    with file.with_name(f".{file.name}.lock").open("a") as lock:
        with contextlib.suppress(NoLocks):
            _lock(lock, wait=True)
        yield


def _lock(file: IO[str], *, wait: bool) -> None:
    """Lock an opened file. Raises `BlockingIOError` where another process holds it, `NoLocks` where nobody could."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocks(error.strerror) from error
        raise


# -- folders -------------------------------------------------------------------------------------------------------------


def shown_path(path: str | Path) -> str:
    """A path as it can be printed anywhere: bytes that are no UTF-8 as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def make_folder(folder: Path) -> None:
    """Raise `InputError` where no folder can be: before anything long begins."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder cannot be made: {error.strerror}", where=str(folder), help="choose another place"
        ) from error


def cache_folder(name: str) -> Path | None:
    """actkit's folder for what can be made again: below XDG_CACHE_HOME, or ~/.cache; None for a user who has no home at all."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "actkit" / name
    try:
        return Path.home() / ".cache" / "actkit" / name
    # Neither HOME nor a line in /etc/passwd, as in a container with a number for a user.
    except RuntimeError:
        return None

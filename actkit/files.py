"""Files: whole or absent, summed, one process at a time; where what can be made again is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """Write a text file whole or not at all, as UTF-8."""
    with writing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def in_use(folder: Path) -> str:
    """Who holds the run's folder, 'process 12 on host'; '' when nobody does."""
    import fcntl

    try:
        with (folder / ".lock").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except OSError:
        pass
    return ""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; a second run in it is refused. The lock goes with the process, however it ends."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("a+")
    except OSError as error:
        raise InputError(
            f"the run's folder cannot be used: {error.strerror}", where=str(folder), help="choose another --out"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise InputError(
                f"{IN_USE} ({file.read().strip()})",
                where=str(folder),
                help="choose another --out",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextlib.contextmanager
def locked_file(file: Path) -> Iterator[None]:
    """Hold one file while it is read and changed; whoever else wants it waits."""
    import fcntl

    with file.with_name(f".{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# -- folders -------------------------------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Raise `InputError` where no folder can be: before anything long begins."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder cannot be made: {error.strerror}", where=str(folder), help="choose another place"
        ) from error


def cache_folder(name: str) -> Path:
    """actkit's folder for what can be made again: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "actkit" / name

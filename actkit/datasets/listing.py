"""What lies in a folder of images: its splits, its classes, their files; and what is left out, by reason. Nothing is passed over without a word."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actkit.datasets.pixels import ENDINGS
from actkit.errors import InputError, nearest
from actkit.files import shown_path

# How people call the folders of splits, in any case of letters.
SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SPLITS = {spelling for spellings in SPELLINGS.values() for spelling in spellings}
# Folders that archivers, file servers and systems leave behind.
_LEFT_BEHIND = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__pycache__")


@dataclass
class Left:
    """What is left out of a folder: under each reason a few names, and how many there are."""

    names: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        kept = self.names.setdefault(reason, [])
        if len(kept) < 3:
            kept.append(shown_path(name))

    def __str__(self) -> str:
        return "; ".join(
            f"{count:,} {reason} ({', '.join(self.names[reason])}{', ...' if count > len(self.names[reason]) else ''})"
            for reason, count in self.counts.items()
        )


@dataclass
class Listing:
    """The image files of each split by class, as paths below `base`.

    Args:
        splits: {split: {class: files}}; the same classes in each, in the order of their folders' names.
        left: what is left out.
        notes: what else its reader should know, a line each.
        broken: paths that should be images and cannot be opened, with the reason.
    """

    base: Path
    splits: dict[str, dict[str, list[str]]]
    left: Left
    notes: list[str]
    broken: dict[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.splits["train"])

    @property
    def sizes(self) -> dict[str, int]:
        return {split: sum(map(len, by_class.values())) for split, by_class in self.splits.items()}

    def files(self, split: str) -> list[str]:
        """Of all classes, one after the other."""
        return [name for names in self.splits[split].values() for name in names]

    def labels(self, split: str) -> list[int]:
        return [label for label, names in enumerate(self.splits[split].values()) for _ in names]

    def said(self) -> tuple[str, ...]:
        """The notes, and what is taken and left, where anything is."""
        taken = ", ".join(f"{split} {size:,}" for split, size in self.sizes.items())
        return (*self.notes, *([f"taken: {taken}; left out: {self.left}"] if self.left.counts else ()))

    def without(self, problems: Mapping[str, str]) -> None:
        """Leave out the files that cannot be read."""
        for by_class in self.splits.values():
            for cls, names in by_class.items():
                by_class[cls] = [name for name in names if name not in problems]
        for name in problems:
            self.left.add("unreadable", name)

    def assert_classes(self, folders: Mapping[str, str]) -> None:
        """Raise `InputError`, with their names, for classes that a split lacks or that are empty in one."""
        missing: dict[str, list[str]] = {}
        for split, by_class in self.splits.items():
            for cls in dict.fromkeys(cls for other in self.splits.values() for cls in other):
                if cls not in by_class:
                    other = next(folders[s] for s, has in self.splits.items() if cls in has)
                    missing.setdefault(f"classes in {other} that {folders[split]} does not have", []).append(cls)
                elif not by_class[cls]:
                    missing.setdefault(f"classes without an image in {folders[split] or 'their folders'}", []).append(
                        cls
                    )
        if not missing:
            return
        said = "; ".join(
            f"{what}: {', '.join(classes[:10])}{f' and {len(classes) - 10:,} more' if len(classes) > 10 else ''}"
            for what, classes in missing.items()
        )
        there = f" Left out: {self.left}." if self.left.counts else ""
        raise InputError(
            said,
            where=shown_path(self.base),
            help=f"give every split an image of each class, or take the class's folders away.{there}",
        )


def find_splits(base: Path, given: Mapping[str, str | None], dataset: str) -> tuple[dict[str, str], list[str]]:
    """The folders of the splits in `base`, by split, and notes of what was decided; {'train': ''} where the class folders lie there at once.

    Args:
        given: the names that the user gave; None where the usual ones are looked for.

    Raises `InputError` for a folder that is not there, that could be several, or for splits that were not found.
    """
    there = _folders(base)
    splits, notes = {}, []
    for split, spellings in SPELLINGS.items():
        name = given.get(split)
        found = [name] if name is not None else [f for f in there if f.lower() in spellings and _is_split(base / f)]
        found = [f for f in found if f not in given.values()] if name is None else found
        if len(found) > 1:
            raise InputError(
                f"{' and '.join(map(repr, found))} could both be the split {split!r}",
                where=shown_path(base),
                help=f"-s dataset.{dataset}.{split}=NAME names it",
            )
        if found:
            splits[split] = found[0]
    for name in splits.values():
        _assert_there(base, name, there, next(s for s, n in splits.items() if n == name), dataset)
    if not splits:
        _assert_classes_at_once(base, there, dataset)
        return {"train": ""}, []
    _assert_there(base, splits.get("train", "train"), there, "train", dataset)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
        notes.append(f"the split 'test' is the folder {shown_path(splits['test'])!r}: there is no other")
    return {split: splits[split] for split in ("train", "test", "val") if split in splits}, notes


def _assert_there(base: Path, name: str, there: list[str], split: str, dataset: str) -> None:
    if (base / name).is_dir():
        return
    near = nearest(name, [shown_path(f) for f in there]) or "it is empty"
    raise InputError(
        f"the image folder has no {name!r}",
        where=shown_path(base),
        help=f"{near}; -s dataset.{dataset}.{split}=NAME names it",
    )


def _assert_classes_at_once(base: Path, there: list[str], dataset: str) -> None:
    """Raise `InputError` where folders without the name of a split are no classes either."""
    hint = "it must hold train and test with one folder a class in each, or the class folders themselves"
    usable = [f for f in there if not f.startswith(".") and f not in _LEFT_BEHIND]
    if not usable:
        raise InputError("there are no images in class folders", where=shown_path(base), help=hint)
    inner = {f: set(_folders(base / f)) for f in usable}
    # A class may be called 'train'; splits come in pairs, or alone.
    flat = [f for f in usable if f.lower() in _SPLITS]
    if len(flat) > 1 or flat == usable:
        raise InputError(
            f"the images lie in {flat[0]!r} itself, without class folders", where=shown_path(base), help=hint
        )
    below = [f for f in usable if any(name.lower() in _SPLITS for name in inner[f])]
    # The same folders in each: most likely the splits have unusual names.
    alike = len(usable) > 1 and len({frozenset(names) for names in inner.values()}) == 1 and inner[usable[0]]
    if not below and not alike and len(usable) > 1:
        return
    near = nearest("train", usable, listing=False)
    help = f"{near}; " if near else ""
    if below:
        help = f"{shown_path(below[0])!r} holds splits: is it the root?  "
    raise InputError(
        "the image folder has no 'train', and its folders are no classes",
        where=shown_path(base),
        help=f"{help}-s dataset.{dataset}.train=NAME and -s dataset.{dataset}.test=NAME name the splits; {hint}",
    )


def list_images(base: Path, folders: Mapping[str, str], limit: int | None) -> Listing:
    """The images of these folders below `base`, by split and class, and what else lies there.

    Raises `InputError` where a folder holds no class folder with an image in it.
    """
    listing = Listing(base, {}, Left(), [], {})
    known: dict[str, str] = {}
    for split, below in folders.items():
        by_class = {}
        for cls, files in _classes(listing, below):
            # The same name is composed in other ways on other systems.
            name = known.setdefault(unicodedata.normalize("NFC", cls), cls)
            if name in by_class:
                raise InputError(f"two folders are called {cls!r}", where=shown_path(base / below))
            by_class[name] = files[:limit]
        if not any(by_class.values()):
            left = f"; left out: {listing.left}" if listing.left.counts else ""
            raise InputError(
                "there are no images in class folders",
                where=shown_path(base / below),
                help=f"it must hold one folder a class, with images in it{left}",
            )
        listing.splits[split] = by_class
    # In the order of the training's folders.
    first = listing.splits["train"]
    for split, by_class in listing.splits.items():
        ordered = {cls: by_class[cls] for cls in first if cls in by_class}
        listing.splits[split] = ordered | by_class
    if "" not in folders.values():
        _note_beside(listing, folders)
    return listing


def _note_beside(listing: Listing, folders: Mapping[str, str]) -> None:
    """What lies beside the folders of the splits."""
    for entry in _entries(listing.base):
        if entry.name not in folders.values():
            listing.left.add("beside the splits' folders", entry.name)


def _classes(listing: Listing, below: str) -> Iterator[tuple[str, list[str]]]:
    """Each class's name, as it can be shown, and its files."""
    folder = listing.base / below
    for entry in _entries(folder):
        path = f"{below}/{entry.name}" if below else entry.name
        if _is_hidden(listing, entry.name, path):
            continue
        if _is_dir(entry):
            yield shown_path(entry.name), sorted(_images(listing, path))
        else:
            listing.left.add("in no class folder", path)


def _images(listing: Listing, top: str) -> Iterator[str]:
    """The image files of a class folder and of the folders in it, each folder once, whatever links lead to it."""
    waiting, seen = [top], set[Path]()
    while waiting:
        below = waiting.pop()
        real = (listing.base / below).resolve()
        if real in seen:
            listing.left.add("folders that are read already", below)
            continue
        seen.add(real)
        try:
            entries = list(_entries(listing.base / below))
        except OSError as error:
            listing.broken[below] = error.strerror or str(error)
            continue
        if not entries and below != top:
            listing.left.add("empty folders", below)
        for entry in entries:
            path = f"{below}/{entry.name}"
            if _is_hidden(listing, entry.name, path):
                continue
            if not _is_dir(entry):
                if _is_image(listing, entry, path):
                    yield path
            elif entry.is_symlink() and Path(entry.path).resolve() in real.parents:
                listing.left.add("links that lead back", path)
            else:
                waiting.append(path)


def _is_image(listing: Listing, entry: os.DirEntry[str], path: str) -> bool:
    """Whether a file is taken for an image; where it is not, the listing knows why."""
    if not entry.name.lower().endswith(ENDINGS):
        ending = os.path.splitext(entry.name)[1].lower()
        listing.left.add(f"no image by its ending {shown_path(ending)}" if ending else "without an ending", path)
    elif (problem := _unusable(entry)) is not None:
        listing.broken[path] = problem
    else:
        return True
    return False


def _is_hidden(listing: Listing, name: str, path: str) -> bool:
    if name.startswith("."):
        listing.left.add("hidden", path)
    elif name in _LEFT_BEHIND:
        listing.left.add("left behind by a system", path)
    else:
        return False
    return True


def _unusable(entry: os.DirEntry[str]) -> str | None:
    """Why what is called an image is no file that can be opened; None where it is one."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return error.strerror or str(error)
    return None if stat.S_ISREG(mode) else "no regular file"


def _is_split(folder: Path) -> bool:
    """Whether a folder with the name of a split is one: a class may be called 'train' too, and then holds images and no folder."""
    entries = list(_entries(folder))
    return any(_is_dir(entry) and not entry.name.startswith(".") for entry in entries) or not entries


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads nowhere is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _folders(base: Path) -> list[str]:
    return [entry.name for entry in _entries(base) if _is_dir(entry)]


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)

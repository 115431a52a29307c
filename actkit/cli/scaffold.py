"""What `actkit new KIND NAME` writes: a plugin that works, with a recipe and tests, ready to edit and to publish.

The files are in `new/`: those of every plugin in `new/shared`, those of a kind in `new/<kind>`. In their names and their text NAME, KIND and VERSION
are filled in; as they stand they are valid Python. What is not valid as it stands ends in `.template`.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from pathlib import Path

from actkit import __version__
from actkit.errors import InputError, nearest

TEMPLATES = Path(__file__).with_name("new")
KINDS = ("objective", "attack", "backbone", "probe", "dataset")

# Modules that what is written imports; a plugin of that name would hide them from itself.
_MODULES = ("actkit", "torch", "problems", "pytest", "sys", "subprocess")


def new(kind: str, name: str, place: Path) -> Path:
    """Write the plugin into `place/name` and give that folder. Raises `InputError` for a kind or name that cannot be, or a folder that is there."""
    if kind not in KINDS:
        raise InputError(
            f"a plugin cannot be begun for {kind!r}", help=nearest(kind, KINDS) or f"one of {', '.join(KINDS)}"
        )
    _assert_usable(name)
    folder = place / name
    if folder.exists():
        raise InputError(
            "the folder is there already", where=str(folder), help="choose another name, or another --into"
        )
    filled = {"NAME": name, "KIND": kind, "VERSION": __version__}
    for file, template in templates(kind).items():
        path = folder / _fill(file, filled)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_fill(template.read_text(encoding="utf-8"), filled), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"the plugin cannot be written: {error.strerror}", where=str(path), help="choose another --into"
            ) from error
    return folder


def templates(kind: str) -> dict[str, Path]:
    """What a plugin of this kind is made of, by the path in its folder; a kind's own file replaces the shared one."""
    roots = (TEMPLATES / "shared", TEMPLATES / kind)
    return {
        path.relative_to(root).as_posix().removesuffix(".template"): path
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def _fill(text: str, values: dict[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def _assert_usable(name: str) -> None:
    """Raise `InputError` for a name that no module, no component or no distribution can have."""
    why = _unusable(name)
    if why is None:
        return
    # 'Über-PGD' becomes 'uber_pgd', '3mine' becomes 'mine'.
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    suggested = re.sub(r"^[\d_]+|_+$", "", re.sub(r"\W", "_", plain))
    usable = suggested != name and _unusable(suggested) is None
    raise InputError(
        f"{name!r} cannot be a plugin's name: {why}",
        help=f"did you mean {suggested!r}?" if usable else "such as my_pgd",
    )


def _unusable(name: str) -> str | None:
    """What is wrong with a name; None where nothing is."""
    if not name:
        return "it is empty"
    if name[0].isdigit():
        return "it begins with a digit"
    if keyword.iskeyword(name):
        return "it is a word of Python's own"
    if name in _MODULES:
        return f"it would hide the module {name!r} from itself"
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", name):
        return "it must be a Python identifier of small letters a to z, digits and, between them, underscores"
    return None

"""Other people's files of weights: what is in them, and which of several sets of weights is meant.

Nothing that a file holds is run: it is read by torch's restricted unpickler (`weights_only`), or as safetensors.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actkit.errors import InputError, nearest
from actkit.networks import model_files


def read(file: Path) -> Any:
    """What the file holds, with no code of its run. Raises `InputError` when it is none of weights, or asks for code."""
    if not file.is_file():
        raise InputError(
            "this is a folder" if file.is_dir() else "there is no such file",
            where=str(file),
            help="one file of weights is wanted",
        )
    if file.suffix == ".safetensors":
        return model_files.read(file)[0]
    with file.open("rb") as opened:
        first = opened.read(2)
    # A zip, or the pickle that torch wrote before 1.6.
    if not first.startswith((b"PK", b"\x80")):
        raise InputError("this is no PyTorch file", where=str(file), help="a .pt, .pth or .safetensors file is wanted")
    _assert_not_inflated(file)
    try:
        with warnings.catch_warnings():
            # About pickle protocols: what matters is raised.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global|class|function)s?:?\s+([\w.]+\.[\w.]+)", str(error))
        what = f" ({wanted[1]})" if wanted else ""
        raise InputError(
            f"this file is not only weights: loading it would run code of its own{what}, so it is not loaded",
            where=str(file),
            help="where you trust it and have the code that wrote it, save the weights alone there: torch.save(model.state_dict(), 'weights.pt')",
        ) from error
    except (
        MemoryError,
        RecursionError,
        ArithmeticError,
        LookupError,
        EOFError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        said = (
            str(error).split(". ")[0].splitlines()[0]
            if isinstance(error, (OSError, RuntimeError)) and str(error)
            else ""
        )
        said = "" if "weights_only" in said or len(said) > 200 else f": {said}"
        raise InputError(
            f"the file cannot be read as PyTorch weights{said}",
            where=str(file),
            help="it is cut short, altered, or of another kind",
        ) from error


def _assert_not_inflated(file: Path) -> None:
    """PyTorch stores what it writes; a zip that unpacks to more than it holds was made to exhaust memory."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > file.stat().st_size:
            raise InputError(
                f"it holds {file.stat().st_size:,} bytes and claims to unpack to {unpacked:,}",
                where=str(file),
                help="PyTorch does not compress what it saves: do not trust this file",
            )


def state_dicts(content: Any) -> dict[str, dict[str, Tensor]]:
    """The state dicts in what was read, by their place in it ('model', 'last.state_dict', '' for the whole)."""
    found: dict[str, dict[str, Tensor]] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    # It grows meanwhile; but a file may nest without end, or hold itself.
    for key, value in waiting:
        if not isinstance(value, Mapping) or key.count(".") > 8:
            continue
        tensors = {name: inner for name, inner in value.items() if isinstance(inner, Tensor)}
        named = all(isinstance(name, str) for name in value)
        if named and len(tensors) >= 2 and any("." in name for name in tensors):
            found[key] = tensors
        elif len(waiting) < 10_000:
            inside = [(name, inner) for name, inner in value.items() if isinstance(name, str)]
            waiting += [(f"{key}.{name}" if key else name, inner) for name, inner in inside]
    return found


def beside(content: Any, taken: Sequence[str]) -> list[str]:
    """What else the file holds, at its top and beside the weights that are taken, which are at these places: names of entries that are not used."""
    if not isinstance(content, Mapping):
        return []
    tops = {place.partition(".")[0] for place in taken if place}
    names = [] if "" in taken else [str(name) for name in content if str(name) not in tops]
    for place in taken:
        inner: Any = content
        for part in place.split(".") if place else ():
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            names += [str(name) for name, value in inner.items() if not isinstance(value, Tensor)]
    return list(dict.fromkeys(names))


# The released ACT code keeps both of its models in one file.
_ROLES = {"adv_model": "robust", "nat_model": "natural"}


def chosen(
    found: Mapping[str, dict[str, Tensor]],
    key: str | None,
    where: str,
    fits: Callable[[Mapping[str, Tensor]], bool] | None = None,
) -> dict[str, str]:
    """Which state dicts to take: their places, and the role of each.

    Args:
        fits: whether a state dict holds the network that is meant; of several, the one that does is taken.
    """
    if not found:
        raise InputError("there are no weights in this file", where=where, help="a state dict is wanted")
    if key is not None:
        if key not in found:
            raise InputError(f"there are no weights under {key!r}", where=where, help=nearest(key, found))
        return {key: _ROLES.get(key, "robust")}
    if set(found) == set(_ROLES):
        return dict(_ROLES)
    if len(found) > 1:
        fitting = [place for place, entries in found.items() if fits is not None and fits(entries)]
        if len(fitting) == 1:
            return {fitting[0]: "robust"}
        raise InputError(
            f"there are {len(found)} sets of weights in this file: {', '.join(found)}",
            where=where,
            help="choose one with --key",
        )
    return dict.fromkeys(found, "robust")

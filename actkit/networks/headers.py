"""What a model file says of itself: enough to rebuild the model and to repeat its evaluation. No tensor is read, and torch is not needed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from actkit.config.spec import Spec
from actkit.config.typed import assert_name, typed
from actkit.errors import InputError
from actkit.networks.checkpoints import FORMAT

# Bytes of JSON; a real header has a few thousand.
_HEADER_LIMIT = 1 << 20


@dataclass(frozen=True)
class ImportedFrom:
    """The foreign file that a model's weights came from; `key` is where in it they were, `notes` what was left out or added."""

    file: str
    sha256: str
    key: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "sha256": self.sha256, "key": self.key, "notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a model file says of itself: enough to rebuild the model and to repeat its evaluation.

    Args:
        role, roles: the model's, and those of its training, the headline model's first.
        shape: of an image, (C, H, W).
        classifies: whether it is examined; False for a generator of perturbations and the like.
        objective: the call that trained it, '' where that is not known.
        seed, epoch, step: of its training; None where it was imported.
        plugins: whose components these are, by distribution its version; none where all are actkit's own, or the file is older than this.
        imported: where it came from, if not from a training of ours.
        other: what else the file says.
    """

    role: str
    roles: tuple[str, ...]
    backbone: Spec
    num_classes: int
    classes: tuple[str, ...] = ()
    shape: tuple[int, int, int]
    data: Spec
    evaluation: tuple[Spec, ...]
    objective: str = ""
    seed: int | None
    epoch: int | None
    step: int | None
    classifies: bool = True
    versions: dict[str, Any] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    imported: ImportedFrom | None = None
    format: str = FORMAT
    other: dict[str, Any] = field(default_factory=dict)

    @property
    def is_headline(self) -> bool:
        return self.role == self.roles[0]

    @property
    def objective_name(self) -> str:
        """'act'; '' where it is not known."""
        return self.objective.partition("(")[0].removeprefix("objective.")

    @property
    def contract(self) -> str:
        """What the model takes and gives, in a line."""
        channels, height, width = self.shape
        inside = "no normalisation inside"
        if self.backbone.name == "normalized":
            mean, std = (self.backbone.kwargs.get(name) for name in ("mean", "std"))
            inside = f"normalised inside with mean {mean}, deviation {std}"
        names = ", ".join(self.classes if len(self.classes) <= 4 else (*self.classes[:3], "...", self.classes[-1]))
        return (
            f"images in [0,1], NCHW, {channels}x{height}x{width} (channels x height x width), {inside}; "
            f"{self.num_classes} classes: {names or 'without names'}"
        )

    def to_json(self) -> dict[str, Any]:
        made = {
            "format": self.format,
            "role": self.role,
            "roles": list(self.roles),
            "backbone": self.backbone.to_json(),
            "num_classes": self.num_classes,
            "classes": list(self.classes),
            "shape": list(self.shape),
            "data": self.data.to_json(),
            "evaluation": [spec.to_json() for spec in self.evaluation],
            "objective": self.objective,
            "seed": self.seed,
            "epoch": self.epoch,
            "step": self.step,
            "versions": self.versions,
        }
        imported = {} if self.imported is None else {"imported": self.imported.to_json()}
        plugins = {"plugins": self.plugins} if self.plugins else {}
        other_kind = {} if self.classifies else {"classifies": False}
        return {**made, **plugins, **imported, **other_kind, **self.other}

    def metadata(self) -> dict[str, str]:
        """As a safetensors file holds it."""
        return {"actkit": json.dumps(self.to_json())}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Header:
        """Raises `ValueError`, which says where and what, for what does not describe a model."""
        known = {f.name for f in dataclasses.fields(Header)} - {"other"}
        found = typed(Header, {key: value for key, value in data.items() if key in known})
        if found.format != FORMAT:
            raise ValueError(f"it has format {found.format}, this actkit reads {FORMAT}")
        found._assert_names()
        sizes = {"num_classes": found.num_classes, "shape": max(found.shape)}
        if found.num_classes < 1 or min(found.shape) < 1 or max(sizes.values()) > 1 << 20:
            raise ValueError(f"num_classes = {found.num_classes} and shape = {list(found.shape)}")
        if found.imported is None and None in (found.seed, found.epoch, found.step):
            raise ValueError("it says neither which seed, epoch and step it is of nor where it was imported from")
        return dataclasses.replace(found, other={key: value for key, value in data.items() if key not in known})

    def _assert_names(self) -> None:
        """What becomes part of a file's name must not lead elsewhere, and each Spec is of the kind that it stands for."""
        if self.role not in self.roles:
            raise ValueError(f"the role {self.role!r} is none of {', '.join(self.roles)}")
        for role in self.roles:
            assert_name(role, "the role")
        if self.objective_name:
            assert_name(self.objective_name, "the objective")
        for spec in self.evaluation:
            assert_name(spec.title.replace("-", "_"), "the label of a probe")
        specs = [("backbone", self.backbone), ("dataset", self.data), *(("probe", spec) for spec in self.evaluation)]
        for kind, spec in specs:
            if spec.kind != kind:
                raise ValueError(f"{spec.selector} should be a {kind}")


@contextlib.contextmanager
def opened(path: Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """A safetensors file; what goes wrong with it in one clear line."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(
            "there is no such checkpoint",
            where=str(path),
            help="give a run, a checkpoint directory or one .safetensors file",
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        foreign = path.suffix in (".pt", ".pth", ".ckpt", ".tar", ".bin")
        raise InputError(
            f"the checkpoint cannot be read: {error}",
            where=str(path),
            help="`actkit import` makes a checkpoint of PyTorch's files"
            if foreign
            else "it is cut short, altered or no safetensors file; use an earlier one",
        ) from error


def about(file: Any, path: Path) -> Any:
    """What an opened safetensors file says of itself, as JSON; None where it says nothing. Raises `InputError` for what is hostile."""
    text = (file.metadata() or {}).get("actkit", "null")
    if len(text) > _HEADER_LIMIT:
        raise InputError(
            f"its header has {len(text):,} characters", where=str(path), help="that is no checkpoint of actkit's"
        )
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError("its header nests without end", where=str(path), help="do not trust this file") from error


def header(path: Path) -> Header:
    """What a model file says of itself. Raises `InputError` when it is not one of actkit's, or was altered."""
    with opened(path, "np") as file:
        found = about(file, path)
    if not isinstance(found, dict) or not {"role", "roles", "backbone"} <= found.keys():
        raise InputError(
            "this safetensors file holds no description of its model",
            where=str(path),
            help="it was not written by actkit; `actkit import` takes other people's weights",
        )
    try:
        return Header.from_json(found)
    except ValueError as error:
        raise InputError(
            f"its description cannot be used: {error}", where=str(path), help="it was altered, or not written by actkit"
        ) from error

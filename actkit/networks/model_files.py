"""Model files: one safetensors file rebuilds a model, its data set and its evaluation. No pickle."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actkit.config.spec import Spec
from actkit.config.typed import assert_name, typed
from actkit.errors import InputError, nearest
from actkit.files import fsync, sha256, umask
from actkit.networks import class_names
from actkit.networks.building import initialise
from actkit.networks.roles import Role
from actkit.networks.shapes import open_shapes

FORMAT = "1"


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
        other_kind = {} if self.classifies else {"classifies": False}
        return {**made, **imported, **other_kind, **self.other}

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
        specs = [("backbone", self.backbone), ("dataset", self.data), *(("probe", spec) for spec in self.evaluation)]
        for kind, spec in specs:
            if spec.kind != kind:
                raise ValueError(f"{spec.selector} should be a {kind}")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, durably and readable by whom the umask allows."""
    # Cloned: safetensors refuses tensors that share memory, as tied weights do.
    cloned = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    try:
        save_file(cloned, path, metadata=metadata or {})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    # safetensors writes 0600.
    os.chmod(path, 0o666 & ~umask())
    fsync(path)


def best(folder: Path) -> Path | None:
    """The checkpoint that a validation split chose, if one did."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = folder / (folder / "best").read_text(encoding="utf-8").strip()
        return found if found.parent == folder and found.name.startswith("step-") and found.is_dir() else None
    return None


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True)


def problem(checkpoint: Path) -> str | None:
    """Why a checkpoint directory cannot be trusted, or None: every file is compared with the manifest."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"it has format {manifest['format']}, this actkit reads {FORMAT}"
        for name, expected in manifest["files"].items():
            size = (checkpoint / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size:,} bytes, not {expected['size']:,}"
            if sha256(checkpoint / name) != expected["sha256"]:
                return f"{name} was altered: its SHA-256 is not the manifest's"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({error})"
    return None


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a run's `checkpoints` folder, and a warning for each broken one passed over."""
    warnings: list[str] = []
    for checkpoint in newest_first(folder):
        wrong = problem(checkpoint)
        if wrong is None:
            return checkpoint, warnings
        warnings.append(f"{checkpoint}: {wrong}; going back to the one before")
    return None, warnings


def current(folder: Path) -> list[Path]:
    """The model files that `find` would give of a run, unchecked: for whoever compares them often."""
    where = best(folder / "checkpoints") or next(iter(newest_first(folder / "checkpoints")), None)
    return [p for p in sorted(where.glob("*.safetensors")) if p.name != "state.safetensors"] if where else []


def load_weights(role: Role, where: Path) -> None:
    """Put the weights of a model file into a role. Raises `InputError` when they are of another network."""
    _assert_of(role.model, where)
    role.model.load_state_dict(read(where)[0])


def _assert_of(network: nn.Module, where: Path) -> None:
    """Raise `InputError` unless the file's weights have this network's names and shapes; only the file's header is read."""
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    held = _shapes(where)
    for name, shape in own.items():
        if held.get(name, shape) != shape:
            raise InputError(f"{name} has shape {held[name]}, the model needs {shape}", where=str(where))
    if own.keys() != held.keys():
        differ = sorted(own.keys() ^ held.keys())
        raise InputError(
            f"the weights are of another network: {len(differ)} names differ, such as {differ[0]!r}", where=str(where)
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and actkit header of a safetensors file. Raises `InputError` when it is cut short, foreign or hostile."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get("actkit", "null")
        if len(text) > _HEADER_LIMIT:
            raise InputError(
                f"its header has {len(text):,} characters", where=str(path), help="that is no checkpoint of actkit's"
            )
        try:
            about = json.loads(text)
        except RecursionError as error:
            raise InputError("its header nests without end", where=str(path), help="do not trust this file") from error
        return ({k: file.get_tensor(k) for k in file.keys()} if tensors else {}), about  # noqa: SIM118


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; what goes wrong with it in one clear line."""
    try:
        with safe_open(path, framework="pt") as file:
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


# Trained models that come with actkit; nothing is written there.
EXAMPLES = Path(__file__).parents[1] / "examples"
_EXAMPLE = "example:"


def located(path: Path) -> Path:
    """The path itself, or, for 'example:NAME', where that model of actkit's own lies. Raises `InputError` for a name that is none."""
    if not str(path).startswith(_EXAMPLE):
        return path
    name = str(path).removeprefix(_EXAMPLE)
    known = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())
    if name not in known:
        raise InputError(f"there is no example {name!r}", help=nearest(name, known))
    return EXAMPLES / name


def find(path: Path) -> list[Path]:
    """The model files that `--ckpt PATH` means: of a run (its best checkpoint where one was chosen, else its newest), a folder of one run, a
    checkpoint, an export, one file, or an example ('example:act_digits')."""
    path = located(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(
            "there is no such checkpoint",
            where=str(path),
            help="give a run, a checkpoint directory or one .safetensors file",
        )
    runs = sorted(p.parent for p in path.glob("*/checkpoints") if p.is_dir())
    if len(runs) > 1:
        latest = max(runs, key=lambda run: (run / "checkpoints").stat().st_mtime)
        raise InputError(
            f"there are {len(runs)} runs here",
            where=str(path),
            help=f"choose one; the newest is {latest}, and `actkit report {path}` tells what they differ in",
        )
    path = runs[0] if runs else path
    checkpoint: Path | None = path
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        # An export.
        return [path / "model.safetensors"]
    if (path / "checkpoints").is_dir():
        checkpoint = best(path / "checkpoints")
        if checkpoint is None:
            checkpoint, warnings = newest(path / "checkpoints")
            # Another model than the one that is meant: not without a word.
            if checkpoint is not None and warnings:
                raise InputError(
                    "the run's newest checkpoint is damaged" + "".join(f"\n  {w}" for w in warnings),
                    where=str(path),
                    help=f"give the one before by its name: {checkpoint}",
                )
        if checkpoint is None:
            raise InputError("the run has no whole checkpoint" + "".join(f"\n  {w}" for w in warnings), where=str(path))
    assert checkpoint is not None
    if not (checkpoint / "manifest.json").is_file():
        raise _no_checkpoint(path)
    if wrong := problem(checkpoint):
        raise InputError(
            f"the checkpoint is damaged: {wrong}", where=str(checkpoint), help="use an earlier one of the same run"
        )
    return [p for p in sorted(checkpoint.glob("*.safetensors")) if p.name != "state.safetensors"]


def _no_checkpoint(path: Path) -> InputError:
    """What is said of a folder that is neither a run nor a checkpoint: what lies in it, and the nearest right path."""
    if (path / "config.json").is_file() and ((path / "metrics.jsonl").exists() or (path / "config.gin").exists()):
        return InputError(
            "this run is not finished, and has saved no checkpoint yet",
            where=str(path),
            help="the same `actkit run` goes on with it; run.save_every = 1 saves after each epoch",
        )
    said, help = "this is neither a run nor a checkpoint: it has no manifest.json", None
    # One or two folders further down: runs/<recipe>/<run>.
    runs = sorted(p.parent for depth in ("*", "*/*", "*/*/*") for p in path.glob(f"{depth}/checkpoints") if p.is_dir())
    with_models = [run for run in runs if current(run)]
    files = [p for p in sorted(path.glob("*.safetensors")) if p.name != "state.safetensors"]
    foreign = [p for p in sorted(path.iterdir()) if p.suffix in (".pt", ".pth", ".ckpt", ".bin")]
    if path.name == "checkpoints" and newest_first(path):
        help = f"give the run itself: {path.absolute().parent}"
    elif with_models:
        said += f"; {len(with_models)} run{'s lie' if len(with_models) > 1 else ' lies'} further down"
        latest = max(with_models, key=lambda run: (run / "checkpoints").stat().st_mtime)
        help = f"give one; the newest is {latest}"
    elif runs:
        said += "; the runs further down have saved no checkpoint yet"
        help = f"the same `actkit run` goes on with {runs[0]}"
    elif files:
        help = f"give one of its model files: {', '.join(map(str, files[:3]))}{', ...' if len(files) > 3 else ''}"
    elif foreign:
        help = f"`actkit import {foreign[0]} --arch NAME` makes a checkpoint of PyTorch's files"
    return InputError(
        said,
        where=str(path),
        help=help or "give a run, such as runs/<recipe>/<run>, a checkpoint directory in it, or one .safetensors file",
    )


def header(path: Path) -> Header:
    """What a model file says of itself. Raises `InputError` when it is not one of actkit's, or was altered."""
    found = read(path, tensors=False)[1]
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


def untrained(backbone: Spec) -> Spec:
    """The same backbone without fetching weights: the checkpoint has them."""
    kwargs = {k: untrained(v) if isinstance(v, Spec) else v for k, v in backbone.kwargs.items()}
    return Spec(backbone.kind, backbone.name, {k: False if k == "pretrained" else v for k, v in kwargs.items()})


def load_role(
    path: Path, *, device: torch.device | str = "cpu", order: Sequence[int] | None = None
) -> tuple[Role, Header]:
    """A model from its file alone, to be examined: in eval mode, fp32, without an optimizer. Gives its header too.

    Args:
        order: the classes in another order: output i is the file's output `order[i]`.

    Raises `InputError` for weights of another network.
    """
    about = header(path)
    backbone = untrained(about.backbone).build()
    size: dict[str, Any] = {
        "num_classes": about.num_classes,
        "in_chans": about.shape[0],
        "image_size": (about.shape[1], about.shape[2]),
    }
    # A header may claim any size: it is compared with what the file holds before memory is taken for it. A plugin's network may need real tensors.
    with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"):
        _assert_of(initialise(backbone, **size, seed=0), path)
    role = Role(about.role, initialise(backbone, **size, seed=0).to(device))
    load_weights(role, path)
    if order is not None:
        head = {n: d for n, d in open_shapes(backbone).of_classes().items() if n in role.model.state_dict()}
        role.model.load_state_dict(class_names.reordered(role.model.state_dict(), head, order))
    return role, about


def checkpoint_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in a run's folder."""
    found, _ = newest(folder / "checkpoints")
    return None if found is None else int(found.name.removeprefix("step-"))

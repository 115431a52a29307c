"""Model files: one safetensors file rebuilds a model, its data set and its evaluation. No pickle."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actkit.config.spec import Spec
from actkit.errors import InputError, nearest
from actkit.files import fsync, sha256, umask
from actkit.networks.roles import Role, initialise

FORMAT = "1"


_NEEDED = {
    "role",
    "roles",
    "backbone",
    "num_classes",
    "shape",
    "data",
    "evaluation",
    "seed",
    "epoch",
    "step",
}  # of a header


_HEADER_LIMIT = 1 << 20  # bytes of JSON; a real one has a few thousand


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, durably and readable by whom the umask allows."""
    # Cloned: safetensors refuses tensors that share memory, as tied weights do.
    cloned = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    try:
        save_file(cloned, path, metadata=metadata or {})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    os.chmod(path, 0o666 & ~umask())  # safetensors writes 0600
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
        return ({k: file.get_tensor(k) for k in file.keys()} if tensors else {}), json.loads(text)  # noqa: SIM118


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


EXAMPLES = Path(__file__).parents[1] / "examples"  # trained models that come with actkit; nothing is written there
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
        return [path / "model.safetensors"]  # an export
    if (path / "checkpoints").is_dir():
        checkpoint = best(path / "checkpoints")
        if checkpoint is None:
            checkpoint, warnings = newest(path / "checkpoints")
            if checkpoint is not None and warnings:  # another model than the one that is meant: not without a word
                raise InputError(
                    "the run's newest checkpoint is damaged" + "".join(f"\n  {w}" for w in warnings),
                    where=str(path),
                    help=f"give the one before by its name: {checkpoint}",
                )
        if checkpoint is None:
            raise InputError("the run has no whole checkpoint" + "".join(f"\n  {w}" for w in warnings), where=str(path))
    assert checkpoint is not None
    if not (checkpoint / "manifest.json").is_file():
        raise InputError(
            "this is neither a run nor a checkpoint: it has no manifest.json", where=str(path),
            help="give a run, such as runs/<recipe>/<run>, a checkpoint directory in it, or one .safetensors file",
        )  # fmt: skip
    if wrong := problem(checkpoint):
        raise InputError(
            f"the checkpoint is damaged: {wrong}", where=str(checkpoint), help="use an earlier one of the same run"
        )
    return [p for p in sorted(checkpoint.glob("*.safetensors")) if p.name != "state.safetensors"]


def header(path: Path) -> dict[str, Any]:
    """What a model file says of itself. Raises `InputError` when it is not one of actkit's."""
    found = read(path, tensors=False)[1]
    if not isinstance(found, dict) or _NEEDED - found.keys() or found["role"] not in found["roles"]:
        raise InputError(
            "this safetensors file holds no description of its model",
            where=str(path),
            help="it was not written by actkit; `actkit import` takes other people's weights",
        )
    shape = found["shape"]
    sizes = [found["num_classes"], *shape] if isinstance(shape, list) and len(shape) == 3 else []
    if not sizes or any(not isinstance(n, int) or not 1 <= n <= 1 << 20 for n in sizes):
        raise InputError(
            f"its description says num_classes = {found['num_classes']!r} and shape = {shape!r}", where=str(path),
            help="it was altered, or not written by actkit",
        )  # fmt: skip
    return found


def untrained(backbone: Spec) -> Spec:
    """The same backbone without fetching weights: the checkpoint has them."""
    kwargs = {k: untrained(v) if isinstance(v, Spec) else v for k, v in backbone.kwargs.items()}
    return Spec(backbone.kind, backbone.name, {k: False if k == "pretrained" else v for k, v in kwargs.items()})


def load_role(path: Path, *, device: torch.device | str = "cpu") -> tuple[Role, dict[str, Any]]:
    """A model from its file alone, to be examined: in eval mode, fp32, without an optimizer. Gives its header too."""
    about = header(path)
    backbone = untrained(Spec.from_json(about["backbone"])).build()
    size = {"num_classes": about["num_classes"], "in_chans": about["shape"][0]}
    # A header may claim any size: it is compared with what the file holds before memory is taken for it.
    with (
        contextlib.suppress(NotImplementedError, RuntimeError),
        torch.device("meta"),
    ):  # a plugin's may need real tensors
        _assert_of(initialise(backbone, **size, seed=0), path)
    role = Role(about["role"], initialise(backbone, **size, seed=0).to(device))
    load_weights(role, path)
    return role, about


def checkpoint_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in a run's folder."""
    found, _ = newest(folder / "checkpoints")
    return None if found is None else int(found.name.removeprefix("step-"))

"""Checkpoints: a directory of safetensors and JSON, whole or absent. No pickle, in or out.

step-00001200/
  robust.safetensors    weights; its header alone rebuilds the model, its data set and its evaluation
  state.safetensors     optimizers' and the objective's tensors
  state.json            everything else that training needs to go on
  manifest.json         size and SHA-256 of each file, written last
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actkit import __version__
from actkit.errors import ActkitError, InputError
from actkit.loop import Position
from actkit.roles import Role, initialise
from actkit.spec import BoundObjective, Spec

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


def versions() -> dict[str, str]:
    return {
        "actkit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


@functools.cache
def provenance() -> dict[str, Any]:
    """The versions, with the commit of actkit's checkout (None for an installed wheel) and the machine: what a result file says of its origin."""
    root, processor = Path(__file__).parent.parent, platform.processor()
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        processor = found[1] if found else processor
    commit = None
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(
                ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"], capture_output=True, text=True, timeout=30
            )  # fmt: skip
            commit = told.stdout.strip() or None
    return {
        **versions(), "commit": commit, "processor": f"{processor}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip


# -- writing -----------------------------------------------------------------------------------------------------------


def save(
    folder: Path,
    roles: Mapping[str, Role],
    headers: Mapping[str, dict[str, Any]],
    position: Position,
    objective: BoundObjective,
) -> Path:
    """Write `folder/step-N`. At every moment the folder holds only whole checkpoints: a temporary one is renamed at the end."""
    final = folder / _named(position.step)
    temporary = folder / f".tmp-{os.getpid()}-{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        _room(folder, roles)
        temporary.mkdir()
        for name, role in with_averages(roles).items():
            save_tensors(
                role.model.state_dict(), temporary / f"{name}.safetensors", {"actkit": json.dumps(headers[name])}
            )
        tensors: dict[str, Tensor] = {}
        state = _pack(
            {
                "position": asdict(position),
                "objective": objective.state_dict(),
                "roles": {
                    name: {
                        "optimizer": role.optimizer.state_dict() if role.optimizer else None,
                        "schedule": role.schedule.state_dict() if role.schedule else None,
                        "averaged": role.average.count if role.average else 0,
                    }
                    for name, role in roles.items()
                },
            },
            tensors,
            "state",
        )
        save_tensors(tensors, temporary / "state.safetensors")
        _write_json(temporary / "state.json", state)
        files = {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())}
        _write_json(
            temporary / "manifest.json",
            {"format": FORMAT, "step": position.step, "files": files, "versions": versions()},
        )
        _fsync(temporary)
        if final.exists():  # the same step again, after a resume: it holds the same
            shutil.rmtree(final)
        temporary.rename(final)
        _fsync(folder)
    except (OSError, SafetensorError) as error:
        raise ActkitError(
            f"the checkpoint could not be written: {error}",
            where=str(final),
            help="earlier checkpoints are as they were",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def with_averages(roles: Mapping[str, Role]) -> dict[str, Role]:
    """The roles, and after them the averaged models that they keep."""
    averaged = [role.averaged for role in roles.values()]
    return {**roles, **{role.name: role for role in averaged if role is not None}}


def _room(folder: Path, roles: Mapping[str, Role]) -> None:
    need = 2 * sum(
        t.numel() * t.element_size() for r in with_averages(roles).values() for t in r.model.state_dict().values()
    )
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ActkitError(
            f"a checkpoint needs about {need:,} bytes, {free:,} are free",
            where=str(folder),
            help="make room, or choose another --out",
        )


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, durably and readable by whom the umask allows."""
    # Cloned: safetensors refuses tensors that share memory, as tied weights do.
    cloned = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    try:
        save_file(cloned, path, metadata=metadata or {})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    os.chmod(path, 0o666 & ~umask())  # safetensors writes 0600
    _fsync(path)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest checkpoints and the best one."""
    for old in _newest_first(folder)[keep:]:
        if old != best(folder):
            shutil.rmtree(old)


def mark_best(folder: Path, step: int) -> None:
    """Say which checkpoint is the one to use, where it is not the newest."""
    temporary = folder / f".tmp-{os.getpid()}-best"
    temporary.write_text(f"{_named(step)}\n", encoding="utf-8")
    temporary.replace(folder / "best")


def best(folder: Path) -> Path | None:
    """The checkpoint that a validation split chose, if one did."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = folder / (folder / "best").read_text(encoding="utf-8").strip()
        return found if found.parent == folder and found.name.startswith("step-") and found.is_dir() else None
    return None


def has(folder: Path, step: int) -> bool:
    """Whether there is a checkpoint of this step."""
    return (folder / _named(step)).is_dir()


def _named(step: int) -> str:
    return f"step-{step:08d}"


def _sweep(folder: Path) -> None:
    """Remove what an interrupted writer left behind."""
    for left in folder.glob(".tmp-*-step-*"):
        shutil.rmtree(left, ignore_errors=True)


# -- reading -----------------------------------------------------------------------------------------------------------


def _newest_first(folder: Path) -> list[Path]:
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
    for checkpoint in _newest_first(folder):
        wrong = problem(checkpoint)
        if wrong is None:
            return checkpoint, warnings
        warnings.append(f"{checkpoint}: {wrong}; going back to the one before")
    return None, warnings


def current(folder: Path) -> list[Path]:
    """The model files that `find` would give of a run, unchecked: for whoever compares them often."""
    where = best(folder / "checkpoints") or next(iter(_newest_first(folder / "checkpoints")), None)
    return [p for p in sorted(where.glob("*.safetensors")) if p.name != "state.safetensors"] if where else []


def discard_after(found: Path) -> None:
    """Delete the broken checkpoints newer than the one that a run goes on from, so that they do not count when old ones are pruned."""
    for checkpoint in _newest_first(found.parent):
        if checkpoint.name > found.name:
            shutil.rmtree(checkpoint)
    _sweep(found.parent)


def restore(checkpoint: Path, roles: Mapping[str, Role], position: Position, objective: BoundObjective) -> None:
    """Put a training where it was: weights, optimizers, schedules, the objective's state and the position, in place."""
    tensors = read(checkpoint / "state.safetensors")[0]
    state = _unpack(json.loads((checkpoint / "state.json").read_text(encoding="utf-8")), tensors)
    for name, role in roles.items():
        load_weights(role, checkpoint / f"{name}.safetensors")
        saved = state["roles"][name]
        if role.optimizer is not None:
            role.optimizer.load_state_dict(saved["optimizer"])
        if role.schedule is not None:
            role.schedule.load_state_dict(saved["schedule"])
        if role.average is not None and saved["averaged"]:
            role.average.count = saved["averaged"]
            assert role.averaged is not None
            load_weights(role.averaged, checkpoint / f"{role.averaged.name}.safetensors")
    objective.load_state_dict(state["objective"])
    for key, value in state["position"].items():
        setattr(position, key, value)
    device = next(iter(roles.values())).device
    position.sums = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in position.sums.items()}


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


def find(path: Path) -> list[Path]:
    """The model files that `--ckpt PATH` means: of a run (its best checkpoint where one was chosen, else its newest), a folder of one run, a
    checkpoint, an export, or one file."""
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


# -- state that is not only tensors ------------------------------------------------------------------------------------


def _pack(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """As JSON, tensors moved aside under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"$tensor": path}
    if isinstance(value, dict):
        return {"$dict": [[k, _pack(v, tensors, f"{path}/{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {f"${type(value).__name__}": [_pack(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ActkitError(
        f"{path} is a {type(value).__name__}, which a checkpoint cannot hold",
        help="keep tensors, numbers, texts, lists and dicts in state_dict()",
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$dict":
        return {k: _unpack(v, tensors) for k, v in content}
    items = [_unpack(v, tensors) for v in content]
    return tuple(items) if kind == "$tuple" else items


# -- one run a folder --------------------------------------------------------------------------------------------------


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

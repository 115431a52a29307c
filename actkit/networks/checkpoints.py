"""Where a run's checkpoints lie, which is meant, and whether it is whole; no tensor is read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from actkit.errors import InputError, nearest
from actkit.files import sha256

FORMAT = "1"


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


def checkpoint_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in a run's folder."""
    found, _ = newest(folder / "checkpoints")
    return None if found is None else int(found.name.removeprefix("step-"))


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

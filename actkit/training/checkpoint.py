"""Checkpoints: a directory of safetensors and JSON, whole or absent. No pickle, in or out.

step-00001200/
  robust.safetensors    weights; its header alone rebuilds the model, its data set and its evaluation
  state.safetensors     optimizers' and the objective's tensors
  state.json            everything else that training needs to go on
  manifest.json         size and SHA-256 of each file, written last
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from actkit.config.spec import BoundObjective
from actkit.errors import ActkitError
from actkit.files import remove_temporary, sha256, write_json, write_text, writing
from actkit.machine import versions
from actkit.networks.model_files import FORMAT, Header, best, load_weights, newest_first, read, save_tensors, step_name
from actkit.networks.roles import Role, with_averages
from actkit.training.loop import Position

_STEPS = "step-*"


def is_due(epoch: int, *, every: int, last: bool, best: bool) -> bool:
    """Whether an epoch that has just ended is saved: each `every`-th is, the last of this process, and the best so far."""
    return last or best or epoch % every == 0


def save(
    folder: Path,
    roles: Mapping[str, Role],
    headers: Mapping[str, Header],
    position: Position,
    objective: BoundObjective,
) -> Path:
    """Write `folder/step-N`. At every moment the folder holds only whole checkpoints.

    Raises `ActkitError` where there is no room or the disk fails.
    """
    final = folder / step_name(position.step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary(folder, _STEPS)
        _assert_room(folder, roles)
        with writing(final, durable=True) as temporary:
            temporary.mkdir()
            for name, role in with_averages(roles).items():
                save_tensors(role.model.state_dict(), temporary / f"{name}.safetensors", headers[name].metadata())
            tensors: dict[str, Tensor] = {}
            state = _pack(_state(roles, position, objective), tensors, "state")
            save_tensors(tensors, temporary / "state.safetensors")
            write_json(temporary / "state.json", state, durable=True)
            files = {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())}
            manifest = {"format": FORMAT, "step": position.step, "files": files, "versions": versions()}
            write_json(temporary / "manifest.json", manifest, durable=True)
            # The same step again, after a resume: it holds the same.
            if final.exists():
                shutil.rmtree(final)
    except OSError as error:
        raise ActkitError(
            f"the checkpoint could not be written: {error}",
            where=str(final),
            help="earlier checkpoints are as they were",
        ) from error
    return final


def _state(roles: Mapping[str, Role], position: Position, objective: BoundObjective) -> dict[str, Any]:
    """What training needs to go on, besides the weights."""
    of_roles = {
        name: {
            "optimizer": role.optimizer.state_dict() if role.optimizer else None,
            "schedule": role.schedule.state_dict() if role.schedule else None,
            "averaged": role.average.count if role.average else 0,
        }
        for name, role in roles.items()
    }
    return {"position": asdict(position), "objective": objective.state_dict(), "roles": of_roles}


def _assert_room(folder: Path, roles: Mapping[str, Role]) -> None:
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


def prune(folder: Path, keep: int, *, also: int | None = None) -> None:
    """Delete all but the newest checkpoints, the best one, and that of the step `also`."""
    for old in newest_first(folder)[keep:]:
        if old != best(folder) and (also is None or old.name != step_name(also)):
            shutil.rmtree(old)


def mark_best(folder: Path, step: int) -> None:
    """Say which checkpoint is the best, and so the one to use; where none is marked, that is the newest."""
    write_text(folder / "best", f"{step_name(step)}\n")


def steps(folder: Path) -> set[int]:
    """The steps that there are checkpoints of."""
    return {int(checkpoint.name.removeprefix("step-")) for checkpoint in newest_first(folder)}


def discard_after(found: Path) -> None:
    """Delete the broken checkpoints newer than the one that a run goes on from, so that they do not count when old ones are pruned."""
    for checkpoint in newest_first(found.parent):
        if checkpoint.name > found.name:
            shutil.rmtree(checkpoint)
    remove_temporary(found.parent, _STEPS)


def restore(checkpoint: Path, roles: Mapping[str, Role], objective: BoundObjective) -> Position:
    """Put the roles and the objective where they were, in place: weights, optimizers, schedules, state. Gives the position of the training."""
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
    position = Position(**state["position"])
    device = next(iter(roles.values())).device
    position.sums = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in position.sums.items()}
    return position


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

"""Model files: one safetensors file rebuilds a model, its data set and its evaluation. No pickle.

What a file says of itself is read in `headers`, where a run's files lie in `checkpoints`, both without torch; their names stand here too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from actkit.config.plugins import assert_there
from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.files import fsync, umask
from actkit.networks import class_names
from actkit.networks.building import initialise
from actkit.networks.checkpoints import (
    EXAMPLES,
    FORMAT,
    best,
    checkpoint_step,
    current,
    find,
    located,
    newest,
    newest_first,
    problem,
    step_name,
)
from actkit.networks.headers import Header, ImportedFrom, about, header, opened
from actkit.networks.roles import Role
from actkit.networks.shapes import open_shapes

__all__ = [
    "EXAMPLES",
    "FORMAT",
    "Header",
    "ImportedFrom",
    "best",
    "checkpoint_step",
    "current",
    "find",
    "header",
    "load_role",
    "load_weights",
    "located",
    "newest",
    "newest_first",
    "problem",
    "read",
    "save_tensors",
    "step_name",
    "untrained",
]


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
    with opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and actkit header of a safetensors file. Raises `InputError` when it is cut short, foreign or hostile."""
    with opened(path) as file:
        said = about(file, path)
        return ({k: file.get_tensor(k) for k in file.keys()} if tensors else {}), said  # noqa: SIM118


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
    own = header(path)
    assert_there([own.backbone], own.plugins, where=str(path))
    backbone = untrained(own.backbone).build()
    size: dict[str, Any] = {
        "num_classes": own.num_classes,
        "in_chans": own.shape[0],
        "image_size": (own.shape[1], own.shape[2]),
    }
    # A header may claim any size: it is compared with what the file holds before memory is taken for it. A plugin's network may need real tensors.
    with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"):
        _assert_of(initialise(backbone, **size, seed=0), path)
    role = Role(own.role, initialise(backbone, **size, seed=0).to(device))
    load_weights(role, path)
    if order is not None:
        head = {n: d for n, d in open_shapes(backbone).of_classes().items() if n in role.model.state_dict()}
        role.model.load_state_dict(class_names.reordered(role.model.state_dict(), head, order))
    return role, own

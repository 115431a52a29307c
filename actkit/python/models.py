"""Models as they are handed in: a module, a role, a trained model from its file. Looking at one leaves it as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actkit.errors import InputError, first_line, nearest
from actkit.evaluation.run_files import run_of
from actkit.machine import pick_device
from actkit.networks import class_names, model_files
from actkit.networks.frozen import FrozenCopy
from actkit.networks.model_files import Header
from actkit.networks.roles import Role
from actkit.python.surroundings import load_plugins

# What one may hand in where a model is wanted.
AnyModel = nn.Module | Role


class LoadedModel(nn.Module):
    """A trained model from its file: `model(x)` gives logits (B, classes) in fp32 for images (B, C, H, W) in [0,1]. It comes in eval mode.

    Args:
        network: the torch module itself.
        header: what its file says of it: `role`, `backbone`, `classes`, `shape`, `data`, `objective`, `seed`, `epoch`, ...
        path: the file.
        name: what tables call it.
    """

    def __init__(self, network: nn.Module, header: Header, path: Path, name: str) -> None:
        super().__init__()
        self.network = network
        self.header, self.path, self.name = header, path, name

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def __repr__(self) -> str:
        return f"LoadedModel({self.name}: {self.header.backbone!r}; {self.header.contract})"


def load_model(
    source: str | Path | nn.Module, *, role: str | None = None, device: str | torch.device = "cpu"
) -> nn.Module:
    """A trained model, ready to be called on images in [0,1]: logits, in eval mode, its weights without gradients.

    Args:
        source: a run's folder (its headline model, of the best checkpoint where one was chosen), a checkpoint, an export, a .safetensors file of
            actkit's, 'example:act_digits'; a torch module passes through as it is.
        role: another model of the run: 'natural'.
        device: 'cpu', 'cuda:0', or 'auto' for the first GPU, else the CPU.

    Returns a `LoadedModel`, whose `header` says what it is. Raises `InputError` for a file that is none, and for a role that is not there.
    """
    if isinstance(source, nn.Module):
        return source
    load_plugins()
    path = Path(source)
    files = {file: model_files.header(file) for file in model_files.find(path)}
    wanted = [file for file, about in files.items() if (about.is_headline if role is None else about.role == role)]
    if not wanted and role is None:
        wanted = list(files)
    if not wanted:
        there = [about.role for about in files.values()]
        raise InputError(f"no model here has the role {role!r}", where=str(path), help=nearest(str(role), there))
    made, about = model_files.load_role(wanted[0], device=_device(device))
    return LoadedModel(made.model, about, wanted[0], _name_of(wanted[0], about)).eval()


def _name_of(file: Path, about: Header) -> str:
    """'act_digits' of example:act_digits and of runs/act_digits/seed0-1a2b3c4d, 'act_digits.natural' of another role, a file's own name elsewhere."""
    run = run_of(file)
    if run is None:
        name = file.parent.name if file.stem == "model" else file.stem
    else:
        name = _run_name(run) + ("" if about.is_headline else f".{about.role}")
    # It parts the models of a pair.
    return name.replace(">", "-")


def _run_name(run: Path) -> str:
    return run.parent.name if run.name.startswith("seed") and run.parent.name else run.name


def _device(device: str | torch.device) -> torch.device:
    return device if isinstance(device, torch.device) else pick_device(device)


def network_of(model: Any) -> nn.Module:
    """The network itself: what `torch.compile`, `DataParallel` and `LoadedModel` wrap. Raises `InputError` for what is no model."""
    if isinstance(model, Role):
        return model.model
    if not isinstance(model, nn.Module):
        what = "a class: make an instance of it" if isinstance(model, type) else f"a {type(model).__name__}"
        raise InputError(
            f"a model is a torch.nn.Module, this is {what}",
            help="actkit.load_model(path) gives one of a file; wrap a function in a module whose forward calls it",
        )
    if isinstance(model, LoadedModel):
        return network_of(model.network)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return network_of(model.module)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "a TorchScript module cannot be looked through without touching it",
            help="hand in the module that it was made of",
        )
    compiled = getattr(model, "_orig_mod", None)
    return network_of(compiled) if isinstance(compiled, nn.Module) else model


def as_role(model: AnyModel, name: str = "model", device: str | torch.device | None = None) -> Role:
    """A model as attacks and probes want it. Nothing of the caller's is touched: neither mode, gradients, buffers, hooks nor memory layout.

    It is a copy as of now, in eval mode, that shares the weights' memory, but for those of convolutions, which it holds channels-last: so the same
    weights give the same numbers as in `actkit probe`. Running statistics are its own.

    Raises `InputError` for what is no model, for weights that are no fp32, and for a network that cannot be copied.
    """
    if isinstance(model, Role) and (device is None or model.device == _device(device)):
        return model
    network = network_of(model)
    other = next((p.dtype for p in network.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if other is not None:
        raise InputError(
            f"{name}: its weights are {str(other).removeprefix('torch.')}, and attacks are computed in fp32",
            help="hand in copy.deepcopy(model).float()",
        )
    lazy = [n for n, p in network.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise InputError(
            f"{name} has lazy layers ({', '.join(lazy[:3])}) that have seen no data", help="call it on a batch first"
        )
    # In 'train' mode a frozen copy has buffers of its own; the role puts it into eval mode.
    with torch.inference_mode(False):
        copied = FrozenCopy(network, "train", "fp32").current()
        if device is not None:
            copied = copied.to(_device(device))
        return Role(name, copied)


def named_models(models: Any) -> dict[str, AnyModel]:
    """Models by the names that tables call them: as they were handed in, or what their file is called, or 'model'. Raises `InputError` for names that are none."""
    if not isinstance(models, Mapping):
        named = getattr(models, "name", None) if isinstance(models, (LoadedModel, Role)) else None
        return {named or "model": models}
    if not models:
        raise InputError("there is no model to look at: the dict is empty")
    for name in models:
        if not isinstance(name, str) or not name or ">" in name:
            raise InputError(f"a model's name is a text without '>', got {name!r}")
    return dict(models)


def classes_of(role: Role, shape: tuple[int, ...]) -> int:
    """How many classes a model tells apart, found by showing it one image (C, H, W). Raises `InputError`, in one line, where it does not take it."""
    kind = type(role.model).__name__
    size = "x".join(map(str, shape))
    try:
        with role.frozen("eval") as view, torch.no_grad():
            logits = view(torch.full((1, *shape), 0.5, device=role.device))
    except InputError:
        raise
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, AttributeError) as error:
        raise InputError(f"{role.name} ({kind}) does not take images of {size}: {first_line(error)}") from error
    if logits.dim() != 2 or len(logits) != 1:
        raise InputError(
            f"{role.name} ({kind}) gives {tuple(logits.shape)} for 1 image of {size}; logits of shape (1, classes) are wanted"
        )
    return int(logits.shape[1])


def assert_same_classes(name: str, model: AnyModel, classes: tuple[str, ...], data: str) -> None:
    """Raise `InputError` where a file says other classes than the data, or another order."""
    if isinstance(model, LoadedModel):
        help = "reorder the labels, or hand in tensors, whose classes have no names"
        class_names.order(model.header.classes, classes, None, who=(name, data), where=str(model.path), help=help)

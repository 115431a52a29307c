"""First weights: a role that starts from a model file, for the same classes, for the same in another order, or for others."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from actkit.config.reader import read_setting
from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks import class_names, model_files
from actkit.networks.roles import Role
from actkit.networks.shapes import open_shapes


def start_from(
    role: Role, where: Path, backbone: Any, classes: Sequence[str], mapping: class_names.Mapping | Literal["new"] | None
) -> list[str]:
    """Put the weights of a model file into a role that is for data of its own. What is to be said of it, in lines.

    Where the numbers of classes differ, or with 'new', the last layer stays as it is, random.

    Args:
        backbone: the role's, built.
        classes: names of the data's classes.
        mapping: how the file's classes belong to them, where they are called differently.

    Raises `InputError` for weights of another network, and for classes of other names or in another order where no mapping is given.
    """
    own, (weights, found) = role.model.state_dict(), model_files.read(where)
    about = model_files.header(where) if isinstance(found, dict) and "num_classes" in found else None
    numbers = None
    if mapping != "new" and about is not None and about.num_classes == len(classes):
        help = "role.classes = 'by_name' or 'by_number' says how they belong together, 'new' begins the last layer anew"
        who = ("the file", "the data")
        numbers = class_names.order(about.classes, classes, mapping, who=who, where=str(where), help=help)
    other = {name for name, value in weights.items() if name in own and value.shape != own[name].shape}
    if not other and mapping != "new" and numbers is None:
        _load(role, where, about)
        return []
    # The same network, without fetching its weights again.
    backbone = model_files.untrained(backbone.spec).build()
    head = {name: dim for name, dim in open_shapes(backbone).of_classes().items() if name in own}
    if numbers is not None:
        _load(role, where, about)
        role.model.load_state_dict(class_names.reordered(weights, head, numbers))
        return [f"the classes of {where.name} are put into the data's order, by name"]
    if not other <= head.keys() or not head:
        _load(role, where, about)
        return []
    return _without_head(role, where, weights, head, about)


def _without_head(
    role: Role, where: Path, weights: Mapping[str, Tensor], head: Mapping[str, int], about: model_files.Header | None
) -> list[str]:
    """Put all but the last layer in, and say so. Raises `InputError` where that layer would never be trained."""
    if not role.trained:
        raise InputError(
            f"{role.name} is not trained, and the last layer of these weights is not for its classes", where=str(where)
        )
    body = {name: value for name, value in weights.items() if name not in head}
    own = role.model.state_dict()
    if (own.keys() - head.keys()) ^ body.keys():
        _load(role, where, about)
    role.model.load_state_dict({**own, **body})
    held = f"the file's is for {about.num_classes} classes" if about is not None else "the file's is another"
    return [f"the last layer ({', '.join(head)}) begins anew, all else is from {where.name}: {held}"]


def _load(role: Role, where: Path, about: model_files.Header | None) -> None:
    """Put all of the weights in. Raises `InputError` when they are of another network, and says which settings make the role's that one."""
    try:
        model_files.load_weights(role, where)
    except InputError as error:
        if about is None or error.help is not None:
            raise
        made = f"the file's is {about.backbone!r}: {options_of(about.backbone)}"
        raise InputError(error.message, where=error.where, help=made) from error


def settings_of(backbone: Spec) -> list[str]:
    """What makes a recipe's network this one: KEY=VALUE each."""
    made = [f"role.backbone=@{backbone.selector}()"]
    waiting = [backbone]
    for spec in waiting:
        for name, value in spec.kwargs.items():
            if isinstance(value, Spec):
                waiting.append(value)
                made.append(f"{spec.selector}.{name}=@{value.selector}()")
            else:
                made.append(_setting(f"{spec.selector}.{name}", value))
    return made


def _setting(key: str, value: Any) -> str:
    """KEY=VALUE, in quotation marks only what would be read as something else: those of a shell come around it."""
    if not isinstance(value, str):
        return f"{key}={value!r}"
    bare = f"{key}={value}"
    try:
        return bare if read_setting(bare).value == value else f"{key}={json.dumps(value)}"
    except InputError:
        return f"{key}={json.dumps(value)}"


def options_of(backbone: Spec, between: str = " ") -> str:
    """The same as options of `actkit run`."""
    return between.join(f"-s {shlex.quote(setting)}" for setting in settings_of(backbone))

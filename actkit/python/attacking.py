"""`actkit.attack`: the registered attacks, plugins' included, as functions of a model and images."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from actkit.attacks import Goal, Rows, threat
from actkit.attacks.goals import LOSSES
from actkit.config import registry
from actkit.config.registry import Entry
from actkit.config.spec import Spec
from actkit.errors import ActkitError, InputError, nearest
from actkit.evaluation.threat import too_short
from actkit.losses import kl_from, targeted_dlr
from actkit.noise import Noise
from actkit.python.data import as_images, as_labels
from actkit.python.models import AnyModel, as_role, classes_of
from actkit.python.surroundings import load_plugins, private

# (logits (B, classes), labels (B,)) -> one value for each image.
LossFunction = Callable[[Tensor, Tensor], Tensor]
View = Callable[[Tensor], Tensor]

# Losses by name: those of the probes, and the divergence from the unattacked prediction (TRADES).
LOSS_NAMES = (*LOSSES, "targeted_dlr", "kl")


class AttackFunction:
    """A registered attack as a function of a model and images: `actkit.attack.pgd(model, x, y, eps=8/255, step_size=2/255, steps=20)`."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.__name__, self.__doc__ = entry.name, _doc(entry)
        self.__signature__ = _signature(entry)

    def __repr__(self) -> str:
        return f"actkit.attack.{self._entry.name}{self.__signature__}"

    def __call__(
        self,
        model: AnyModel,
        x: Any,
        y: Any = None,
        *,
        eps: float | str,
        norm: str | None = None,
        loss: str | LossFunction = "cross_entropy",
        target: Any = None,
        goal: Goal | None = None,
        seed: int = 0,
        early_stopping: bool = True,
        batch_size: int = 256,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> Tensor:
        """x_adv, of the shape of x, fp32, on the device of x, within eps of x and within [0,1]. The model is left as it was.

        Args:
            model: a torch module whose logits are wanted for x in [0,1], in whatever mode and memory layout; a role; a loaded model.
            x: images (B, C, H, W), floating in [0,1] or uint8.
            y: classes (B,); by default what the model predicts.
            eps: the budget in [0,1] pixels: 8/255, or '8/255'. norm: 'linf' (by default) or 'l2', where the attack knows it.
            loss: what the attack raises: 'cross_entropy', 'margin', 'dlr', 'targeted_dlr' (with target), 'kl' (from the unattacked prediction), or a
                function of (logits, y) that gives one value an image.
            target: the class, one or (B,), that the attacker wants: the loss of it is lowered, and who predicts it is won.
            goal: instead of y, loss and target: goal(x, rows) -> (values, fooled), as attacks themselves see it (docs/plugins.md).
            seed: of the random start; image i gets the same whatever the batch size.
            early_stopping: whether an image that is won stays there. Without it, the last iterate.
            settings: the attack's own: `actkit.attack.pgd?`, or `actkit list attack pgd`, names them.

        Raises `InputError` for what cannot be used, `ActkitError` for a model that gives NaN and an attack that leaves its ball.
        """
        given = {"eps": eps, **({} if norm is None else {"norm": norm}), **settings}
        built = self._built(given)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        role = as_role(model, device=device)
        with private(seed, role.device), role.frozen("eval", precision="fp32") as view:
            images = as_images(x, role.device)
            where = x.device if isinstance(x, Tensor) else torch.device("cpu")
            if not len(images):
                return images.to(where)
            if goal is not None:
                _assert_goal_alone(y, loss, target)
                return _attacked(built, goal, images, torch.arange(len(images)), seed).to(where)
            classes = classes_of(role, tuple(images.shape[1:]))
            wanted = None if target is None else as_labels(target, len(images), classes, "targets").to(role.device)
            labels = None if y is None else as_labels(y, len(images), classes).to(role.device)
            parts = []
            for places in torch.arange(len(images)).split(batch_size):
                some, rows = images[places], places.to(role.device)
                own = _predicted(view, some) if labels is None else labels[rows]
                towards = None if wanted is None else wanted[rows]
                made = goal_of(view, some, own, loss, towards, tells=early_stopping)
                parts.append(_attacked(built, made, some, places, seed))
            return torch.cat(parts).to(where)

    def _built(self, given: dict[str, Any]) -> Any:
        entry = self._entry
        for name in given:
            entry.assert_parameter(name)
        missing = [p.name for p in entry.parameters.values() if p.required and p.name not in given]
        if missing:
            example = {"step_size": "step_size=eps/4", "steps": "steps=20"}
            raise InputError(
                f"actkit.attack.{entry.name} needs {' and '.join(missing)}",
                help="give " + ", ".join(example.get(name, f"{name}=...") for name in missing),
            )
        spec = Spec("attack", entry.name, given)
        built = spec.build()
        for said in too_short(spec):
            warnings.warn(f"actkit.attack.{said}", stacklevel=3)
        return built


def _attacked(attack: Any, goal: Goal, x: Tensor, places: Tensor, seed: int) -> Tensor:
    """The attack on one batch. Its random numbers are those of a probe's first start, image for image."""
    x_adv: Tensor = attack(goal, x, noise=Noise(places.to(x.device), seed, 0))
    x_adv = x_adv.detach()
    if not threat(attack).allows(x_adv, x).all():
        raise ActkitError(f"the attack left [0,1] or its ball ({threat(attack)}), or the model gives NaN")
    return x_adv


def _predicted(view: View, x: Tensor) -> Tensor:
    with torch.no_grad():
        return view(x).argmax(1)


def goal_of(
    view: View, x: Tensor, y: Tensor, loss: str | LossFunction, target: Tensor | None, *, tells: bool = True
) -> Goal:
    """What the attacker wants of a batch: raise the loss of y, won where the prediction is another; with a target lower the loss of that, won where it is
    predicted. Raises `InputError` for a loss that is none, and for one that does not give one value an image."""
    value = _value_of(view, x, y, loss, target)

    def goal(x_adv: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
        logits = view(x_adv)
        values = value(logits, rows)
        if not isinstance(values, Tensor) or values.shape != (len(logits),):
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"the loss gives {got} for {len(logits)} images; one value for each is wanted", help="reduction='none'"
            )
        if values.detach().isnan().any():
            raise ActkitError("the loss gives NaN; such an attack would stand still and the model look robust")
        won = logits.argmax(1) != y[rows] if target is None else logits.argmax(1) == target[rows]
        return values, won if tells else None

    return goal


def _value_of(
    view: View, x: Tensor, y: Tensor, loss: str | LossFunction, target: Tensor | None
) -> Callable[[Tensor, Rows], Tensor]:
    """The value that an attack raises, from the logits of some rows."""
    if isinstance(loss, str) and loss not in LOSS_NAMES:
        raise InputError(f"there is no loss {loss!r}", help=nearest(loss, LOSS_NAMES))
    if loss == "targeted_dlr":
        if target is None:
            raise InputError("the loss 'targeted_dlr' needs a target", help="target=3, or one class an image")
        return lambda logits, rows: targeted_dlr(logits, y[rows], target[rows])
    if loss == "kl":
        if target is not None:
            raise InputError("the loss 'kl' moves away from the unattacked prediction and knows no target")
        with torch.no_grad():
            clean = view(x)
        return lambda logits, rows: kl_from(logits, clean[rows])
    function: LossFunction = LOSSES[loss] if isinstance(loss, str) else loss
    if target is not None:
        return lambda logits, rows: -function(logits, target[rows])
    return lambda logits, rows: function(logits, y[rows])


def _assert_goal_alone(y: Any, loss: Any, target: Any) -> None:
    if y is not None or target is not None or loss != "cross_entropy":
        raise InputError("a goal says all that the attacker wants: leave y, loss and target out beside goal=")


def _doc(entry: Entry) -> str:
    own = inspect.getdoc(entry.target) or ""
    return f"{own}\n\nAs a function of a model:\n\n{inspect.cleandoc(AttackFunction.__call__.__doc__ or '')}"


def _signature(entry: Entry) -> inspect.Signature:
    """What editors and `help` show: the call's own parameters, then the attack's."""
    common = [
        p
        for name, p in inspect.signature(AttackFunction.__call__).parameters.items()
        if name not in ("self", "settings")
    ]
    if "norm" not in entry.parameters:
        common = [p for p in common if p.name != "norm"]
    named = {p.name for p in common}
    own = [
        inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=p.default, annotation=p.annotation)
        for p in entry.parameters.values()
        if p.name not in named
    ]
    return inspect.Signature([*common, *own], return_annotation=Tensor)


class Attacks:
    """The attacks by name: `actkit.attack.pgd`. `dir(actkit.attack)` lists them."""

    def __getattr__(self, name: str) -> AttackFunction:
        if name.startswith("_"):
            raise AttributeError(name)
        load_plugins()
        known = {entry.name: entry for entry in registry.entries("attack")}
        if name not in known:
            hint = nearest(name, known)
            raise AttributeError(f"there is no attack {name!r}" + (f"; {hint}" if hint else ""))
        return AttackFunction(known[name])

    def __dir__(self) -> list[str]:
        load_plugins()
        return [entry.name for entry in registry.entries("attack")]

    def __repr__(self) -> str:
        return f"actkit.attack: {', '.join(dir(self))}"


attack = Attacks()

"""Goals: what an attacker wants, as a function of the perturbed images alone."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from actkit.errors import InputError
from actkit.losses import cross_entropy, dlr, margin, targeted_dlr
from actkit.noise import seed_for

# Examples of a batch: an index tensor, or all of them.
Rows = Tensor | slice


class Goal(Protocol):
    """What an attacker wants, as a function of the perturbed images alone: `goal(x, rows) -> value, fooled`.

    Args:
        x: images in [0,1] of the examples `rows`, shape (B, C, H, W).
        rows: which examples of the whole batch these are: an index tensor of shape (B,), or a slice; slice(None) is all of them.

    Returns `value`, shape (B,), which the attacker raises, and `fooled`, shape (B,) bool, whether the attacker has won there; None in training, where
    nobody asks. Behind it stands a frozen view of a model, in the mode that the objective or the probe chose: what an attack does with it leaves no trace.
    `ascend` takes its gradient; `away_from` and `untargeted` make the usual ones.
    """

    def __call__(self, x: Tensor, rows: Rows, /) -> tuple[Tensor, Tensor | None]: ...


Loss = Literal["cross_entropy", "margin", "dlr", "targeted_dlr"]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
# Those that compare more classes than two.
CLASSES_NEEDED = {"dlr": 3, "targeted_dlr": 4}
# As the literature abbreviates them.
LOSS_TITLES = {"cross_entropy": "CE", "margin": "margin", "dlr": "DLR", "targeted_dlr": "T"}


def with_loss(title: str, loss: str) -> str:
    """An attack's title with the loss that it raises, where that is not the usual one: 'PGD-20 (margin)'."""
    return title if loss == "cross_entropy" else f"{title} ({LOSS_TITLES[loss]})"


class NoGradient(InputError):
    """The value of a goal does not depend on the images in a way that can be differentiated."""


def untargeted(model: Callable[[Tensor], Tensor], y: Tensor, *, loss: str = "cross_entropy") -> Goal:
    """The goal of an examination: raise the loss of the label; won where the prediction is not y.

    Args:
        model: gives logits (B, classes) for images in [0,1]: a role's `frozen()` view.
        y: labels of the whole batch, (B,) int64.
        loss: 'cross_entropy', 'margin' or 'dlr'.
    """
    value = LOSSES[loss]

    def goal(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return value(logits, y[rows]), logits.argmax(1) != y[rows]

    return goal


def targeted(model: Callable[[Tensor], Tensor], y: Tensor, target: Tensor) -> Goal:
    """Raise the targeted DLR loss towards the class `target` (B,); won where the prediction is not y, whichever it is."""

    def goal(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return targeted_dlr(logits, y[rows], target[rows]), logits.argmax(1) != y[rows]

    return goal


def away_from(model: Callable[[Tensor], Tensor], loss: Callable[..., Tensor], *targets: Tensor) -> Goal:
    """The goal of training: raise `loss(logits, *targets)`; nobody asks who has won. `model` gives the logits: a role's `frozen()` view.

    The targets belong to the whole batch, (B, ...) each. The goal gives the loss those of the examples that the attack asks about:
    `away_from(g, cross_entropy, y)`, or for eq. 1 of ACT `away_from(g, partial(mimicry, alpha=alpha), y, natural_logits)`.

    Raises `InputError` for a loss of two arguments without targets, which is how a goal was written before it sliced its targets itself.
    """
    if not targets:
        _refuse_loss_of_rows(loss)

    def goal(x: Tensor, rows: Rows) -> tuple[Tensor, None]:
        return loss(model(x), *(target[rows] for target in targets)), None

    return goal


def expectation(goal: Goal, draws: int, *, seed: int = 0) -> Goal:
    """Expectation over transformation (Athalye et al. 2018): the goal of a model that answers at random, averaged over so many answers.

    Value and gradient are the means over `draws` calls of `goal`; won is where more than half of them have won; None where it does not tell. It costs as
    many forward and backward passes. What the model draws comes from torch's global generator, which is forked for it: each draw has its own seed, made of
    `seed`, the number of the call and that of the draw, and the generator is afterwards what it was. So the same attack finds the same again, but the
    draws of an image depend on its batch: whoever draws for a whole batch at once draws so.

    Raises `InputError` for fewer draws than 1.
    """
    if draws < 1:
        raise InputError(f"an expectation needs at least 1 draw, got {draws}")
    calls = itertools.count()

    def averaged(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
        call, values, wins = next(calls), [], []
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            for draw in range(draws):
                torch.manual_seed(seed_for(seed, call, draw))
                value, fooled = goal(x, rows)
                values.append(value)
                wins.append(fooled)
        told = [fooled for fooled in wins if fooled is not None]
        return torch.stack(values).mean(0), 2 * torch.stack(told).sum(0) > draws if told else None

    return averaged


def _refuse_loss_of_rows(loss: Callable[..., Tensor]) -> None:
    """Raises `InputError` where a loss needs more than the logits, and no target is there to give it."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except ValueError:
        # Some functions written in C have no signature: the call itself will tell.
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in positional if p.default is p.empty]
    if len(needed) > 1:
        raise InputError(
            f"away_from(model, loss) has no targets to give a loss of ({', '.join(needed)}); it slices the rows of its targets itself now",
            help="write away_from(model, cross_entropy, y), not away_from(model, lambda logits, rows: cross_entropy(logits, y[rows]))",
        )


def ascend(goal: Goal, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None, Tensor]:
    """A step of every gradient attack: the goal's value at x, whether it is reached, and the gradient of the value with respect to x; all detached.

    Args:
        x: images in [0,1] of the examples `rows`, shape (B, C, H, W).
        rows: which examples of the batch these are, as the goal takes them.

    Returns `value` (B,), `fooled` (B,) bool or None, and `gradient` of x's shape: each example's own, since no value depends on another's image.
    Raises `InputError` where the model's outputs have no gradient with respect to the images.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value, fooled = goal(x, rows)
        # A model's weights may have a gradient where its input has none.
        gradient = torch.autograd.grad(value.sum(), x, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise NoGradient(
            "the model's outputs have no gradient with respect to the images",
            help="a gradient attack cannot work here; attack.square needs none",
        )
    return value.detach(), fooled, gradient


class ActiveSet:
    """The examples that an attack still works on. Who is fooled stays there, and leaves when enough of them are for a smaller batch to pay."""

    # The share of the batch that must be fooled before it is made smaller.
    MIN_DROPPED = 1 / 8

    def __init__(self, x_adv: Tensor) -> None:
        self.rows: Rows = slice(None)
        self._results = x_adv

    def drop(self, fooled: Tensor | None, x_adv: Tensor) -> Tensor | None:
        """Which of the examples to go on with (an index into the present ones), or None for all of them."""
        if fooled is None:
            return None
        left = (~fooled).nonzero()[:, 0]
        if len(left) > (1 - self.MIN_DROPPED) * len(fooled):
            return None
        if isinstance(self.rows, slice):
            self.rows, self._results = torch.arange(len(fooled), device=fooled.device), self._results.clone()
        self._results[self.rows] = x_adv
        self.rows = self.rows[left]
        return left

    def results(self, x_adv: Tensor) -> Tensor:
        """All examples' results, `x_adv` being those of the present ones."""
        if isinstance(self.rows, slice):
            return x_adv
        self._results[self.rows] = x_adv
        return self._results

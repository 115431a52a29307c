"""What an examination costs: every forward and backward pass that it makes, counted on one made-up image; and an estimate of the time, also of what is left."""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from actkit.config.spec import Spec
from actkit.datasets import Data, Split, random_batch
from actkit.display import Expected, duration, piece_of
from actkit.errors import ActkitError
from actkit.networks.roles import Role
from actkit.probes import Progress, measure


@dataclass(frozen=True)
class Pass:
    """One way that a model is used. A unit is a forward pass; an input gradient costs 1 more, a full backward pass 2 more.

    Args:
        mode: of BatchNorm and dropout, 'train' or 'eval'.
        weights: 'live' or 'frozen'.
        direction: 'forward' or 'backward'.
    """

    role: str
    mode: str
    weights: str
    direction: str

    @property
    def units(self) -> int:
        return 2 if self.direction == "backward" and self.weights == "live" else 1


def units_of(passes: Mapping[Pass, int]) -> int:
    return sum(p.units * n for p, n in passes.items())


def units_by_role(passes: Mapping[Pass, int]) -> Counter[str]:
    """The units that each model goes through."""
    found = Counter[str]()
    for one, number in passes.items():
        found[one.role] += one.units * number
    return found


@dataclass(frozen=True)
class Speed:
    """How long a model takes for one image, in seconds: a forward pass alone, and one with the gradient of the image."""

    forward: float
    with_gradient: float


@dataclass(frozen=True)
class WorkCost:
    """What one piece of an examination costs at most: such as one run of an attack on all examples.

    Args:
        name: what its parts are kept under: 'robust.pgd20/0/0', whose batches are 'robust.pgd20/0/0/0' and so on.
        passes: those that one example takes.
        parts: how many parts a batch takes.
        images, batches: how many there are.
    """

    name: str
    passes: Mapping[Pass, int]
    parts: int
    images: int
    batches: int

    @property
    def units(self) -> int:
        """Of all images."""
        return units_of(self.passes) * self.images

    def seconds(self, speeds: Mapping[str, Speed]) -> float:
        """At these speeds, by role."""
        found = 0.0
        for role, speed in speeds.items():
            forward, backward = (
                sum(n for p, n in self.passes.items() if (p.role, p.direction) == (role, way))
                for way in ("forward", "backward")
            )
            found += backward * speed.with_gradient + max(forward - backward, 0) * speed.forward
        return found * self.images


@dataclass(frozen=True)
class ExaminationCost:
    """What an evaluation costs, at most, in the order in which it is done."""

    work: tuple[WorkCost, ...]

    @property
    def passes(self) -> Counter[Pass]:
        """Those that one example takes through every probe."""
        every = Counter[Pass]()
        for piece in self.work:
            every.update(piece.passes)
        return every

    @property
    def units(self) -> int:
        """Of all examples."""
        return sum(piece.units for piece in self.work)

    @property
    def by_role(self) -> Counter[str]:
        """The units of all examples, by the model that goes through them."""
        found = Counter[str]()
        for piece in self.work:
            found.update({role: n * piece.images for role, n in units_by_role(piece.passes).items()})
        return found

    @property
    def parts(self) -> int:
        return sum(piece.parts * piece.batches for piece in self.work)


# -- counting ------------------------------------------------------------------------------------------------------------


def examination_of(probes: Sequence[Any], data: Data, roles: Sequence[str]) -> ExaminationCost:
    """Count what built probes do with models of these names, by a stand-in for the models."""
    work = []
    for probe in probes:
        counted = _work_on_an_example(probe.spec, data.name, data.shape, data.classes, tuple(data.sizes), tuple(roles))
        # A gallery calls it by another name.
        limit = probe.spec.get("limit") or probe.spec.get("count")
        size = data.sizes.get(probe.spec.get("split", "test"), 0)
        images = min(limit or size, size)
        batches = -(-images // max(int(probe.spec.get("batch_size") or images or 1), 1))
        work += [WorkCost(name, passes, parts, images, batches) for name, (passes, parts) in counted.items()]
    return ExaminationCost(tuple(work))


# The hyper-parameters in which the number of passes is linear, and how large they are while passes are counted; what is beyond is reckoned.
_LINEAR, _FEW = ("steps", "queries", "epochs"), 4
# The setting of a probe that searches for a smallest perturbation: what it finds at the last of its tries costs it as many again.
_SEARCHES = "tries"

# By what the parts of a piece of work are kept under: its passes, and how many parts it has.
_Work = Mapping[str, tuple[Mapping[Pass, int], int]]


@functools.cache
def _work_on_an_example(
    probe: Spec,
    name: str,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    splits: tuple[str, ...],
    roles: tuple[str, ...],
) -> _Work:
    """The passes and the parts of each piece of work, by what these are kept under. An attack of 1,000 steps is counted at 4 and at 8."""

    def read(split: str) -> Split:
        x, y = random_batch(data, 1)
        # Of the first class, which a probe of some classes looks at too.
        y.zero_()
        return Split(x, y)

    def looked(spec: Spec, fooled_at: int | None = None) -> _Work:
        with ExitStack() as hooks:
            if fooled_at is not None:
                hook = _fooled_at(fooled_at)
                for role in stand_ins.values():
                    hooks.callback(role.model.register_forward_hook(hook).remove)
            with counting(stand_ins) as passes:
                work = _Attribution(passes, probe.title)
                measure([spec.build()], stand_ins, data, Progress(work.kept, done=work.done))
        return work.made()

    def counted(spec: Spec) -> _Work:
        unbroken = looked(spec)
        if _SEARCHES not in probe.entry.parameters:
            return unbroken
        last = sum(n for passes, _ in unbroken.values() for way, n in passes.items() if way.direction == "forward")
        # Its own last look, which a few others follow.
        late = [looked(spec, look) for look in range(max(last - 4, 1), last + 1)]
        return max(late, key=lambda work: sum(units_of(passes) for passes, _ in work.values()))

    data = Data(name, shape, classes, dict.fromkeys(splits, 1), read)
    long = [(path, value) for path, value in _settings(probe) if value > 2 * _FEW]
    short = functools.reduce(lambda spec, setting: _with(spec, setting[0], _FEW), long, probe)
    # The stand-ins' own weights are drawn from the global generator, which stays as it was.
    with torch.random.fork_rng(devices=[]):
        stand_ins = {role: Role(role, Unbreakable(data)) for role in roles}
        work = least = counted(short)
        for path, value in long:
            work = _further(work, least, counted(_with(short, path, 2 * _FEW)), (value - _FEW) / _FEW)
    return work


def _settings(spec: Spec, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every number of steps and the like in a Spec, by the names that lead to it."""
    for name in spec.entry.parameters:
        value = spec.get(name)
        if isinstance(value, Spec):
            yield from _settings(value, (*path, name))
        elif name in _LINEAR and isinstance(value, int):
            yield (*path, name), value


def _with(spec: Spec, path: tuple[str, ...], value: int) -> Spec:
    first, *rest = path
    return spec.replace(**{first: _with(spec.get(first), tuple(rest), value) if rest else value})


def _further(work: _Work, least: _Work, more: _Work, times: float) -> _Work:
    """The passes of `work` and so many times those by which `more` has more than `least`."""
    made = {}
    for name, (passes, parts) in work.items():
        few, many = (of.get(name, ({}, 0))[0] for of in (least, more))
        added = {p: round((many.get(p, 0) - few.get(p, 0)) * times) for p in {*few, *many}}
        made[name] = ({p: max(passes.get(p, 0) + added.get(p, 0), 0) for p in dict.fromkeys([*passes, *added])}, parts)
    return made


class _Attribution:
    """Attributes passes to the parts during which they are made, by what the parts are kept under.

    Args:
        passes: the counter, which grows meanwhile.
        otherwise: the name of what keeps no part.
    """

    def __init__(self, passes: Counter[Pass], otherwise: str) -> None:
        self.kept: dict[str, Tensor] = {}
        self._passes, self._settled, self._otherwise = passes, Counter[Pass](), otherwise
        self._work: dict[str, tuple[Counter[Pass], int]] = {}

    def done(self) -> None:
        """A part is done: what was counted since the one before is its own."""
        self._attribute(piece_of(next(reversed(self.kept))), 1)

    def _attribute(self, name: str, parts: int) -> None:
        before, count = self._work.get(name, (Counter[Pass](), 0))
        self._work[name] = (before + (self._passes - self._settled), count + parts)
        self._settled = self._passes.copy()

    def made(self) -> _Work:
        """All of it; what came after the last part belongs to that."""
        self._attribute(next(reversed(self._work), self._otherwise), 0)
        return self._work


class Unbreakable(nn.Module):
    """Stands in for a model while an examination is counted: right whatever the input, so nothing is dropped; and quick.

    It is so sure that its cross-entropy is flat: what then looks for a gradient is counted too.
    """

    def __init__(self, data: Data) -> None:
        super().__init__()
        self.read = nn.Linear(1, data.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        small = self.read(x.flatten(1).mean(1, keepdim=True)).tanh()
        # Images that probes are counted with are of the first class.
        return small + 100 * nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), small.shape[1])


def _fooled_at(look: int) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
    """A forward hook under which the stand-ins are wrong once, in that forward of all of theirs together."""
    looks = itertools.count(1)

    def forward(module: nn.Module, inputs: Any, logits: Tensor) -> Tensor | None:
        return -logits if next(looks) == look else None

    return forward


@contextmanager
def counting(roles: Mapping[str, Role]) -> Iterator[Counter[Pass]]:
    """Count the passes of every model, by hooks on it and on the frozen views made of it meanwhile."""
    passes: Counter[Pass] = Counter()
    gradients = _Gradients()
    with ExitStack() as stack:
        for name, role in roles.items():
            # A view that is made from now on carries the hook with it.
            role.forget_views()
            stack.callback(role.forget_views)
            hook = role.model.register_forward_hook(_counter(name, passes, gradients))
            stack.callback(hook.remove)
        stack.enter_context(gradients)
        yield passes


class _Gradients(TorchFunctionMode):
    """Sees each call of `torch.autograd.grad`, wherever it is called from, and whether it asks for the gradient of a weight."""

    # The backward pass under way.
    input_only = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not torch.autograd.grad:
            return function(*args, **(kwargs or {}))
        inputs = args[1]
        given = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        self.input_only = not any(isinstance(t, nn.Parameter) for t in given)
        try:
            return function(*args, **(kwargs or {}))
        finally:
            self.input_only = False


def _counter(name: str, passes: Counter[Pass], gradients: _Gradients) -> Callable[[nn.Module, Any, Tensor], None]:
    """A forward hook that counts the pass, and the backward pass through what it gives."""

    def forward(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        live = any(p.requires_grad for p in module.parameters())
        mode = "train" if module.training else "eval"
        passes[Pass(name, mode, "live" if live else "frozen", "forward")] += 1

        def backward(gradient: Tensor) -> None:
            weights = "live" if live and not gradients.input_only else "frozen"
            passes[Pass(name, mode, weights, "backward")] += 1

        if logits.requires_grad:
            logits.register_hook(backward)

    return forward


# -- time ----------------------------------------------------------------------------------------------------------------


def now(device: torch.device) -> float:
    """The clock, in seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Estimate:
    """What an examination of models that are there costs at most, as a person reads it.

    Args:
        work: what is expected of each of its pieces, in their order.
    """

    work: tuple[Expected, ...]
    said: str

    @property
    def parts(self) -> int:
        return sum(piece.parts for piece in self.work)


def cost_of(probes: Sequence[Any], data: Data, roles: Mapping[str, Role]) -> Estimate | None:
    """Count an examination, and time a pass of each model. None where a probe cannot be counted on a made-up image: it may well work on real ones."""
    try:
        cost = examination_of(probes, data, list(roles))
        speeds = {name: speed_of(role, data) for name, role in roles.items()}
    except (ActkitError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError):
        return None
    work = tuple(Expected(piece.name, piece.seconds(speeds), piece.parts * piece.batches) for piece in cost.work)
    ways = Counter[str]()
    for p, n in cost.passes.items():
        ways[p.direction] += n
    passes = " and ".join(f"{n:,} {way}" for way, n in ways.items()) or "no"
    about = duration(sum(piece.seconds for piece in work))
    return Estimate(work, f"at most {passes} passes an image, about {about}")


def speed_of(role: Role, data: Data) -> Speed:
    """A model's, from a few made-up images, or from more where those are quick."""
    _times(role, data, 2)
    for size, enough in ((2, 0.2), (32, 0.2), (256, 0.0)):
        forward, with_gradient = _times(role, data, size)
        if forward + with_gradient > enough:
            break
    return Speed(forward / size, with_gradient / size)


def _times(role: Role, data: Data, size: int) -> tuple[float, float]:
    """The seconds of a forward pass alone, and of one with the gradient of the images."""
    x = random_batch(data, size)[0].to(role.device)
    with role.frozen("eval") as view:
        began = now(role.device)
        with torch.no_grad():
            view(x)
        middle = now(role.device)
        x.requires_grad_()
        torch.autograd.grad(view(x).sum(), x)
        return middle - began, now(role.device) - middle

"""Other people's checkpoints: state dicts of the released ACT code, TRADES, MadryLab's robustness, RobustBench and their kin.

What a file holds (`foreign_files` reads it) is given the names and shapes of one of our backbones (`foreign_names` finds which is which), checked
against it before anything is copied, and nothing is left out silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actkit.config.plugins import plugins_of
from actkit.config.recipe import open_recipe
from actkit.config.spec import Spec
from actkit.errors import InputError, first_line
from actkit.files import sha256, writing
from actkit.machine import versions
from actkit.networks import model_files, normalisation
from actkit.networks.backbones import spec_of
from actkit.networks.building import initialise
from actkit.networks.foreign_files import beside, chosen, read, state_dicts
from actkit.networks.foreign_names import ARCH, Choice, Matched, assert_nothing_left, match
from actkit.networks.roles import Role
from actkit.networks.shapes import Shapes, open_shapes, shapes_of


@dataclass(frozen=True)
class Imported:
    """One model of a foreign file, under our names."""

    role: str
    # Where in the file it was, '' at the top.
    key: str
    backbone: Spec
    num_classes: int
    in_chans: int
    weights: dict[str, Tensor]
    # What was left out or added.
    notes: list[str] = field(default_factory=list)
    # What a training would change: without running statistics, and without constants of a normalisation.
    parameters: int = 0


def imported(
    found: Mapping[str, Tensor],
    arch: Spec,
    *,
    role: str = "robust",
    key: str = "",
    normalise: tuple[list[float], list[float]] | None = None,
    choice: Choice | None = None,
    image_size: tuple[int, int] | None = None,
    shapes: Shapes | None = None,
    where: str,
) -> Imported:
    """Their weights as those of our backbone. Raises `InputError` where names or shapes do not fit, and says which.

    Args:
        normalise: the mean and deviation by channel that their code applied to images before the network, where the file does not hold them.
        choice: what a user says of the file's entries.
        image_size: the height and width of images, for a network that asks for it.
        shapes: the backbone's, where they are known already.
    """
    _assert_dense(found, where)
    shapes = shapes or open_shapes(arch.build())
    matched = match(found, shapes, choice or Choice(), network=repr(arch), where=where)
    held, rest = normalisation.held(matched.rest, where)
    assert_nothing_left(rest, shapes, where)
    if held and normalise:
        raise InputError(
            "the file holds a normalisation of its own",
            where=where,
            help="leave --mean, --std and --normalise out, or leave the file's out with --ignore",
        )
    num_classes, in_chans = sizes(shapes, matched, where)
    own = shapes_of(arch.build(), num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    weights, notes = _ready(matched, own, shapes, arch, where)
    made = Imported(role, key, arch, num_classes, in_chans, weights, [*matched.notes, *notes])
    constants = [part.tolist() for part in held] if held else normalise
    if constants is not None:
        made = _normalised(made, constants, image_size, held_by_file=bool(held))
    return dataclasses.replace(made, parameters=_parameters(made, image_size))


def _assert_dense(found: Mapping[str, Tensor], where: str) -> None:
    if any(v.layout is not torch.strided or v.is_quantized or v.is_nested or v.is_meta for v in found.values()):
        raise InputError(
            "its weights are sparse, quantised, nested or without values",
            where=where,
            help="save dense floating-point weights",
        )


def sizes(shapes: Shapes, matched: Matched, where: str) -> tuple[int, int]:
    """The number of classes and of input channels, from those of the network's entries that depend on them."""
    return _one_size(shapes, matched, "num_classes", where), _one_size(shapes, matched, "in_chans", where)


def _one_size(shapes: Shapes, matched: Matched, size: Literal["num_classes", "in_chans"], where: str) -> int:
    found = shapes.sizes(size, matched.weights)
    if not found:
        # The network is made for one number of channels, such as behind a normalisation of its own.
        if size == "in_chans" and shapes.in_chans is not None:
            return shapes.in_chans
        raise InputError(
            "there is no classifier among the weights", where=where, help="a state dict of a classifier is wanted"
        )
    if len(set(found.values())) > 1:
        word = "classes" if size == "num_classes" else "input channels"
        said = ", ".join(f"{matched.theirs[name]} for {number}" for name, number in found.items())
        raise InputError(f"its entries are for different numbers of {word}: {said}", where=where, help=ARCH)
    return next(iter(found.values()))


def _ready(
    matched: Matched, own: Mapping[str, Tensor], shapes: Shapes, arch: Spec, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Their weights as ours, and notes of what was added. Nothing is copied before every shape and type is the network's own."""
    weights = matched.weights
    for ours, value in weights.items():
        shape, theirs = own[ours].shape, matched.theirs[ours]
        if value.shape != shape and not (value.dim() == 2 and shape == (*value.shape, 1, 1)):
            sized = any(free.size == "image_size" for free in shapes.open.get(ours, {}).values())
            raise InputError(
                f"{theirs} has the shape {tuple(value.shape)}, {arch!r} needs {tuple(shape)}",
                where=where,
                help="the weights are for images of another size: --like RECIPE names data of theirs"
                if sized
                else ARCH,
            )
        if own[ours].is_floating_point() and not value.is_floating_point():
            raise InputError(
                f"{theirs} holds {str(value.dtype).removeprefix('torch.')}, weights are floating-point numbers",
                where=where,
                help="save them as such, quantised weights decoded",
            )
    counters = [name for name in own if name not in weights]
    notes = []
    if counters:
        notes.append(f"added {len(counters)} batch counters of BatchNorm, which files before PyTorch 0.4.1 lack")
    kinds = {str(value.dtype).removeprefix("torch.") for value in weights.values() if value.is_floating_point()}
    if kinds - {"float32"}:
        notes.append(f"its weights are {' and '.join(sorted(kinds))}, ours float32")
    ready = {name: value.reshape(own[name].shape).to(own[name].dtype).contiguous() for name, value in weights.items()}
    ready = {name: value.detach() for name, value in ready.items()}
    ready |= {name: torch.zeros_like(own[name], device="cpu") for name in counters}
    if bad := [name for name, value in ready.items() if not value.isfinite().all()]:
        raise InputError(f"{bad[0]} holds values that are not finite", where=where)
    return ready, notes


def _normalised(
    made: Imported, constants: Sequence[Sequence[float]], image_size: tuple[int, int] | None, *, held_by_file: bool
) -> Imported:
    """The same behind a layer that normalises. One number stands for every channel where the file itself has it so, or 'half' does."""
    mean, std = ([round(v, 7) for v in part] for part in constants)
    one_for_all = held_by_file or (mean, std) == ([0.5], [0.5])
    if one_for_all and len(mean) == 1:
        mean, std = mean * made.in_chans, std * made.in_chans
    normalisation.assert_in_range(mean, std, in_file=held_by_file)
    if not held_by_file:
        normalisation.assert_for_channels(mean, std, made.in_chans)
    backbone = Spec("backbone", "normalized", {"net": made.backbone, "mean": mean, "std": std})
    layers = shapes_of(backbone.build(), num_classes=made.num_classes, in_chans=made.in_chans, image_size=image_size)
    weights = {f"1.{name}": value for name, value in made.weights.items()}
    for name, part in (("0.mean", mean), ("0.std", std)):
        weights[name] = torch.tensor(part).view(layers[name].shape)
    notes = [*made.notes, f"its normalisation is a layer now: mean {mean}, deviation {std}"]
    return dataclasses.replace(made, backbone=backbone, weights=weights, notes=notes)


def _parameters(made: Imported, image_size: tuple[int, int] | None) -> int:
    with torch.device("meta"):
        network = initialise(
            made.backbone.build(),
            num_classes=made.num_classes,
            in_chans=made.in_chans,
            image_size=image_size,
            seed=0,
        )
    return sum(parameter.numel() for parameter in network.parameters())


def write(
    model: Imported,
    to: Path,
    *,
    source: Path,
    roles: list[str],
    data: Spec,
    classes: Sequence[str],
    shape: tuple[int, int, int],
    evaluation: Sequence[Spec],
) -> None:
    """Write an actkit model file: what `actkit probe` rebuilds and examines. The model is run once, on grey images, before it is written."""
    network = initialise(
        model.backbone.build(),
        num_classes=model.num_classes,
        in_chans=model.in_chans,
        image_size=(shape[1], shape[2]),
        seed=0,
    )
    network.load_state_dict(model.weights)
    _try(network, model, shape, str(source))
    about = model_files.Header(
        role=model.role,
        roles=tuple(roles),
        backbone=model.backbone,
        num_classes=model.num_classes,
        classes=tuple(classes),
        shape=shape,
        data=data,
        evaluation=tuple(evaluation),
        seed=None,
        epoch=None,
        step=None,
        versions=versions(),
        plugins=plugins_of([model.backbone, data, list(evaluation)]),
        imported=model_files.ImportedFrom(source.name, sha256(source), model.key, tuple(model.notes)),
    )
    with writing(to) as temporary:
        model_files.save_tensors(network.state_dict(), temporary, about.metadata())


def _try(network: nn.Module, model: Imported, shape: tuple[int, int, int], where: str) -> None:
    try:
        with Role(model.role, network).frozen("eval") as view, torch.no_grad():
            logits = view(torch.full((2, *shape), 0.5))
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise InputError(
            f"the network does not take images of {'x'.join(map(str, shape))}: {first_line(error)}",
            where=where,
        ) from error
    if not logits.isfinite().all():
        raise InputError("with these weights the network's logits are not finite", where=where)


# The recipe whose data and evaluation a model is examined with, when none is named: by its number of classes.
_LIKE = {10: "gin/cifar10.gin", 100: "gin/cifar100.gin", 1000: "gin/imagenet.gin"}


@dataclass(frozen=True)
class Wanted:
    """What a user says of a file that is imported.

    Args:
        key: which of several state dicts in the file.
        like: a recipe with the data and the evaluation that the models are for; CIFAR-10's, CIFAR-100's or ImageNet's by the number of classes.
        normalise: as in `imported`.
        unnormalised: whether the user says that there is no normalisation.
        classes: names of the classes in the model's own order; by default those of the data.
        settings: 'KEY=VALUE' overrides of that recipe, and of the backbone.
        out: the file to write, `<name>.safetensors` by default; the role is put in where there are two models.
    """

    key: str | None = None
    like: str | None = None
    normalise: tuple[list[float], list[float]] | None = None
    unnormalised: bool = False
    classes: tuple[str, ...] | None = None
    choice: Choice = field(default_factory=Choice)
    settings: Sequence[str] = ()
    plugins: Sequence[str] = ()
    trust: bool = False
    out: Path | None = None

    def setting(self, network: Spec, like: str) -> dict[str, Any]:
        """The network, the data and the evaluation, as a recipe and the user's own settings have them."""
        named = [f"{network.selector}.{parameter}={value!r}" for parameter, value in network.kwargs.items()]
        recipe = open_recipe(like, [*named, *self.settings], plugins=self.plugins, trust=self.trust)
        return recipe.setting(network.name)


def convert(file: Path, arch: str, wanted: Wanted) -> list[tuple[Path, Imported]]:
    """Import a foreign file: its models as actkit model files, one each. `arch` is a backbone's name, or one of timm's models."""
    where = str(file)
    if wanted.normalise is not None:
        normalisation.assert_in_range(*wanted.normalise)
    network = spec_of(arch)
    content = read(file)
    found = state_dicts(content)
    # The recipe is chosen by the number of classes, which the network's own names tell: those are the same in all of them.
    backbone = wanted.setting(network, wanted.like or _LIKE[10])["backbone"]
    shapes = open_shapes(backbone.build())

    def fits(entries: Mapping[str, Tensor]) -> bool:
        try:
            match(entries, shapes, wanted.choice, network=repr(backbone), where=where)
        except InputError:
            return False
        return True

    take = chosen(found, wanted.key, where, fits)
    first = next(iter(take))
    _assert_dense(found[first], where)
    matched = match(found[first], shapes, wanted.choice, network=repr(backbone), where=where)
    num_classes, in_chans = sizes(shapes, matched, where)
    setting = wanted.setting(network, wanted.like or _like(num_classes, where))
    classes, shape = _about(setting["data"], num_classes, in_chans)
    models = [
        imported(
            found[place],
            setting["backbone"],
            role=role,
            key=place,
            normalise=wanted.normalise,
            choice=wanted.choice,
            image_size=(shape[1], shape[2]),
            shapes=shapes,
            where=where,
        )
        for place, role in take.items()
    ]
    models = [_with_notes(model, content, list(take), wanted) for model in models]
    written = list(zip(_targets(file, models, wanted.out), models, strict=True))
    for to, model in written:
        to.parent.mkdir(parents=True, exist_ok=True)
        write(
            model,
            to,
            source=file,
            roles=[m.role for m in models],
            data=setting["data"],
            classes=_named(wanted.classes, classes, where),
            shape=shape,
            evaluation=setting["evaluation"],
        )
    return written


def _like(num_classes: int, where: str) -> str:
    if num_classes not in _LIKE:
        raise InputError(
            f"for models of {num_classes} classes it must be said what data they are for",
            where=where,
            help="--like RECIPE takes the data and the evaluation of that recipe; if there are not so many classes, the classifier is missing",
        )
    return _LIKE[num_classes]


def _with_notes(model: Imported, content: Any, taken: Sequence[str], wanted: Wanted) -> Imported:
    """The model with what is to be said of the rest of the file, and of a normalisation that nobody named."""
    notes = list(model.notes)
    if left := beside(content, taken):
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        notes.append(f"beside these weights the file holds {', '.join(left[:8])}{more}: left out")
    if model.backbone.name != "normalized" and not wanted.unnormalised:
        notes.append(normalisation.NONE_FOUND)
    return dataclasses.replace(model, notes=notes)


def _named(given: Sequence[str] | None, of_data: Sequence[str], where: str) -> Sequence[str]:
    """The names of a model's classes. Raises `InputError` where not as many are given."""
    if given is not None and len(given) != len(of_data):
        raise InputError(f"--classes names {len(given)} classes, the model has {len(of_data)}", where=where)
    if given is not None and len(set(given)) != len(given):
        raise InputError("--classes names a class twice", where=where)
    return of_data if given is None else given


def _targets(file: Path, models: Sequence[Imported], out: Path | None) -> list[Path]:
    """Where the models go. Raises `InputError` where something is there already."""
    target = out or Path(f"{file.name.removesuffix('.tar').rpartition('.')[0] or file.name}.safetensors")
    if len(models) == 1:
        targets = [target]
    else:
        targets = [target.with_name(f"{target.stem}.{m.role}{target.suffix or '.safetensors'}") for m in models]
    for to in targets:
        if to.exists():
            raise InputError(
                "there is a file of that name already", where=str(to), help="choose another --out, or remove it"
            )
    return targets


def _about(data: Spec, num_classes: int, in_chans: int) -> tuple[Sequence[str], tuple[int, int, int]]:
    """Names of the classes and the shape of an image."""
    made = data.build()()
    if made.num_classes != num_classes or made.shape[0] != in_chans:
        raise InputError(
            f"the weights are for {num_classes} classes and {in_chans} channels, {made.name} has {made.num_classes} and {made.shape[0]}",
            help="--like RECIPE names the data that they are for",
        )
    return made.classes, made.shape

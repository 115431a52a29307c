"""Other people's checkpoints: state dicts of the released ACT code, TRADES, MadryLab's robustness, RobustBench and their kin.

Nothing that a file holds is run: it is read by torch's restricted unpickler (`weights_only`), or as safetensors. What is found under their names is
given the names and shapes of one of our backbones, checked against it before anything is copied, and nothing is left out silently.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actkit.config.recipe import open_recipe
from actkit.config.spec import Spec
from actkit.errors import InputError, nearest
from actkit.files import sha256, writing
from actkit.machine import versions
from actkit.networks import model_files
from actkit.networks.backbones import spec_of
from actkit.networks.roles import Role, initialise


@dataclass(frozen=True)
class Imported:
    """One model of a foreign file, under our names."""

    role: str
    key: str  # where in the file it was, '' at the top
    backbone: Spec
    num_classes: int
    in_chans: int
    weights: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)  # what was left out or added


def read(file: Path) -> Any:
    """What the file holds, with no code of its run. Raises `InputError` when it is none of weights, or asks for code."""
    if not file.is_file():
        raise InputError(
            "this is a folder" if file.is_dir() else "there is no such file",
            where=str(file),
            help="one file of weights is wanted",
        )
    if file.suffix == ".safetensors":
        return model_files.read(file)[0]
    with file.open("rb") as opened:
        first = opened.read(2)
    if not first.startswith((b"PK", b"\x80")):  # a zip, or the pickle that torch wrote before 1.6
        raise InputError("this is no PyTorch file", where=str(file), help="a .pt, .pth or .safetensors file is wanted")
    _assert_not_inflated(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what matters is raised
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global|class|function)s?:?\s+([\w.]+\.[\w.]+)", str(error))
        what = f" ({wanted[1]})" if wanted else ""
        raise InputError(
            f"this file is not only weights: loading it would run code of its own{what}, so it is not loaded",
            where=str(file),
            help="where you trust it and have the code that wrote it, save the weights alone there: torch.save(model.state_dict(), 'weights.pt')",
        ) from error
    except (
        MemoryError,
        RecursionError,
        ArithmeticError,
        LookupError,
        EOFError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        said = (
            str(error).split(". ")[0].splitlines()[0]
            if isinstance(error, (OSError, RuntimeError)) and str(error)
            else ""
        )
        said = "" if "weights_only" in said or len(said) > 200 else f": {said}"
        raise InputError(
            f"the file cannot be read as PyTorch weights{said}",
            where=str(file),
            help="it is cut short, altered, or of another kind",
        ) from error


def _assert_not_inflated(file: Path) -> None:
    """PyTorch stores what it writes; a zip that unpacks to more than it holds was made to exhaust memory."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > file.stat().st_size:
            raise InputError(
                f"it holds {file.stat().st_size:,} bytes and claims to unpack to {unpacked:,}", where=str(file),
                help="PyTorch does not compress what it saves: do not trust this file",
            )  # fmt: skip


def state_dicts(content: Any) -> dict[str, dict[str, Tensor]]:
    """The state dicts in what was read, by their place in it ('model', 'last.state_dict', '' for the whole)."""
    found: dict[str, dict[str, Tensor]] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    for key, value in waiting:  # it grows meanwhile; but a file may nest without end, or hold itself
        if not isinstance(value, Mapping) or key.count(".") > 8:
            continue
        tensors = {name: inner for name, inner in value.items() if isinstance(inner, Tensor)}
        named = all(isinstance(name, str) for name in value)
        if named and len(tensors) >= 2 and any("." in name for name in tensors):
            found[key] = tensors
        elif len(waiting) < 10_000:
            inside = [(name, inner) for name, inner in value.items() if isinstance(name, str)]
            waiting += [(f"{key}.{name}" if key else name, inner) for name, inner in inside]
    return found


# The released ACT code keeps both of its models in one file.
_ROLES = {"adv_model": "robust", "nat_model": "natural"}


def chosen(found: Mapping[str, dict[str, Tensor]], key: str | None, where: str) -> dict[str, str]:
    """Which state dicts to take: their places, and the role of each."""
    if not found:
        raise InputError("there are no weights in this file", where=where, help="a state dict is wanted")
    if key is not None:
        if key not in found:
            raise InputError(f"there are no weights under {key!r}", where=where, help=nearest(key, found))
        return {key: _ROLES.get(key, "robust")}
    if set(found) == set(_ROLES):
        return dict(_ROLES)
    if len(found) > 1:
        raise InputError(
            f"there are {len(found)} sets of weights in this file: {', '.join(found)}",
            where=where,
            help="choose one with --key",
        )
    return dict.fromkeys(found, "robust")


# DataParallel, torch.compile, and wrappers that normalise or attack.
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|model\.)+")


_NORMALISERS = [("mean", "std"), ("mu", "sigma"), ("new_mean", "new_std")]


# From the words in which ACT, TRADES, RobustBench and their kin write their networks, to timm's.
Rules = list[tuple[str, Any]]


_RESNET: Rules = [(r"\bshortcut\.", "downsample."), (r"^linear\.", "fc.")]


_PREACT: Rules = [  # pre-activation ResNets and WideResNets: timm's ResNetV2
    (r"^conv1\.", "stem.conv."),
    (r"^(?:bn|bn1)\.", "norm."),
    (r"^(?:fc|linear)\.", "head.fc."),
    (r"^(?:block|layer)(\d)\.(?:layer\.)?(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}."),
    (r"(blocks\.\d+\.)bn(\d)\.", r"\1norm\2."),
    (r"(blocks\.\d+\.)(?:convShortcut|shortcut\.0)\.", r"\1downsample.conv."),
]


def _translated(name: str, own: Mapping[str, Any]) -> str | None:
    """Our name for theirs, or None."""
    for rules in ([], _RESNET, _PREACT):
        ours = name
        for pattern, replacement in rules:
            ours = re.sub(pattern, replacement, ours)
        if ours in own:
            return ours
    return None


def _unwrapped(found: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], list[Tensor], list[str]]:
    """Weights without their wrappers' prefixes, the mean and deviation of a normalisation, and notes of what was left out."""
    weights: dict[str, Tensor] = {}
    attackers = 0
    for name, value in found.items():
        short = _WRAPPERS.sub("", name)
        if short.startswith("attacker."):  # MadryLab keeps a second reference to the model in its attacker
            attackers += 1
            continue
        if short in weights:
            raise InputError(
                f"two of its weights are both called {short!r} once the wrappers' prefixes are off", where=where
            )
        weights[short] = value
    notes = [f"left out {attackers} entries of attacker.*, which repeat the model's"] if attackers else []
    normaliser: list[Tensor] = []
    for pair in _NORMALISERS:
        owners = {name[: -len(pair[0])] for name in weights if name == pair[0] or name.endswith("." + pair[0])}
        for owner in sorted(owners):
            both = [weights.get(owner + part) for part in pair]
            if all(value is not None and value.numel() <= 16 for value in both) and owner.count(".") <= 1:
                if normaliser:
                    raise InputError("it normalises twice", where=where)
                normaliser = [weights.pop(owner + part).detach().flatten().float() for part in pair]
    if normaliser and all(name.startswith("1.") for name in weights):  # nn.Sequential(normalisation, network)
        weights = {name.removeprefix("1."): value for name, value in weights.items()}
    return weights, normaliser, notes


def imported(
    found: Mapping[str, Tensor],
    arch: Spec,
    *,
    role: str = "robust",
    key: str = "",
    normalise: tuple[list[float], list[float]] | None = None,
    where: str,
) -> Imported:
    """Their weights as those of our backbone. Raises `InputError` where names or shapes do not fit, and says which.

    Args:
        normalise: the mean and deviation by channel that their code applied to images before the network, where the file does not hold them.
    """
    theirs, held, notes = _unwrapped(found, where)
    if any(v.layout is not torch.strided or v.is_quantized or v.is_nested or v.is_meta for v in theirs.values()):
        raise InputError(
            "its weights are sparse, quantised, nested or without values",
            where=where,
            help="save dense floating-point weights",
        )
    if held and normalise:
        raise InputError("the file holds a normalisation of its own", where=where, help="leave --mean and --std out")
    num_classes, in_chans = _ends(theirs, where)
    own = _shapes(arch, num_classes, in_chans)
    weights, more = _matched(theirs, own, arch, where)
    normaliser = held or [torch.tensor(part) for part in normalise or ()]
    if not normaliser:
        return Imported(role, key, arch, num_classes, in_chans, weights, notes + more)
    mean, std = ([round(v, 7) for v in part.tolist()] for part in normaliser)
    backbone = Spec("backbone", "normalized", {"net": arch, "mean": mean, "std": std})
    layers = _shapes(backbone, num_classes, in_chans)
    named = {f"0.{name}": part for name, part in zip(("mean", "std"), normaliser, strict=True)}
    weights = {f"1.{name}": value for name, value in weights.items()}
    weights |= {name: part.view(layers[name].shape) for name, part in named.items()}
    notes += [*more, f"its normalisation is a layer now: mean {mean}, deviation {std}"]
    return Imported(role, key, backbone, num_classes, in_chans, weights, notes)


def _matched(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], arch: Spec, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Their weights under our names, and notes of what was left out or added. Nothing is copied before every shape is the network's own."""
    weights: dict[str, Tensor] = {}
    dead: list[str] = []
    strange: list[str] = []
    for name, value in theirs.items():
        ours = _translated(name, own)
        if ours is None:
            (dead if name.startswith("sub_block1.") else strange).append(name)
            continue
        if ours in weights:
            raise InputError(f"two of its weights mean our {ours!r}", where=where)
        shape = own[ours].shape
        if value.shape != shape and not (value.dim() == 2 and shape == (*value.shape, 1, 1)):
            raise InputError(
                f"{name} has the shape {tuple(value.shape)}, {arch!r} needs {tuple(shape)}", where=where, help=_ARCH
            )
        weights[ours] = value
    counters = [name for name in own if name not in weights and name.endswith("num_batches_tracked")]
    missing = [name for name in own if name not in weights and name not in counters]
    wrong = [(missing, "of ours are missing"), (strange, "of theirs are unknown")]
    if parts := [f"{len(names)} {what}, such as {names[0]!r}" for names, what in wrong if names]:
        raise InputError(f"the weights are not those of {arch!r}: {'; '.join(parts)}", where=where, help=_ARCH)
    notes = []
    if dead:
        notes.append(
            f"left out {len(dead)} entries of sub_block1.*, which TRADES' first WideResNet declares and never uses"
        )
    if counters:
        notes.append(f"added {len(counters)} batch counters of BatchNorm, which files before PyTorch 0.4.1 lack")
    ready = {name: value.reshape(own[name].shape).to(own[name].dtype).contiguous() for name, value in weights.items()}
    ready |= {name: torch.zeros_like(own[name], device="cpu") for name in counters}
    if bad := [name for name, value in ready.items() if not value.isfinite().all()]:
        raise InputError(f"{bad[0]} holds values that are not finite", where=where)
    return ready, notes


_ARCH = "choose another --arch; `actkit list backbone` shows them, and any of timm's names will do"


def _ends(theirs: Mapping[str, Tensor], where: str) -> tuple[int, int]:
    """The number of classes and of input channels: from the last matrix and the first convolution."""
    matrices = [
        v
        for n, v in theirs.items()
        if n.endswith("weight") and (v.dim() == 2 or (v.dim() == 4 and v.shape[2:] == (1, 1)))
    ]
    convolutions = [v for v in theirs.values() if v.dim() == 4]
    if not matrices:
        raise InputError(
            "there is no classifier among the weights", where=where, help="a state dict of a classifier is wanted"
        )
    first = convolutions[0] if convolutions else matrices[0]
    classes = [
        v
        for n, v in theirs.items()
        if n in ("fc.weight", "linear.weight", "head.fc.weight", "head.weight", "classifier.weight")
    ]
    return int((classes or matrices)[-1].shape[0]), int(first.shape[1])


def _shapes(arch: Spec, num_classes: int, in_chans: int) -> dict[str, Tensor]:
    """The network's own state dict without memory behind it."""
    with torch.device("meta"):
        return initialise(arch.build(), num_classes=num_classes, in_chans=in_chans, seed=0).state_dict()


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
    network = initialise(model.backbone.build(), num_classes=model.num_classes, in_chans=model.in_chans, seed=0)
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
        imported=model_files.ImportedFrom(source.name, sha256(source), model.key, tuple(model.notes)),
    )
    with writing(to) as temporary:
        model_files.save_tensors(network.state_dict(), temporary, about.metadata())


def _try(network: nn.Module, model: Imported, shape: tuple[int, int, int], where: str) -> None:
    try:
        with Role(model.role, network).frozen("eval") as view, torch.no_grad():
            logits = view(torch.full((2, *shape), 0.5))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the network does not take images of {'x'.join(map(str, shape))}: {str(error).splitlines()[0]}",
            where=where,
        ) from error
    if not logits.isfinite().all():
        raise InputError("with these weights the network's logits are not finite", where=where)


# The recipe whose data and evaluation a model is examined with, when none is named: by its number of classes.
_LIKE = {10: "gin/cifar10.gin", 100: "gin/cifar100.gin", 1000: "gin/imagenet.gin"}


def convert(
    file: Path,
    arch: str,
    *,
    key: str | None = None,
    like: str | None = None,
    normalise: tuple[list[float], list[float]] | None = None,
    settings: Sequence[str] = (),
    plugins: Sequence[str] = (),
    trust: bool = False,
    out: Path | None = None,
) -> list[tuple[Path, Imported]]:
    """Import a foreign file: its models as actkit model files, one each.

    Args:
        arch: a backbone's name, or one of timm's models.
        key: which of several state dicts in the file.
        normalise: as in `imported`.
        like: a recipe with the data and the evaluation that the models are for; CIFAR-10's, CIFAR-100's or ImageNet's by the number of classes.
        settings: 'KEY=VALUE' overrides of that recipe, and of the backbone.
        out: the file to write, `<name>.safetensors` by default; the role is put in where there are two models.
    """
    where = str(file)
    network = spec_of(arch)
    found = state_dicts(read(file))
    take = chosen(found, key, where)
    first = _ends(_unwrapped(next(iter(found[place] for place in take)), where)[0], where)
    if like is None and first[0] not in _LIKE:
        raise InputError(
            f"for models of {first[0]} classes it must be said what data they are for",
            where=where,
            help="--like RECIPE takes the data and the evaluation of that recipe; if there are not so many classes, the classifier is missing",
        )
    named = [f"{network.selector}.{parameter}={value!r}" for parameter, value in network.kwargs.items()]
    recipe = open_recipe(like or _LIKE[first[0]], [*named, *settings], plugins=plugins, trust=trust)
    setting = recipe.setting(network.name)
    network = setting["backbone"]
    classes, shape = _about(setting["data"], *first)
    models = [
        imported(found[place], network, role=role, key=place, normalise=normalise, where=where)
        for place, role in take.items()
    ]
    target = out or Path(f"{file.name.removesuffix('.tar').rpartition('.')[0] or file.name}.safetensors")
    written = []
    for model in models:
        to = (
            target
            if len(models) == 1
            else target.with_name(f"{target.stem}.{model.role}{target.suffix or '.safetensors'}")
        )
        if to.exists():
            raise InputError(
                "there is a file of that name already", where=str(to), help="choose another --out, or remove it"
            )
        written.append((to, model))
    for to, model in written:
        to.parent.mkdir(parents=True, exist_ok=True)
        write(
            model,
            to,
            source=file,
            roles=[m.role for m in models],
            data=setting["data"],
            classes=classes,
            shape=shape,
            evaluation=setting["evaluation"],
        )
    return written


def _about(data: Spec, num_classes: int, in_chans: int) -> tuple[Sequence[str], tuple[int, int, int]]:
    """Names of the classes and the shape of an image."""
    made = data.build()()
    if made.num_classes != num_classes or made.shape[0] != in_chans:
        raise InputError(
            f"the weights are for {num_classes} classes and {in_chans} channels, {made.name} has {made.num_classes} and {made.shape[0]}",
            help="--like RECIPE names the data that they are for",
        )
    return made.classes, made.shape

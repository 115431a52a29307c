"""`actkit.evaluate`: models, data and the names of probes in, an `Evaluation` out, by the same code as `actkit probe`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from actkit.config import registry
from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.errors import InputError, nearest
from actkit.evaluation.examination import assert_fits, examine
from actkit.evaluation.selection import probes_named
from actkit.evaluation.summary import ModelFacts, Summary, apply_flags
from actkit.evaluation.threat import CONVENTIONAL, is_conventional, named_probe, too_short, under
from actkit.machine import provenance
from actkit.networks.class_names import say_nothing
from actkit.networks.roles import Role
from actkit.python.data import as_data
from actkit.python.evaluation import Evaluation
from actkit.python.models import AnyModel, LoadedModel, as_role, assert_same_classes, classes_of, named_models
from actkit.python.surroundings import display_of, load_plugins, private

# A probe by its registered or conventional name, as a Spec, or as the registered function itself.
AnyProbe = str | Spec | Any


def evaluate(
    models: AnyModel | Mapping[str, AnyModel],
    data: Any,
    probes: AnyProbe | Sequence[AnyProbe] = ("accuracy", "pgd20"),
    *,
    eps: float | str | None = None,
    norm: str | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    split: str = "test",
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Evaluation:
    """Examine one model, or several side by side, by probes under one threat model. The models, the data and all random states are left as they were.

    Args:
        models: a torch module whose outputs are logits for x in [0,1], a loaded model, a role; or a dict of them by the names that the table shall have.
        data: what `as_data` takes: a tuple (x, y), a DataLoader, a Dataset, a folder, the name of a data set, `actkit.Data`.
        probes: registered ones by name ('accuracy', 'autoattack', 'audit', ...; `actkit list probe`) and those that the field knows: 'pgd20', 'pgd100' (one
            uniform start, steps of eps/4, any iterate counts), 'fgsm', 'apgd-ce', 'apgd-t', 'square'; Specs; a registered function itself.
        eps, norm: of every attack, steps in proportion; eps in [0,1] pixels, 8/255 or '8/255'. Without eps a loaded model is attacked as it was saved to be.
        limit: so many examples, a fixed random choice; by default all, but for probes that say otherwise (the audit looks at 200).
        batch_size: images at once; by default what each probe says.
        seed: of random starts; by default what each probe says.
        split: of data that has several.
        classes: their names, where the data do not say.
        device: 'cuda', 'cpu', 'auto'; by default where each model is. A model that lies elsewhere is copied there.
        progress: show how far it is, on a terminal.

    Raises `InputError` for what cannot be used, before anything long begins; `ActkitError` for a model that gives NaN.
    """
    load_plugins()
    named = named_models(models)
    roles = {name: as_role(model, name, device) for name, model in named.items()}
    display, first = display_of(progress), next(iter(roles.values()))
    with private(seed, first.device), display.progress():
        examined = _fitting(as_data(data, split=split, classes=classes, limit=limit), roles, split)
        for name, model in named.items():
            assert_same_classes(name, model, examined.classes, examined.name)
        specs = _specs(probes, named, eps, norm)
        specs = [_with(spec, limit=limit, batch_size=batch_size, seed=seed, split=split) for spec in specs]
        built = [spec.build() for spec in specs]
        for said in (line for spec in specs for line in too_short(spec)):
            warnings.warn(said, stacklevel=2)
        assert_fits(built, examined, len(roles))
        results = examine(built, roles, examined)
        found = {name: model for name, model in named.items() if isinstance(model, LoadedModel)}
        summary = Summary(
            command="actkit.evaluate",
            data=examined.name,
            data_fingerprint={split: examined.split(split).fingerprint()},
            sizes=dict(examined.sizes),
            evaluation=tuple(specs),
            results=apply_flags(results, {name: model.path for name, model in found.items()}),
            versions=provenance(),
            device=str(first.device),
            models={name: ModelFacts.of(Path(model.path), model.header) for name, model in found.items()},
        )
    return Evaluation(summary, results)


def _fitting(data: Data, roles: Mapping[str, Role], split: str) -> Data:
    """The data with as many classes as the models tell apart, where its classes have no names. Raises `InputError` where they do not fit."""
    widths = {name: classes_of(role, data.shape) for name, role in roles.items()}
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise InputError(f"the models tell different numbers of classes apart: {said}", help="examine them one by one")
    width = next(iter(widths.values()))
    if width > data.num_classes and say_nothing(data.classes):
        return dataclasses.replace(data, classes=tuple(map(str, range(width))))
    if width != data.num_classes:
        raise InputError(
            f"{next(iter(widths))} gives logits of {width} classes, the {split} labels of {data.name} are of {data.num_classes}",
            help=f"labels are 0 to {width - 1}"
            if width < data.num_classes
            else "give classes=, one name for each of its outputs",
        )
    return data


def _specs(
    probes: AnyProbe | Sequence[AnyProbe], models: Mapping[str, AnyModel], eps: float | str | None, norm: str | None
) -> list[Spec]:
    listed = list(probes) if isinstance(probes, (list, tuple)) else [probes]
    if not listed:
        raise InputError("there is no probe to examine by", help="such as ['accuracy', 'pgd20']")
    stored = next((m.header.evaluation for m in models.values() if isinstance(m, LoadedModel)), ())
    return [spec for one in listed for spec in _probes(one, stored, eps, norm)]


def _probes(probe: AnyProbe, stored: Sequence[Spec], eps: float | str | None, norm: str | None) -> list[Spec]:
    """What one of the probes means. Raises `InputError` for a name that is none, and for an attack whose eps nobody says."""
    if callable(probe) and not isinstance(probe, (str, Spec)):
        probe = _registered(probe)
    if isinstance(probe, Spec):
        return [under(probe, eps=eps, norm=norm)]
    if not isinstance(probe, str):
        raise InputError(f"a probe is a name, a Spec or a registered function, this is a {type(probe).__name__}")
    name = probe.removeprefix("probe.")
    if eps is not None:
        if (named := named_probe(name, eps=eps, norm=norm or "linf")) is not None:
            return [named]
        raise _unknown(name)
    if is_conventional(name) and not any(isinstance(spec.kwargs.get("attack"), Spec) for spec in stored):
        raise _without_eps(name)
    specs = probes_named(name, stored)
    for spec in specs:
        required = [p.name for p in spec.entry.parameters.values() if p.required and p.name not in spec.kwargs]
        if {"eps", "attack"} & set(required):
            raise _without_eps(name)
    return [under(spec, norm=norm) for spec in specs]


def _registered(function: Any) -> Spec:
    for entry in registry.entries("probe"):
        if entry.target is function:
            return Spec("probe", entry.name)
    named = getattr(function, "__name__", type(function).__name__)
    raise InputError(f"{named} is no registered probe", help='write @actkit.register("probe") above it')


def _unknown(name: str) -> InputError:
    known = {*CONVENTIONAL, *(entry.name for entry in registry.entries("probe"))}
    return InputError(f"there is no probe {name!r}", help=nearest(name, known))


def _without_eps(name: str) -> InputError:
    return InputError(
        f"{name!r} attacks, and nobody says with which budget",
        help="give eps=8/255 (and norm='l2' with eps=0.5 for l2)",
    )


def _with(spec: Spec, **settings: Any) -> Spec:
    """A probe with the settings that were given and that it knows; those that are what they were stay unwritten."""
    changed = {
        name: value
        for name, value in settings.items()
        if value is not None and name in spec.entry.parameters and spec.get(name) != value
    }
    return spec.replace(**changed) if changed else spec

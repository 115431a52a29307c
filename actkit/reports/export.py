"""Exports: a trained model as a folder that timm, RobustBench and the Hugging Face hub understand, with what was measured of it.

model.safetensors   the weights; also an actkit checkpoint
config.json         how timm builds it
description.json    threat model, numbers with their attacks' settings, flags of the audit, recipe, seed, sums
README.md           the same as a model card
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from actkit import __version__
from actkit.attacks import Threat
from actkit.config.spec import Spec, amount
from actkit.datasets import CLASSES
from actkit.errors import InputError
from actkit.evaluation.flags import standing_flags
from actkit.evaluation.run_files import run_of
from actkit.evaluation.summary import Summary
from actkit.files import sha256, write_json, writing
from actkit.machine import versions
from actkit.networks import class_names, model_files
from actkit.networks.building import asks_for_image_size
from actkit.networks.model_files import Header
from actkit.probes import ResultName
from actkit.reports.model_card import model_card


@dataclass(frozen=True)
class Export:
    folder: Path
    name: str
    timm_name: str
    dataset: str
    threat: str
    measured: bool


def export(
    path: Path,
    *,
    role: str | None = None,
    name: str | None = None,
    dataset: str | None = None,
    results: Path | None = None,
    out: Path | None = None,
    classes: class_names.Mapping | None = None,
) -> Export:
    """Write the export of one model.

    Args:
        path: a run, a checkpoint directory or a model file.
        role: which of its models; the headline model by default.
        name: what the model is called, `<objective>_<backbone>` by default; with the data set and the norm it is its name in timm's registry.
        dataset: the data set's name for others ('cifar10', 'cifar100', 'imagenet'); by default that of the model's own data.
        results: the JSON of `actkit probe`, in place of the run's own summary.
        out: the folder to write, `exports/<name>` by default; it must not exist.
        classes: how the model's classes belong to those of `dataset`, where they are called differently or come in another order.
    """
    file, header = _chosen(path, role)
    backbone = model_files.untrained(header.backbone)
    called = name or _name(header, backbone)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-]*", called):
        raise InputError(f"{called!r} cannot be a model's name", help="letters, digits, - and _")
    measured = _measured(file, header, results)
    threat = _threat(header)
    data = dataset or _dataset(header)
    norm: str = threat.norm if threat else "clean"
    timm_name = re.sub(r"[^a-z0-9]+", "_", f"{called}_{data}_{norm}".lower())
    folder = out or Path("exports") / called
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "the folder is not empty, and an export overwrites nothing",
            where=str(folder),
            help="choose another --out, or remove it",
        )
    order = _order(header, data, classes) if dataset else None
    if order is not None or (dataset and classes == "by_number"):
        header = dataclasses.replace(header, classes=tuple(CLASSES[data]))
    network = model_files.load_role(file, order=order)[0].model
    names = {"name": called, "timm_name": timm_name}
    config = _config(header, backbone, _classifier(network, header.num_classes), names)
    described = {
        **names,
        "dataset": data,
        "published_data": _is_published(header, data),
        "threat_model": _threat_json(threat),
        **_description(header, backbone, network),
        **_measurements(measured, header.role),
        "flags": [flag.to_json() for flag in standing_flags(file)],
        "recipe": _recipe(file),
        "source_sha256": sha256(file),
        "exported_by": {"actkit": __version__, **versions()},
    }
    _write(folder, network, header, config, described, measured)
    return Export(folder, called, timm_name, data, norm.capitalize(), measured is not None)


def _description(header: Header, backbone: Spec, network: nn.Module) -> dict[str, Any]:
    """What the model is and how it was trained."""
    return {
        "role": header.role,
        "backbone": repr(backbone),
        "parameters": sum(p.numel() for p in network.parameters()),
        "num_classes": header.num_classes,
        "input": f"RGB or grey in [0,1], shape {header.shape}, normalised inside where it is at all",
        "objective": header.objective,
        "seed": header.seed,
        "epochs": header.epoch,
        "steps": header.step,
        "imported": header.imported and header.imported.to_json(),
    }


def _measurements(measured: Summary | None, role: str) -> dict[str, Any]:
    """What was measured, and by what."""
    if measured is None:
        return {"results": None, "measured_by": None}
    about = measured.to_json()
    origin = {key: about[key] for key in ("command", "data", "data_fingerprint", "versions")}
    return {"results": _results(measured, role), "measured_by": origin}


def _config(header: Header, backbone: Spec, classifier: str | None, names: Mapping[str, str]) -> dict[str, Any]:
    """How timm builds it. Images are in [0,1]; any normalisation is a layer."""
    channels = header.shape[0]
    return {
        "architecture": "actkit",
        "num_classes": header.num_classes,
        "num_features": 0,
        "model_args": {"backbone": backbone.to_json(), "in_chans": channels, **_image_size(header, backbone)},
        "pretrained_cfg": {
            "input_size": list(header.shape),
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 0.875,
            "mean": [0.0] * channels,
            "std": [1.0] * channels,
            "num_classes": header.num_classes,
            "classifier": classifier,
            "label_names": list(header.classes),
        },
        "actkit": dict(names),
    }


def _image_size(header: Header, backbone: Spec) -> dict[str, Any]:
    """What timm must say to a network that asks for the image's size."""
    return {"image_size": list(header.shape[1:])} if asks_for_image_size(backbone.build()) else {}


def _write(
    folder: Path,
    network: nn.Module,
    header: Header,
    config: dict[str, Any],
    described: dict[str, Any],
    measured: Summary | None,
) -> None:
    """The whole folder, or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder) as temporary:
        temporary.mkdir()
        weights = temporary / "model.safetensors"
        model_files.save_tensors(network.state_dict(), weights, {"format": "pt", **header.metadata()})
        described = {**described, "weights_sha256": sha256(weights)}
        write_json(temporary / "config.json", config)
        write_json(temporary / "description.json", described)
        (temporary / "README.md").write_text(model_card(described, measured, shape=header.shape), encoding="utf-8")


def _chosen(path: Path, role: str | None) -> tuple[Path, Header]:
    files = {header.role: (file, header) for file in model_files.find(path) for header in [model_files.header(file)]}
    if role is None:
        first = next(iter(files.values()))[1].roles
        role = next((r for r in first if r in files), next(iter(files)))
    if role not in files:
        raise InputError(f"no model here has the role {role!r}", where=str(path), help=f"there is {', '.join(files)}")
    return files[role]


def _name(header: Header, backbone: Spec) -> str:
    network = _innermost(backbone)
    shown = str(network.get("model")).partition(".")[0] if network.name == "timm" else network.name
    objective = header.objective_name or "imported"
    return f"{objective if header.is_headline else f'{objective}_{header.role}'}_{shown}"


def _order(header: Header, data: str, classes: class_names.Mapping | None) -> list[int] | None:
    """The model's classes in a data set's own order. Raises `InputError` where others would read them as other classes."""
    if data not in CLASSES:
        return None
    if header.num_classes != len(CLASSES[data]):
        raise InputError(
            f"the model has {header.num_classes} classes, {data} {len(CLASSES[data])}",
            help="--dataset says another name",
        )
    help = "--classes by_name puts them into the data set's order, by_number keeps the numbers; or leave --dataset out"
    return class_names.order(header.classes, CLASSES[data], classes, who=("the model", data), help=help)


def _innermost(spec: Spec) -> Spec:
    """What a component is made around, such as a normalisation around a network, or images held out of a data set; itself where that is nothing."""
    inside = [value for value in spec.kwargs.values() if isinstance(value, Spec) and value.kind == spec.kind]
    return _innermost(inside[0]) if len(inside) == 1 else spec


def _dataset(header: Header) -> str:
    """The data set's usual name: also of image folders whose classes are CIFAR's, in the same order."""
    spec = _innermost(header.data)
    same = [name for name, classes in CLASSES.items() if tuple(classes) == header.classes]
    return str(spec.get("name") if spec.name == "torchvision" else same[0] if same else spec.name).lower()


def _is_published(header: Header, dataset: str) -> bool:
    """Whether the model's own data are the data set of this name, and not images of one's own that have the same classes."""
    spec = _innermost(header.data)
    own = spec.get("name") if spec.name == "torchvision" else spec.name
    return str(own).lower() == dataset


def _threat(header: Header) -> Threat | None:
    """What the attacker may do in the evaluation that the model was saved with: norm and eps of its first attack."""
    for probe in header.evaluation:
        attack = probe.kwargs.get("attack")
        if isinstance(attack, Spec) and (eps := amount(attack.get("eps"))) is not None:
            return Threat(attack.get("norm") or "linf", eps)
    return None


def _threat_json(threat: Threat | None) -> dict[str, Any] | None:
    if threat is None:
        return None
    return {"norm": threat.norm, "eps": threat.written, "eps_255": round(threat.eps * 255, 3)}


def _measured(file: Path, header: Header, given: Path | None) -> Summary | None:
    """What was measured of these very weights: the run's own summary, or the JSON of a later `actkit probe`."""
    if given is not None:
        return _given(file, header, given)
    run = run_of(file)
    if run is None or not (run / "summary.json").is_file():
        return None
    summary = Summary.load(run)
    return summary if summary.run is not None and summary.run.steps == header.step else None


def _given(file: Path, header: Header, given: Path) -> Summary:
    """The results of these weights in the JSON of `actkit probe`, under the model's role."""
    try:
        found = json.loads(given.read_text(encoding="utf-8"))
        summaries = [Summary.from_json(one) for one in (found if isinstance(found, list) else [found])]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"these results cannot be read: {type(error).__name__}: {error}",
            where=str(given),
            help="`actkit probe --ckpt ... --json` writes them",
        ) from error
    own = sha256(file)
    for summary in summaries:
        for model, facts in summary.models.items():
            if facts.sha256 == own:
                results = {ResultName(header.role, label): result for label, result in summary.of(model).items()}
                return dataclasses.replace(summary, results=results)
    raise InputError(
        "these results are of other weights",
        where=str(given),
        help="examine this model: actkit probe --ckpt ... --json",
    )


def _results(summary: Summary, role: str) -> dict[str, Any]:
    """By the probes' labels, as JSON: a model card's reader sees numbers, settings and doubts."""
    specs = {spec.title: spec for spec in summary.evaluation}
    found = {}
    for label, result in summary.of(role).items():
        about = result.to_json()
        kept: dict[str, Any] = {
            key: about[key] for key in ("numbers", "images", "threat", "verified", "because") if key in about
        }
        found[label] = {"probe": repr(specs[label]) if label in specs else label, **kept}
    return found


def _recipe(file: Path) -> str | None:
    run = run_of(file)
    kept = run / "config.gin" if run else None
    return kept.read_text(encoding="utf-8") if kept and kept.is_file() else None


def _classifier(model: nn.Module, classes: int) -> str | None:
    """The name of the last layer that gives one value a class: timm replaces it where another number of classes is asked for."""
    last = None
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() in (2, 4) and weight.shape[0] == classes:
            last = name
    return last

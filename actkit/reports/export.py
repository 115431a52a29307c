"""Exports: a trained model as a folder that timm, RobustBench and the Hugging Face hub understand, with what was measured of it.

model.safetensors   the weights; also an actkit checkpoint
config.json         how timm builds it
description.json    threat model, numbers with their attacks' settings, flags of the audit, recipe, seed, sums
README.md           the same as a model card
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actkit import __version__
from actkit.config.spec import Spec, amount
from actkit.datasets import CLASSES
from actkit.errors import InputError
from actkit.evaluation.flags import run_of, standing_flags
from actkit.evaluation.summary import marked
from actkit.files import sha256, write_json, writing
from actkit.machine import versions
from actkit.networks import model_files
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
) -> Export:
    """Write the export of one model.

    Args:
        path: a run, a checkpoint directory or a model file.
        role: which of its models; the headline model by default.
        name: what the model is called, `<objective>_<backbone>` by default; with the data set and the norm it is its name in timm's registry.
        dataset: the data set's name for others ('cifar10', 'cifar100', 'imagenet'); by default that of the model's own data.
        results: the JSON of `actkit probe`, in place of the run's own summary.
        out: the folder to write, `exports/<name>` by default; it must not exist.
    """
    file, about = _chosen(path, role)
    backbone = model_files.untrained(Spec.from_json(about["backbone"]))
    called = name or _name(about, backbone)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-]*", called):
        raise InputError(f"{called!r} cannot be a model's name", help="letters, digits, - and _")
    summary = _summary(file, about, results)
    threat = _threat(about)
    data = dataset or _dataset(about)
    norm = threat["norm"] if threat else "clean"
    timm_name = re.sub(r"[^a-z0-9]+", "_", f"{called}_{data}_{norm}".lower())
    folder = out or Path("exports") / called
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "the folder is not empty, and an export overwrites nothing",
            where=str(folder),
            help="choose another --out, or remove it",
        )
    loaded, _ = model_files.load_role(file)
    classifier = _classifier(loaded.model, about["num_classes"])
    described = {
        "name": called, "timm_name": timm_name, "dataset": data, "threat_model": threat, "role": about["role"],
        "backbone": repr(backbone), "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "num_classes": about["num_classes"], "input": f"RGB or grey in [0,1], shape {tuple(about['shape'])}, normalised inside where it is at all",
        "objective": about.get("objective", ""), "seed": about["seed"], "epochs": about["epoch"], "steps": about["step"],
        "imported": about.get("imported"), "results": summary and _results(summary, about["role"]),
        "measured_by": summary and {k: summary[k] for k in ("command", "data", "data_fingerprint", "versions") if k in summary},
        "flags": [vars(flag) for flag in standing_flags(file)], "recipe": _recipe(file),
        "source_sha256": sha256(file), "exported_by": {"actkit": __version__, **versions()},
    }  # fmt: skip
    config = {
        "architecture": "actkit", "num_classes": about["num_classes"], "num_features": 0,
        "model_args": {"backbone": backbone.to_json(), "in_chans": about["shape"][0]},
        "pretrained_cfg": {
            "input_size": about["shape"], "fixed_input_size": False, "interpolation": "bilinear", "crop_pct": 0.875,
            "mean": [0.0] * about["shape"][0], "std": [1.0] * about["shape"][0],  # images in [0,1]; any normalisation is a layer
            "num_classes": about["num_classes"], "classifier": classifier, "label_names": about["classes"],
        },
        "actkit": {"name": called, "timm_name": timm_name},
    }  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder) as temporary:
        temporary.mkdir()
        model_files.save_tensors(
            loaded.model.state_dict(), temporary / "model.safetensors", {"format": "pt", "actkit": json.dumps(about)}
        )
        described["weights_sha256"] = sha256(temporary / "model.safetensors")
        write_json(temporary / "config.json", config)
        write_json(temporary / "description.json", described)
        (temporary / "README.md").write_text(model_card(described, summary), encoding="utf-8")
    return Export(folder, called, timm_name, data, norm.capitalize(), summary is not None)


def _chosen(path: Path, role: str | None) -> tuple[Path, dict[str, Any]]:
    files = {about["role"]: (file, about) for file in model_files.find(path) for about in [model_files.header(file)]}
    if role is None:
        first = next(iter(files.values()))[1]["roles"]
        role = next((r for r in first if r in files), next(iter(files)))
    if role not in files:
        raise InputError(f"no model here has the role {role!r}", where=str(path), help=f"there is {', '.join(files)}")
    return files[role]


def _name(about: Mapping[str, Any], backbone: Spec) -> str:
    network = backbone.kwargs["net"] if backbone.name == "normalized" else backbone
    shown = network.kwargs["model"].partition(".")[0] if network.name == "timm" else network.name
    objective = about.get("objective", "").partition("(")[0].removeprefix("objective.") or "imported"
    own = objective if about["role"] == about["roles"][0] else f"{objective}_{about['role']}"
    return f"{own}_{shown}"


def _dataset(about: Mapping[str, Any]) -> str:
    """The data set's usual name: also of image folders whose classes are CIFAR's."""
    spec = Spec.from_json(about["data"])
    while spec.name == "holdout":
        spec = spec.kwargs["data"]
    same = [name for name, classes in CLASSES.items() if sorted(classes) == sorted(about["classes"])]
    return str(spec.get("name") if spec.name == "torchvision" else same[0] if same else spec.name).lower()


def _threat(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the attacker may do in the evaluation that the model was saved with: norm and eps of its first attack."""
    for probe in map(Spec.from_json, about["evaluation"]):
        attack = probe.kwargs.get("attack")
        if isinstance(attack, Spec) and (eps := amount(attack.get("eps"))) is not None:
            norm = str(attack.get("norm") or "linf")
            return {"norm": norm, "eps": str(attack.get("eps")), "eps_255": round(eps * 255, 3)}
    return None


def _summary(file: Path, about: Mapping[str, Any], given: Path | None) -> dict[str, Any] | None:
    """What was measured of these very weights: the run's own summary, or the JSON of a later `actkit probe`."""
    if given is None:
        run = run_of(file)
        if run is None or not (run / "summary.json").is_file():
            return None
        summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return marked(run, summary) if summary.get("steps") == about["step"] else None
    try:
        found = json.loads(given.read_text(encoding="utf-8"))
        tables = found if isinstance(found, list) else [found]
        own = sha256(file)
        for table in tables:
            for model, described in table["models"].items():
                if described["sha256"] == own:
                    kept = {
                        k.replace(f"{model}.", f"{about['role']}.", 1): v
                        for k, v in table["results"].items()
                        if k.startswith(f"{model}.")
                    }
                    return {**table, "results": kept}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"these results cannot be read: {type(error).__name__}: {error}",
            where=str(given),
            help="`actkit probe --ckpt ... --json` writes them",
        ) from error
    raise InputError(
        "these results are of other weights",
        where=str(given),
        help="examine this model: actkit probe --ckpt ... --json",
    )


def _results(summary: Mapping[str, Any], role: str) -> dict[str, Any]:
    specs = {spec.title: spec for spec in map(Spec.from_json, summary["evaluation"])}
    own = {name.rpartition(".")[2]: r for name, r in summary["results"].items() if name.rpartition(".")[0] == role}
    return {
        label: {"probe": repr(specs[label]) if label in specs else label, "numbers": r["numbers"], "images": r.get("images"),
                "threat": r.get("threat"), **{k: r[k] for k in ("verified", "because") if k in r}}
        for label, r in own.items()
    }  # fmt: skip


def _recipe(file: Path) -> str | None:
    run = run_of(file)
    kept = run / "config.gin" if run else None
    return kept.read_text(encoding="utf-8") if kept and kept.is_file() else None


def _classifier(model: torch.nn.Module, classes: int) -> str | None:
    """The name of the last layer that gives one value a class: timm replaces it where another number of classes is asked for."""
    last = None
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() in (2, 4) and weight.shape[0] == classes:
            last = name
    return last

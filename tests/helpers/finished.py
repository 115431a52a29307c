"""Runs and studies as they lie in folders when they are done."""

from __future__ import annotations

import json
from pathlib import Path

from actkit.config.spec import Spec
from actkit.evaluation.summary import Found, ModelFacts, Summary
from actkit.probes import ResultName
from actkit.reports.paper.papers import item
from actkit.reports.paper.study import paper_study

EVALUATION = [
    Spec("probe", "accuracy"),
    Spec("probe", "robust_accuracy", {"attack": Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.02, "steps": 20})}),
]


def finished_run(
    folder: Path,
    *,
    seed=0,
    clean=0.9,
    robust=0.5,
    alpha=0.5,
    objective="act",
    evaluation=None,
    fingerprint="abc",
    verified=True,
) -> Path:
    """A finished run as it lies in a folder."""
    attack = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.02, "steps": 10})
    kwargs = {"attack": attack, **({"alpha": alpha} if objective == "act" else {})}
    role = Spec("", "role", {"backbone": Spec("backbone", "resnet18")})
    spec = Spec(
        "", "run",
        {"objective": Spec("objective", objective, kwargs), "data": Spec("dataset", "digits"), "epochs": 2, "batch_size": 8, "seed": seed,
         "evaluation": evaluation or EVALUATION, "roles": {"robust": role, **({"natural": role} if objective == "act" else {})}},
    )  # fmt: skip
    column = {"number": "clean", "title": "clean", "percent": True}
    attacked = {"number": "worst_run", "title": "PGD-20", "percent": True}
    about = {"images": 10, "flags": [], "threat": None}
    results = {
        "robust.accuracy": {"numbers": {"clean": clean}, "columns": [column], **about},
        "robust.robust_accuracy": {
            "numbers": {"worst_run": robust},
            "columns": [attacked],
            "verified": verified,
            "because": [],
            **about,
        },
    }
    summary = {
        "data": "digits", "data_fingerprint": {"test": fingerprint}, "results": results, "evaluation": [s.to_json() for s in evaluation or EVALUATION],
        "steps": 4, "epochs": 2, "seed": seed, "stopped_early": False, "recipe": "gin/r.gin", "command": "actkit run r", "sizes": {"test": 10},
    }  # fmt: skip
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(spec.to_json()))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def finish(cell, results) -> None:
    """A finished run as it lies in its folder: results {model.probe: {number: value}}."""
    cell.folder.mkdir(parents=True)
    found = {
        name: {"numbers": numbers, "columns": [], "threat": None, "images": 10, "flags": [], "verified": True}
        for name, numbers in results.items()
    }
    summary = {"data": "digits", "data_fingerprint": {"test": "abc"}, "evaluation": [], "results": found, "stopped_early": False, "recipe": "r.gin", "command": "c", "sizes": {}, "seed": 0, "epochs": 1, "steps": 1}  # fmt: skip
    (cell.folder / "summary.json").write_text(json.dumps(summary))


def finish_examination(
    folder: Path, model: Path, sha256: str, numbers: dict[str, float], probe: str = "gallery"
) -> None:
    """The summary that `actkit probe --out` leaves of one robust model under a probe."""
    folder.mkdir(parents=True, exist_ok=True)
    Summary(
        command="actkit probe",
        data="digits",
        data_fingerprint={"test": "abc"},
        sizes={"test": 10},
        evaluation=(Spec("probe", probe),),
        results={ResultName("robust", probe): Found(numbers, None, (), None, (), verified=True)},
        models={"robust": ModelFacts(str(model), sha256, "robust")},
    ).save(folder)


def study_of(name, scale, tmp_path, **how):
    return paper_study([item(name, scale)], out=tmp_path / "out", runs=str(tmp_path / "runs"), **how)

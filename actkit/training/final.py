"""The examination that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from actkit.config.spec import Spec
from actkit.display import Display
from actkit.evaluation.examination import examine_models
from actkit.evaluation.results import write_results
from actkit.evaluation.run_files import files_of_run, last_files_of_run
from actkit.evaluation.summary import RunFacts, Summary
from actkit.machine import provenance
from actkit.networks import model_files
from actkit.networks.roles import Role, examined
from actkit.training.run import Run
from actkit.training.state import Training


def examine_run(training: Training, display: Display, *, command: str, looked: bool, stopped_early: bool) -> Summary:
    """The evaluation that a run ends with, each probe's result in a file of its own; of the checkpoint that was chosen, and of the last.

    Args:
        looked: whether there was a look that `run.best` could choose by.
    """
    run, data, roles = training.run, training.data, training.roles
    position, folder, device = training.position, training.folder, training.device
    files = files_of_run(folder)
    chosen = model_files.header(next(iter(files.values())))
    _warn_of_gaps(run, roles, looked, display)
    models = examined(roles)
    if chosen.step != position.step:
        display.say(f"examining epoch {chosen.epoch}, the best by {run.best} on the validation images, and the last")
        files |= last_files_of_run(folder)
        models = _loaded(files, device)
    where = folder / "probes"
    where.mkdir(exist_ok=True)
    display.say("evaluation ...")
    assert chosen.epoch is not None
    assert chosen.step is not None
    evaluation = [probe.spec for probe in run.evaluation]
    data_spec: Spec = run.data.spec
    unfinished = where / ".unfinished.safetensors"
    with examine_models(run.evaluation, models, files, data, data_spec, display, unfinished=unfinished) as made:
        origin = {
            "data": data_spec.to_json(),
            "data_fingerprint": made.tested,
            "step": chosen.step,
            "command": command,
            "versions": provenance(),
        }
        write_results(where, made.results, made.found, evaluation, origin)
    best = run.best if looked else None
    return Summary(
        command=command,
        data=data.name,
        data_fingerprint=made.tested,
        sizes=dict(data.sizes),
        evaluation=tuple(evaluation),
        results=made.found,
        versions=provenance(),
        run=RunFacts(training.source, run.seed, chosen.epoch, chosen.step, stopped_early, position.epoch, best),
    )


def _warn_of_gaps(run: Run, roles: Mapping[str, Role], looked: bool, display: Display) -> None:
    """Say which of the models that were asked for there are none of."""
    if run.best and not looked:
        display.warn("run.best had no look to choose by: no epoch ended; the last batch's models are examined")
    for name, role in roles.items():
        if role.average is not None and role.averaged is None:
            display.warn(f"{name}: the training ended before anything was averaged")


def _loaded(files: Mapping[str, Path], device: torch.device | str) -> dict[str, Role]:
    return {name: model_files.load_role(file, device=device)[0] for name, file in files.items()}

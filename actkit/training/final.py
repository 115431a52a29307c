"""The examination that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from actkit.config.spec import Spec
from actkit.datasets import Data
from actkit.display import Display
from actkit.errors import ActkitError
from actkit.evaluation.examination import examine, examine_models
from actkit.evaluation.results import pictures_of, write_results
from actkit.evaluation.run_files import files_of_run, last_files_of_run
from actkit.evaluation.run_states import UNFINISHED
from actkit.evaluation.summary import RunFacts, Summary
from actkit.files import write_json
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
    if stopped_early and run.best is None and chosen.step == position.step:
        display.warn("the models of the epoch before the fall were not kept: those after it are examined")
    models = examined(roles)
    if chosen.step != position.step:
        display.say(f"examining {_which(run, chosen.epoch, position.epoch)}")
        files |= last_files_of_run(folder)
        models = _loaded(files, device)
    where = folder / "probes"
    where.mkdir(exist_ok=True)
    display.say(f"examining  {', '.join(models)}: {', '.join(probe.spec.title for probe in run.evaluation)}")
    assert chosen.epoch is not None
    assert chosen.step is not None
    evaluation = [probe.spec for probe in run.evaluation]
    data_spec: Spec = run.data.spec
    unfinished = where / UNFINISHED
    with examine_models(run.evaluation, models, files, data, data_spec, display, unfinished=unfinished) as made:
        origin = {
            "data": data_spec.to_json(),
            "data_fingerprint": made.tested,
            "step": chosen.step,
            "command": command,
            "versions": provenance(),
        }
        write_results(where, made.results, made.found, evaluation, origin)
        _show_adversarial_images(run, models, data, where, origin, display)
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


def _show_adversarial_images(
    run: Run, models: Mapping[str, Role], data: Data, where: Path, origin: Mapping[str, Any], display: Display
) -> None:
    """A picture of what the evaluation's first attack makes of a few images, where it has one; it is no part of what was measured."""
    attacking = next((p.spec for p in run.evaluation if isinstance(p.spec.kwargs.get("attack"), Spec)), None)
    if attacking is None or any(probe.spec.name == "adversarial_images" for probe in run.evaluation):
        return
    shown = {name: attacking.kwargs[name] for name in ("attack", "split", "seed") if name in attacking.kwargs}
    try:
        results = examine([Spec("probe", "adversarial_images", shown).build()], models, data)
    # A plugin's attack that cannot do this, say: the numbers stand.
    except ActkitError as error:
        display.warn(f"no picture of adversarial images: {error.message}")
        return
    for picture in pictures_of(results, origin):
        write_json(where / f"{picture.name}.picture.json", picture.to_json())


def _which(run: Run, chosen: int | None, last: int) -> str:
    """Which two epochs are examined, and why the first."""
    if run.best is not None:
        return f"epoch {chosen}, the best by {run.best} on the validation images, and the last"
    return f"epoch {chosen}, the last before accuracy under attack fell, and epoch {last}, after the fall"


def _warn_of_gaps(run: Run, roles: Mapping[str, Role], looked: bool, display: Display) -> None:
    """Say which of the models that were asked for there are none of."""
    if run.best and not looked:
        display.warn("run.best had no look to choose by: no epoch ended; the last batch's models are examined")
    for name, role in roles.items():
        if role.average is not None and role.averaged is None:
            display.warn(f"{name}: the training ended before anything was averaged")


def _loaded(files: Mapping[str, Path], device: torch.device | str) -> dict[str, Role]:
    return {name: model_files.load_role(file, device=device)[0] for name, file in files.items()}

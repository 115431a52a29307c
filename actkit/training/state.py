"""A training under way: what is trained, on what, how far it is, and what its models' files say of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from actkit.config.plugins import plugins_of
from actkit.datasets import Data
from actkit.machine import versions
from actkit.networks.model_files import Header
from actkit.networks.roles import Role, with_averages
from actkit.training.folder import without_io_settings
from actkit.training.loop import Position
from actkit.training.run import Run


@dataclass(frozen=True)
class Training:
    """A run under way; its roles and its position move on in place.

    Args:
        source: the recipe, as a person calls it.
        headers: what the file of each role's model says, its epoch and step aside.
    """

    run: Run
    source: str
    data: Data
    roles: dict[str, Role]
    headers: dict[str, Header]
    position: Position
    folder: Path

    @property
    def headline(self) -> str:
        """The name of the headline model."""
        return self.run.objective.roles[0]

    @property
    def device(self) -> torch.device:
        return next(iter(self.roles.values())).device

    def headers_now(self) -> dict[str, Header]:
        """What the file of each model says if it is saved now; an average (robust.ema) has the network of its role."""
        roles = with_averages(self.roles)
        names = tuple(roles)
        return {
            name: dataclasses.replace(
                self.headers[name.partition(".")[0]],
                role=name,
                roles=names,
                classifies=roles[name].classifies,
                epoch=self.position.epoch,
                step=self.position.step,
            )
            for name in names
        }


def headers_of(run: Run, data: Data) -> dict[str, Header]:
    """What the file of each of a run's models says of it before the first step: enough to rebuild it and to repeat its evaluation."""
    return {
        name: Header(
            role=name,
            roles=tuple(run.roles),
            backbone=config.backbone.spec,
            num_classes=data.num_classes,
            classes=tuple(data.classes),
            shape=data.shape,
            data=without_io_settings(run.data.spec),
            evaluation=tuple(probe.spec for probe in run.evaluation),
            objective=repr(run.objective.spec),
            seed=run.seed,
            epoch=0,
            step=0,
            versions=versions(),
            plugins=plugins_of([config.backbone.spec, run.data.spec, *(probe.spec for probe in run.evaluation)]),
        )
        for name, config in run.roles.items()
    }

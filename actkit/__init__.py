"""actkit: train and examine adversarially robust image classifiers, with Adversarial Concurrent Training at its heart."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# What type checkers see; `_PUBLIC` says it again for the interpreter, and a test holds the two equal.
if TYPE_CHECKING:
    from actkit.attacks import Goal, ascend, away_from, expectation, norm_named, untargeted
    from actkit.config.norm import Norm
    from actkit.config.recipe import load_recipe as load
    from actkit.config.registry import (
        Attack,
        Backbone,
        Dataset,
        Model,
        Objective,
        Optimizer,
        Probe,
        Schedule,
        register,
    )
    from actkit.config.spec import Spec
    from actkit.datasets import Data, Split
    from actkit.errors import ActkitError, InputError
    from actkit.losses import cross_entropy, kl, kl_from, mimicry
    from actkit.networks.roles import Role
    from actkit.noise import Noise
    from actkit.probes import Column, Flag, Result
    from actkit.probes.pictures import Picture
    from actkit.python.attacking import attack
    from actkit.python.data import as_data
    from actkit.python.evaluating import evaluate
    from actkit.python.evaluation import Evaluation
    from actkit.python.models import LoadedModel, load_model
    from actkit.python.training import Trained, train
    from actkit.reports.paper.terms import (
        Claim,
        Item,
        ItemExamination,
        ItemTraining,
        Paper,
        PaperScale,
        Published,
        PublishedColumn,
        PublishedRow,
    )
    from actkit.training.loop import fit, update

__version__ = "0.1.0"

# The public names by the module that holds each; torch is imported only when one of them is asked for.
_PUBLIC = {
    "attacks": "Goal ascend away_from expectation norm_named untargeted",
    "config.norm": "Norm",
    "config.recipe": "load",
    "config.registry": "Attack Backbone Dataset Model Objective Optimizer Probe Schedule register",
    "config.spec": "Spec",
    "datasets": "Data Split",
    "errors": "ActkitError InputError",
    "losses": "cross_entropy kl kl_from mimicry",
    "networks.roles": "Role",
    "noise": "Noise",
    "probes": "Column Flag Result",
    "probes.pictures": "Picture",
    "python.attacking": "attack",
    "python.data": "as_data",
    "python.evaluating": "evaluate",
    "python.evaluation": "Evaluation",
    "python.models": "LoadedModel load_model",
    "python.training": "Trained train",
    "reports.paper.terms": "Claim Item ItemExamination ItemTraining Paper PaperScale Published PublishedColumn PublishedRow",
    "training.loop": "fit update",
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names.split()}
# Where a name is another one in its module.
_NAMES_THERE = {"load": "load_recipe"}

__all__ = ["ActkitError", "InputError", "Noise", "Spec", "__version__", "load", "register"]
__all__ += ["Attack", "Backbone", "Dataset", "Model", "Norm", "Objective", "Optimizer", "Probe", "Schedule"]
__all__ += ["Column", "Data", "Flag", "Goal", "Picture", "Result", "Role", "Split"]
__all__ += ["Evaluation", "LoadedModel", "Trained", "as_data", "attack", "evaluate", "load_model", "train"]
__all__ += ["Claim", "Item", "ItemExamination", "ItemTraining", "Paper", "PaperScale"]
__all__ += ["Published", "PublishedColumn", "PublishedRow"]
__all__ += [
    "ascend",
    "away_from",
    "cross_entropy",
    "expectation",
    "fit",
    "kl",
    "kl_from",
    "mimicry",
    "norm_named",
    "untargeted",
    "update",
]

# Where actkit's own components of each kind are registered. The registry, which lies below them, imports these when it is first asked.
COMPONENTS = {
    "backbone": ("networks.backbones",),
    "dataset": ("datasets",),
    "attack": ("attacks",),
    "norm": ("attacks.norms",),
    "objective": ("training.objectives",),
    "probe": ("probes",),
    "paper": ("reports.paper.act",),
    "optimizer": ("networks.roles",),
    "schedule": ("networks.roles",),
    "": ("networks.roles", "training.run", "training.study"),
}

# A type checker sees the imports above alone, and so a name that is not there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'actkit' has no attribute {name!r}")
        return getattr(importlib.import_module(f"actkit.{_HOMES[name]}"), _NAMES_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)

"""actkit: train and examine adversarially robust image classifiers, with Adversarial Concurrent Training at its heart."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The public names by the module that holds each; torch is imported only when one of them is asked for.
_PUBLIC = {
    "errors": ["ActkitError", "InputError"],
    "noise": ["Noise"],
    "losses": ["cross_entropy", "kl", "kl_from", "mimicry"],
    "config.registry": [
        "register", "Model", "Backbone", "Dataset", "Attack", "Objective", "Probe", "Optimizer", "Schedule",
    ],
    "config.spec": ["Spec"],
    "attacks": ["untargeted", "away_from"],
    "datasets": ["Data", "Split"],
    "networks.roles": ["Role"],
    "probes": ["Result", "Column", "Flag"],
    "probes.pictures": ["Picture"],
    "training.loop": ["fit", "update"],
}  # fmt: skip
_HOMES = {name: (module, name) for module, names in _PUBLIC.items() for name in names}
_HOMES["load"] = ("config.recipe", "load_recipe")
__all__ = sorted([*_HOMES, "__version__"])

# Where actkit's own components of each kind are registered. The registry, which lies below them, imports these when it is first asked.
COMPONENTS = {
    "backbone": "networks.backbones", "dataset": "datasets", "attack": "attacks", "objective": "training.objectives",
    "probe": "probes", "optimizer": "networks.roles", "schedule": "networks.roles", "": "training.study",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'actkit' has no attribute {name!r}")
    module, called = _HOMES[name]
    return getattr(importlib.import_module(f"actkit.{module}"), called)


def __dir__() -> list[str]:
    return __all__

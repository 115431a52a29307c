"""actkit: train and examine adversarially robust image classifiers, with Adversarial Concurrent Training at its heart."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The public names and where they live; torch is imported only when one of them is asked for.
_HOMES = {
    "register": "registry", "Model": "registry", "Backbone": "registry", "Dataset": "registry", "Attack": "registry",
    "Objective": "registry", "Probe": "registry", "Optimizer": "registry", "Schedule": "registry", "Spec": "spec",
    "ActkitError": "errors", "InputError": "errors", "Noise": "noise", "cross_entropy": "losses", "kl": "losses",
    "mimicry": "losses", "untargeted": "attacks", "away_from": "attacks", "Data": "datasets", "Split": "datasets",
    "Result": "probes", "Column": "probes", "Flag": "probes", "Picture": "pictures", "Role": "roles", "fit": "loop", "update": "loop", "load": "config",
}  # fmt: skip
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'actkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"actkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

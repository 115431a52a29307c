"""Probes: anything measured on trained models. `(model, ..., data, *, ...)` -> `Result`.

The same code measures while training and in `actkit probe` later, always in fp32, so the numbers cannot differ. What happened to each
example is kept. Random starts depend on (seed, example, start) alone, so neither the size of the batch nor what was dropped changes an answer.
A probe whose first parameter is called `models` gets all of them at once, by name, and gives one Result for each.
"""

from actkit.findings import Column, Flag, ResultName
from actkit.probes.accuracy import accuracy, robust_accuracy, sweep
from actkit.probes.analyses import compression, entropy, norms
from actkit.probes.audit import audit
from actkit.probes.autoattack import autoattack
from actkit.probes.corruptions import corruptions
from actkit.probes.gallery import adversarial_images, gallery, surface
from actkit.probes.measure import labels, measure
from actkit.probes.result import Progress, Result
from actkit.probes.smallest import fgsm_k, smallest
from actkit.probes.transfer import transfer

__all__ = [
    "Column",
    "Flag",
    "Progress",
    "Result",
    "ResultName",
    "accuracy",
    "adversarial_images",
    "audit",
    "autoattack",
    "compression",
    "corruptions",
    "entropy",
    "fgsm_k",
    "gallery",
    "labels",
    "measure",
    "norms",
    "robust_accuracy",
    "smallest",
    "surface",
    "sweep",
    "transfer",
]

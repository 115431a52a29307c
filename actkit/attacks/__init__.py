"""Attacks: functions of a goal and an input; they never see a model or labels.

`goal(x, rows) -> value, fooled` (`actkit.attacks.goals`) gives, for the examples `rows` of the batch, the value to maximise and whether the
attacker has already won there, or None where nobody asks. Where somebody asks, an example that has won may leave the attack.
Inputs are images in [0,1] of shape (B, C, H, W); eps and step_size are in the same unit.
"""

from actkit.attacks.apgd import apgd
from actkit.attacks.goals import Goal, Rows, ascend, away_from, expectation, targeted, untargeted
from actkit.attacks.norms import budget_problems, check_budget, threat
from actkit.attacks.pgd import fgsm, pgd
from actkit.attacks.smallest import smallest_perturbation
from actkit.attacks.square import square
from actkit.config.norm import Norm, norm_named
from actkit.findings import Threat

__all__ = [
    "Goal",
    "Norm",
    "Rows",
    "Threat",
    "apgd",
    "ascend",
    "away_from",
    "budget_problems",
    "check_budget",
    "expectation",
    "fgsm",
    "norm_named",
    "pgd",
    "smallest_perturbation",
    "square",
    "targeted",
    "threat",
    "untargeted",
]

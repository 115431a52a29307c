"""A run in words: numbers with their intervals, what the checks are worth, how it was measured."""

from __future__ import annotations

import dataclasses
import json

import pytest

from actkit.attacks import Threat
from actkit.config.spec import Quantity, Spec
from actkit.display import duration
from actkit.evaluation.summary import Found, Summary
from actkit.probes import Column, Flag, ResultName
from actkit.reports import words
from actkit.reports.run_page import of_run
from actkit.reports.tables import find
from actkit.reports.words import Share

PGD = Spec("attack", "pgd", {"eps": Quantity("8/255"), "step_size": Quantity("2/255"), "steps": 20})
PROBES = (
    Spec("probe", "accuracy"),
    Spec("probe", "robust_accuracy", {"attack": PGD, "starts": 1, "limit": 200}, "pgd20"),
    Spec("probe", "audit", {"attack": PGD, "limit": 200}),
)
GREEN = Flag("logits", "green", "the outputs are logits")


def summary(*, clean=0.75, robust=0.2, images=200, flags=(GREEN,), verified=True) -> Summary:
    """An examination of one model on some of 1,000 images."""
    threat = Threat("linf", Quantity("8/255"))
    found = {
        "accuracy": Found({"clean": clean}, 1000, (Column("clean", "clean"),), None, ()),
        "pgd20": Found({"worst_run": robust}, images, (Column("worst_run", "PGD-20"),), threat, (), verified),
        "audit": Found(
            {**({"green": 1.0} if flags else {}), "clean": clean, "attack": robust}, None, (), threat, tuple(flags)
        ),
    }
    probes = tuple(spec.replace(limit=images) if spec.name != "accuracy" else spec for spec in PROBES)
    probes = tuple(dataclasses.replace(spec, label=old.label) for spec, old in zip(probes, PROBES, strict=True))
    results = {ResultName("robust", label): one for label, one in found.items()}
    return Summary(command="", data="d", data_fingerprint={}, sizes={"test": 1000}, evaluation=probes, results=results)


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    # By hand, from Wilson's formula: with no hit of 10, z^2 / (10 + z^2); of half the images, symmetric.
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (50, 100, 0.40383, 0.59617)],
)
def test_the_interval_of_a_share_is_wilsons(hits, images, low, high):
    assert Share(hits, images).interval == pytest.approx((low, high), abs=1e-5)


def test_what_is_no_whole_number_of_images_has_no_interval():
    assert Share.of(0.35, 100) == Share(35, 100)
    assert Share.of(0.3551, 100) is None
    assert Share.of(0.5, None) is None
    assert Share.of(1.9, 100) is None


def test_a_verdict_counts_images_unattacked_and_under_attack_and_says_whether_the_checks_hold():
    assert words.verdict(summary(), "robust") == (
        "The robust model gets 750 of 1,000 images (75.0 %, 95 % interval 72.2 to 77.6) right; "
        "at most 40 of 200 images (20.0 %, 95 % interval 15.0 to 26.1) stay right within linf eps 8/255 (by PGD-20). "
        "Nothing that was checked suggests gradient masking."
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "Nothing was checked for gradient masking."),
        ((GREEN, Flag("noise", "red", "x")), "1 of 2 checks for gradient masking failed."),
        ((GREEN, Flag("noise", "yellow", "x")), "No check for gradient masking failed; 1 of 2 asks for caution."),
    ],
    ids=["none", "red", "yellow"],
)
def test_a_verdict_ends_with_what_the_checks_found(flags, said):
    assert words.verdict(summary(flags=flags), "robust").endswith(said)


def test_a_number_that_a_check_makes_doubtful_is_said_to_be():
    assert "(by PGD-20), which cannot be believed." in words.verdict(summary(verified=False), "robust")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, ""),
        ({"images": 8, "clean": 0.25}, "few images (8), and the model gets 2 of 8 right"),
        ({"images": 8, "clean": 1.0}, "few images (8)"),
        ({"clean": 0.1}, "the model gets 20 of 200 right"),
        ({"images": 8, "flags": ()}, ""),
    ],
    ids=["enough", "few of few", "few images", "untrained", "nothing checked"],
)
def test_checks_that_looked_at_little_say_how_little(how, said):
    assert words.thin_evidence(summary(**how), "robust") == said


def test_how_it_was_measured_is_a_sentence_and_no_call():
    said = [words.protocol(spec, summary()) for spec in summary().evaluation]
    assert said == [
        "Clean: accuracy without an attack on all 1,000 test images.",
        "PGD-20 (20 steps of 2/255 within linf eps 8/255): accuracy under this attack from one start on 200 of the 1,000 test images; "
        "every image is attacked, and the attack's last point counts.",
        "Audit: checks for gradient masking, of PGD-20 (20 steps of 2/255 within linf eps 8/255) on 200 of the 1,000 test images.",
    ]


def test_a_probe_that_is_not_installed_here_is_still_named():
    assert "not installed here" in words.protocol(Spec("probe", "of_a_plugin", {}, "mine"), summary())


def test_a_component_is_shown_without_the_look_of_a_call():
    inner = Spec("backbone", "resnet", {"layers": [1, 1], "width": 16})
    assert words.component(inner) == "resnet (layers 1, 1; width 16)"
    assert words.component(Spec("backbone", "normalised", {"backbone": inner})).startswith(
        "normalised (backbone resnet ("
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.004, "4 ms"),
        (0.2, "0.2 s"),
        (60, "60 s"),
        (95, "2 min"),
        (5400, "1 h 30 min"),
        (7200, "2 h"),
        (200_000, "2.3 days"),
    ],
)
def test_a_time_in_words(seconds, said):
    assert duration(seconds) == said


def test_the_page_of_a_run_says_what_was_trained_against_what_and_how_long(tmp_path):
    from helpers.finished import finished_run

    folder = finished_run(tmp_path / "run")
    kept = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**kept, "sizes": {"train": 100, "test": 10}}))
    line = {"epoch": 1, "step": 2, "images_per_second": 2.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "epoch": 2}) + "\n")
    kept = {"device": "cpu", "parameters": {"robust": 1234}, "examination_seconds": 7.0}
    (folder / "environment.json").write_text(json.dumps(kept))
    made = of_run(find([folder])[0][0])
    assert made.lead == (
        "Adversarial Concurrent Training (Arani et al. 2020, Algorithm 1): the models robust and natural, trained on 100 images of digits "
        "for 2 epochs (4 batches of 8), against PGD-10 (10 steps of 0.02 within linf eps 0.1). The training took 2 min, the examination 7 s on ?."
    )
    facts = next(section.facts for section in made.sections if section.title == "What was trained")
    assert facts["robust"] == "resnet18, 1,234 parameters"


def test_rates_of_success_are_no_accuracy_in_a_verdict():
    """Of ten images another model's examples fool one: that is no sign that one stays right."""
    made = summary(flags=())
    threat = Threat("linf", Quantity("8/255"))
    rates = Found({"natural": 0.1}, 10, (Column("natural", "from natural"),), threat, (Flag("x", "green", "y"),), True)
    made = dataclasses.replace(made, results={**made.results, ResultName("robust", "transfer"): rates})
    assert "(by PGD-20)" in words.verdict(made, "robust")
    assert words.verdict(made, "robust").endswith("Nothing was checked for gradient masking.")

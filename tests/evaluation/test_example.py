"""The model that comes along: examined and reported by name, and its stored examination repeated to the digit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actkit.evaluation.summary import Summary
from actkit.networks.model_files import EXAMPLES, find, header

PLACE = EXAMPLES / "act_digits"


def test_it_is_found_by_its_name_and_a_wrong_name_is_told(actkit):
    assert [file.stem for file in find(Path("example:act_digits"))] == ["natural", "robust"]
    said = actkit("probe", "--ckpt", "example:act_digit")
    assert said.code == 2
    assert "did you mean 'act_digits'?" in said.err


def test_its_files_are_those_of_the_first_format_and_still_mean_the_same():
    about = header(PLACE / "checkpoints/step-00000720/robust.safetensors")
    assert (about.role, about.roles, about.num_classes, about.shape) == ("robust", ("robust", "natural"), 10, (1, 8, 8))
    summary = Summary.load(PLACE)
    assert not summary.unverified
    assert summary.exit_code == 0


def test_todays_code_repeats_its_stored_accuracy_and_leaves_nothing_behind(actkit):
    before = sorted((p, p.stat().st_mtime_ns) for p in PLACE.rglob("*"))
    probes = ["--probe", "accuracy", "--probe", "audit", "-s", "probe.audit.limit=20"]
    said = actkit("probe", "--ckpt", "example:act_digits", *probes, "--device", "cpu", "--json")
    (made,) = json.loads(said.out)
    stored = json.loads((PLACE / "summary.json").read_text())
    for model in ("robust", "natural"):
        assert made["results"][f"{model}.accuracy"]["numbers"] == stored["results"][f"{model}.accuracy"]["numbers"]
    assert sorted((p, p.stat().st_mtime_ns) for p in PLACE.rglob("*")) == before


@pytest.mark.slow
def test_todays_code_repeats_its_whole_stored_examination(actkit):
    """On the kind of machine that made it; elsewhere an image or two may fall otherwise. How many flags an audit raises grows with its checks."""
    said = actkit("probe", "--ckpt", "example:act_digits", "--device", "cpu", "--json")
    (made,) = json.loads(said.out)
    stored = json.loads((PLACE / "summary.json").read_text())
    levels = {"green", "yellow", "red"}

    def numbers(results):
        return {n: {k: v for k, v in r["numbers"].items() if k not in levels} for n, r in results.items()}

    assert numbers(made["results"]) == numbers(stored["results"])
    old, new = (
        [r["numbers"]["red"] for n, r in kept.items() if n.endswith(".audit")]
        for kept in (stored["results"], made["results"])
    )
    assert old == new == [0.0, 0.0]


def test_it_is_reported_by_its_name(actkit):
    said = actkit("report", "example:act_digits")
    assert said.code == 0, said.err
    assert "83.01" in said.out

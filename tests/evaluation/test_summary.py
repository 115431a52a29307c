"""What an examination found, as a file and back; a file that says something else is refused in one line."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest

from actkit.attacks import Threat
from actkit.config.spec import Quantity
from actkit.config.typed import typed
from actkit.errors import InputError
from actkit.evaluation.summary import Summary
from actkit.findings import Counts
from actkit.networks.model_files import EXAMPLES, located
from actkit.probes import Flag, ResultName
from helpers.finished import finished_run

EXAMPLE = EXAMPLES / "act_digits"


def example() -> dict:
    """What the example model's run found, as its file says it."""
    return json.loads((EXAMPLE / "summary.json").read_text(encoding="utf-8"))


def probed() -> dict:
    """The same as `actkit probe` would say it."""
    own = example()
    model = {"file": "robust.safetensors", "sha256": "ab", "role": "robust", "objective": "", "seed": None, "epochs": None, "steps": None}  # fmt: skip
    imported = {"file": "theirs.pt", "sha256": "cd", "key": "model", "notes": ["left out 3 entries"]}
    kept = ("data", "data_fingerprint", "command")
    return {
        "models": {"robust": {**model, "imported": imported}},
        **{key: own[key] for key in kept},
        "device": "cpu",
        "versions": own["versions"],
        **{key: own[key] for key in ("sizes", "evaluation", "results")},
    }


@pytest.mark.parametrize("data", [example(), probed()], ids=["a run", "a probe"])
def test_a_summary_comes_back_byte_for_byte(data, tmp_path):
    found = Summary.from_json(data)
    assert json.dumps(found.to_json()) == json.dumps(data)
    found.save(tmp_path)
    assert (tmp_path / "summary.json").read_text() == json.dumps(data, indent=1) + "\n"
    assert Summary.from_json(json.loads((tmp_path / "summary.json").read_text())) == found


def test_the_example_models_summary_is_typed():
    found = Summary.load(located(EXAMPLE))
    assert (found.headline, found.model_names) == ("robust", ["robust", "natural"])
    pgd = found.results[ResultName("robust", "pgd20")]
    assert pgd.numbers["worst_run"] == pytest.approx(0.8301, abs=1e-4)
    assert (pgd.verified, pgd.threat.written, pgd.images) == (True, "0.15", 359)
    assert found.of("natural")["accuracy"].verified is None, "nothing was attacked"
    assert {model: len(flags) for model, flags in found.flags.items()} == {"robust": 18, "natural": 18}
    assert found.run is not None
    assert (found.run.epochs, found.run.best, found.unverified, found.exit_code) == (60, None, False, 0)
    assert found.evaluation[1].title == "pgd20"


def test_a_run_that_does_not_say_how_far_it_went_says_no_more_when_it_is_written_again(tmp_path):
    kept = json.loads((finished_run(tmp_path / "run") / "summary.json").read_text())
    assert not {"trained_epochs", "best"} & Summary.from_json(kept).to_json().keys()


def test_a_red_flag_makes_a_summary_unverified_and_its_exit_code_3():
    data = example()
    data["results"]["natural.audit"]["flags"][0]["level"] = "red"
    found = Summary.from_json(data)
    assert (found.unverified, found.exit_code) == (True, 3)


def test_a_flag_keeps_what_it_rests_on_and_one_of_an_older_version_rests_on_nothing():
    counted = Flag("noise", "yellow", "stronger", Counts(200, 5, 1, 0.11))
    plain = {"check": "noise", "level": "yellow", "said": "stronger"}
    assert typed(Flag, json.loads(json.dumps(counted.to_json()))) == counted
    assert typed(Flag, plain) == Flag("noise", "yellow", "stronger")
    assert typed(Flag, plain).to_json() == plain
    data = example()
    data["results"]["natural.audit"]["flags"][0] |= {"counts": {"images": 200, "against": 5, "in_favour": 1, "p": 0.11}}
    assert Summary.from_json(data).flags["natural"][0].counts == Counts(200, 5, 1, 0.11)


def test_a_training_that_was_stopped_early_has_exit_code_3_and_its_numbers_stand():
    found = Summary.from_json({**example(), "stopped_early": True})
    assert (found.unverified, found.exit_code) == (False, 3)


def test_a_later_flag_marks_what_an_attack_gave_on_that_model_and_nothing_else(tmp_path, monkeypatch):
    red = [Flag("noise", "red", "stronger"), Flag("eps 0", "green", "well")]
    files = {"robust": tmp_path / "robust", "natural": tmp_path / "natural"}
    monkeypatch.setattr("actkit.evaluation.summary.standing_flags", lambda file: red if file == files["robust"] else [])
    found = Summary.from_json(example())
    both = found.results | {ResultName("natural>robust", "t"): found.results["natural", "pgd20"]}
    marked = dataclasses.replace(found, results=both).with_flags_of(files)
    doubtful = [str(name) for name, result in marked.results.items() if result.unverified]
    assert doubtful == ["robust.pgd20", "natural>robust.t"]
    assert marked.because == ["robust, noise: stronger"]
    assert not found.unverified, "the summary itself stays as it was"


def without(key):
    return lambda data: data.pop(key)


def put(*path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


RESULT = ("results", "robust.pgd20")
MUTANTS = {
    **{f"without {key}": (without(key), f"it lacks '{key}'") for key in example() if key not in ("trained_epochs", "best", "versions")},
    "results of a text": (put("results", value="none"), "results: should be"),
    "results of null": (put("results", value=None), "results: should be"),
    "a result of a number": (put(*RESULT, value=3), "results.robust.pgd20: should be an object, got 3 (int)"),
    "a result of no probe": (put("results", "robust", value=example()["results"]["robust.pgd20"]), "'robust' names no result"),
    "a number as a text": (put(*RESULT, "numbers", "mean", value="0.5"), "numbers.mean: should be float, got '0.5' (str)"),
    "a number that is true": (put(*RESULT, "numbers", "mean", value=True), "should be float, got True (bool)"),
    "a number that is none": (put(*RESULT, "numbers", "mean", value=float("nan")), "should be float, got nan"),
    "a number without end": (put(*RESULT, "numbers", "mean", value=10**400), "should be float"),
    "numbers in a list": (put(*RESULT, "numbers", value=[0.5]), "numbers: should be"),
    "columns of texts": (put(*RESULT, "columns", value=["clean"]), "columns[0]: should be an object"),
    "a column of no number": (put(*RESULT, "columns", 0, value={"title": "x"}), "it lacks 'number'"),
    "a threat of a text": (put(*RESULT, "threat", value="linf"), "threat: should be an object"),
    "an eps that is no number": (put(*RESULT, "threat", "eps", value="8/x"), "threat.eps: '8/x' is no number"),
    "an eps without end": (put(*RESULT, "threat", "eps", value="1e999999999"), "threat.eps: '1e999999999' is no number"),
    "an eps of a number": (put(*RESULT, "threat", "eps", value=0.15), "threat.eps: should be str"),
    "a flag of another colour": (put(*RESULT, "flags", value=[{"check": "a", "level": "blue", "said": "b"}]), "should be 'green' or 'yellow' or 'red'"),
    "flags of null": (put(*RESULT, "flags", value=None), "flags: should be"),
    "verified as a text": (put(*RESULT, "verified", value="no"), "verified: should be bool"),
    "because of a text": (put(*RESULT, "because", value="noise"), "because: should be"),
    "images of a fraction": (put(*RESULT, "images", value=1.5), "images: should be int"),
    "an evaluation of texts": (put("evaluation", value=["probe.accuracy"]), "evaluation[0]: should be a component"),
    "a probe without settings": (put("evaluation", 0, value={"spec": "probe.accuracy"}), "evaluation[0]: should be a component"),
    "a label that leads elsewhere": (put("evaluation", 1, "label", value="../../x"), "'../../x' is no plain name"),
    "a component inside that is none": (put("evaluation", 1, "kwargs", "attack", value={"spec": 3, "kwargs": {}}), "should be a component"),
    "steps of a text": (put("steps", value="720"), "steps: should be int"),
    "epochs of null": (put("epochs", value=None), "epochs: should be int"),
    "sizes of texts": (put("sizes", "test", value="359"), "sizes.test: should be int"),
    "fingerprints of numbers": (put("data_fingerprint", "test", value=1), "data_fingerprint.test: should be str"),
    "versions in a list": (put("versions", value=[]), "versions: should be"),
    "models of a number": (put("models", value=3), "models: should be"),
    "models of texts": (put("models", value={"robust": "file"}), "models.robust: should be an object"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MUTANTS.values(), ids=MUTANTS)
def test_a_file_that_says_something_else_is_refused_in_one_line(change, message, tmp_path):
    data = copy.deepcopy(example())
    change(data)
    (tmp_path / "summary.json").write_text(json.dumps(data))
    with pytest.raises(InputError) as raised:
        Summary.load(tmp_path)
    assert message in raised.value.message
    assert "summary.json cannot be read" in raised.value.message
    assert len(raised.value.message.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '"x"', "{", "[" * 100_000, "{}", "\xff"])
def test_a_file_that_is_no_summary_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "summary.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"summary.json cannot be read"):
        Summary.load(tmp_path)


def test_a_summary_that_is_not_there_is_said_to_be():
    with pytest.raises(InputError, match="No such file"):
        Summary.load(EXAMPLES / "none")


def test_a_later_flag_adds_to_the_reasons_that_were_there():
    found = Summary.from_json(example()).results["robust", "pgd20"]
    doubted = found.doubted(["robust, noise: stronger"]).doubted(
        ["robust, noise: stronger", "natural, noise: stronger"]
    )
    assert doubted.because == ("robust, noise: stronger", "natural, noise: stronger")


@pytest.mark.parametrize(
    ("eps", "kept"),
    [
        (Quantity("8/255"), {"eps": "8/255", "value": 8 / 255}),
        (0.15, {"eps": "0.15", "value": 0.15}),
        (1e-5, {"eps": "1e-05", "value": 1e-5}),
        (math.nan, {"eps": None, "value": None}),
    ],
)
def test_a_threat_goes_to_json_and_back_as_it_was_written(eps, kept):
    own = Threat("l2", eps)
    assert own.to_json() == {"norm": "l2", **kept}
    back = Threat.from_json(own.to_json())
    assert (back, str(back)) == (own, str(own))

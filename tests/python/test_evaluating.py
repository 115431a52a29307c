"""`actkit.evaluate`: the numbers of `actkit probe`, as a table, arrays, intervals and a verdict."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import actkit
from actkit import ActkitError, Column, Flag, InputError, Result, Spec
from actkit.attacks import Threat
from actkit.config import registry
from actkit.display import Display
from actkit.evaluation.examination import probe_checkpoints
from actkit.evaluation.summary import Found
from actkit.findings import wilson
from actkit.probes import ResultName
from actkit.python.verdict import verdict_of

X = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above a half: an image is broken just where eps exceeds its distance from that."""

    def forward(self, x):
        z = 16 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-z, z, z - 100, z - 100], 1)


GREY = torch.tensor([0.3, 0.45, 0.49, 0.52, 0.6, 0.7, 0.8, 0.44])[:, None, None, None].expand(8, 1, 4, 4)
CLASS = (GREY[:, 0, 0, 0] > 0.5).long()
# Two of the eight are labelled wrongly.
LABELS = torch.where(torch.tensor([False] * 6 + [True] * 2), 1 - CLASS, CLASS)


@pytest.fixture(scope="module")
def found():
    return actkit.evaluate(Brightness(), (GREY, LABELS), ["accuracy", "pgd20"], eps=0.07)


def test_numbers_are_those_that_can_be_worked_out_by_hand(found):
    # Right are six; within 0.07 of the boundary are 0.45, 0.49 and 0.52.
    assert found.numbers["accuracy"]["clean"] == 6 / 8
    assert found.numbers["pgd20"]["worst_case"] == 3 / 8
    assert found.examples["pgd20"].tolist() == [True, False, False, False, True, True, False, False]


def test_it_prints_a_table_that_ends_in_a_verdict(found):
    *table, verdict = str(found).splitlines()
    assert table[1].split() == ["clean", "75.00", "%", "(40.9", "to", "92.9)", "8"]
    assert table[2].startswith("PGD-20 any iterate  linf 0.07  37.50 % (")
    assert "step_size=0.0175, steps=20" in str(found)
    assert verdict == found.verdict == (
        "at most 3 of 8 images stay right under linf 0.07; strongest: PGD-20; no audit ran: whether gradients mislead was not checked"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe 1998, Table I, method 3; and the ends.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (29, 29, 0.883, 1.0)],
)  # fmt: skip
def test_intervals_are_wilsons(hits, count, low, high):
    assert wilson(hits, count) == pytest.approx((low, high), abs=5e-5)


def test_a_rate_has_an_interval_and_a_mean_over_starts_has_none():
    attack = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.05, "steps": 1})
    probe = Spec("probe", "robust_accuracy", {"attack": attack, "starts": 3})
    one = actkit.evaluate(Brightness(), (GREY, LABELS), [probe])
    assert one.intervals["robust_accuracy"]["worst_run"] == wilson(
        round(one.numbers["robust_accuracy"]["worst_run"] * 8), 8
    )
    assert "std" not in one.intervals["robust_accuracy"]


def test_several_models_stand_side_by_side_and_are_asked_for_by_name():
    both = actkit.evaluate({"a": Brightness(), "b.2": Brightness()}, (GREY, CLASS), ["accuracy", "pgd20"], eps=0.07)
    assert str(both).splitlines()[0].split() == ["within", "a", "b.2", "images"]
    assert both.numbers["b.2"] == both["b.2"].numbers == both["a"].numbers
    assert [line.partition(":")[0] for line in both.verdict.splitlines()] == ["a", "b.2"]
    with pytest.raises(InputError, match="there is no model 'c' here"):
        both["c"]


def test_a_probe_of_all_models_tells_of_each():
    both = actkit.evaluate({"a": Brightness(), "b": Brightness()}, (GREY, CLASS), ["transfer"], eps=0.07)
    assert {label for model in ("a", "b") for label in both.numbers[model]} == {"transfer"}


def test_a_probe_of_two_models_tells_of_each_pair(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))

    @actkit.register("probe")
    def agreement(one, other, data, *, split: str = "test") -> Result:
        return Result({"agree": 1.0}, headline=None)

    both = actkit.evaluate({"a": Brightness(), "b": Brightness()}, (GREY, CLASS), ["accuracy", "agreement"])
    assert both.models == ["a", "b", "a>b", "b>a"]
    assert [line[:2] for line in both.verdict.splitlines()] == ["a:", "b:"]


def test_the_numbers_are_those_of_actkit_probe():
    """A loaded model, without eps, is attacked as it was saved to be."""
    (told,) = probe_checkpoints(
        [Path("example:act_digits")], probes=["accuracy", "pgd20"], roles=["headline"], device=torch.device("cpu"), display=Display(),
        settings=["probe.robust_accuracy.limit=20", "probe.accuracy.limit=20", "probe.robust_accuracy.starts=2"],
    )  # fmt: skip
    model = actkit.load_model("example:act_digits")
    pgd20 = next(spec for spec in model.header.evaluation if spec.title == "pgd20").replace(starts=2)
    ours = actkit.evaluate(model, "digits", ["accuracy", pgd20], limit=20)
    (name,) = told.model_names
    assert ours.numbers == {label: dict(found.numbers) for label, found in told.of(name).items()}
    assert ours.models == ["act_digits"]


def test_without_eps_a_model_that_was_not_saved_with_one_asks_for_it():
    with pytest.raises(InputError, match="'pgd20' attacks, and nobody says with which budget\n  help: give eps=8/255"):
        actkit.evaluate(Brightness(), (GREY, LABELS), ["pgd20"])


def test_a_notebook_is_shown_a_table_whose_texts_are_escaped():
    shown = actkit.evaluate({"<b & x": Brightness(), "y": Brightness()}, (GREY, LABELS), "accuracy")._repr_html_()
    assert "&lt;b &amp; x" in shown
    assert "<b & x" not in shown
    assert shown.count("<tr>") == 2


def test_a_data_frame_has_a_row_a_number(found, monkeypatch):
    pandas = types.SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    rows, columns = found.to_dataframe()
    assert columns[:4] == ["model", "probe", "number", "value"]
    assert [row["value"] for row in rows if (row["probe"], row["number"]) == ("pgd20", "worst_case")] == [3 / 8]


def test_without_pandas_a_data_frame_is_refused_in_a_line(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ActkitError, match="to_dataframe needs pandas\n  help: pip install pandas"):
        found.to_dataframe()


def test_it_is_json(found):
    told = json.loads(json.dumps(found.to_json()))
    assert told["results"]["model.pgd20"]["numbers"]["worst_case"] == 3 / 8
    assert told["verdict"] == found.verdict


def test_a_probe_of_ones_own_is_given_as_the_function_itself(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))

    def margin_of(model, data, *, split: str = "test") -> Result:
        x, y = data.split(split).batch(torch.arange(4))
        with model.frozen("eval") as f:
            return Result({"margin": float(f(x).amax(1).mean())}, headline=None)

    with pytest.raises(InputError, match="margin_of is no registered probe\n  help: write @actkit.register"):
        actkit.evaluate(Brightness(), (GREY, LABELS), [margin_of])
    actkit.register("probe")(margin_of)
    assert list(actkit.evaluate(Brightness(), (GREY, LABELS), [margin_of]).numbers) == ["margin_of"]


def test_the_classes_of_the_data_are_as_many_as_the_model_tells_apart():
    """Labels 0 and 1 alone; the model has four classes, so the targeted attack exists."""
    assert "APGD-T" in actkit.evaluate(Brightness(), (GREY, LABELS), [Spec("probe", "autoattack", {"eps": 0.01, "steps": 2, "queries": 0})]).numbers["autoattack"]  # fmt: skip


REFUSED = {
    "more labels than outputs": ({"data": (GREY, LABELS + 4)}, "gives logits of 4 classes, the test labels of data are of 6\n  help: labels are 0 to 3"),
    "an unknown probe": ({"probes": ["accurcy"]}, "there is no probe 'accurcy'\n  help: did you mean 'accuracy'"),
    "no probe": ({"probes": []}, "there is no probe to examine by"),
    "no probe but a number": ({"probes": [3]}, "a probe is a name, a Spec or a registered function, this is a int"),
    "no model": ({"models": {}}, "there is no model to look at"),
    "a name of pairs": ({"models": {"a>b": Brightness()}}, "a model's name is a text without '>', got 'a>b'"),
    "a norm that is none": ({"norm": "l3"}, "there is no norm 'l3'"),
    "one model for transfer": ({"probes": ["transfer"]}, "needs at least two models, there is 1"),
    "no images": ({"limit": 0}, "limit must be at least 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_examined_is_said_in_a_line(what):
    given, said = REFUSED[what]
    with pytest.raises(InputError, match=said):
        actkit.evaluate(
            **{"models": Brightness(), "data": (GREY, LABELS), "probes": ["accuracy", "pgd20"], "eps": 0.1, **given}
        )


# -- verdicts ------------------------------------------------------------------------------------------------------------

ATTACKED = functools.partial(Result, threat=Threat("linf", 0.1), attacked=True)
CLEAN = Result({"clean": 0.75}, {"correct": torch.tensor([1, 1, 1, 0]).bool()}, (Column("clean", "clean"),))
WEAK = ATTACKED({"worst_run": 0.5}, {"correct": torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()}, (Column("worst_run", "PGD-20 worst run"),))  # fmt: skip
OTHER = ATTACKED({"worst_case": 0.5}, {"correct": torch.tensor([0, 1, 1, 0]).bool()}, (Column("worst_case", "Square any iterate"),))  # fmt: skip
ENSEMBLE = ATTACKED(
    {"a": 0.5, "b": 0.25, "worst_case": 0.25}, {"correct": torch.tensor([1, 0, 0, 0]).bool()},
    (Column("a", "APGD-CE"), Column("b", "+ APGD-T"), Column("worst_case", "+ Square")),
)  # fmt: skip
GREEN, YELLOW, RED = (Result({"green": 0.0}, {}, (), flags=(Flag("restarts", level, "why"),)) for level in ("green", "yellow", "red"))  # fmt: skip
UNCHECKED = "no audit ran: whether gradients mislead was not checked"

VERDICTS = {
    "nothing attacked": ([CLEAN], "3 of 4 images are right unattacked; no attack ran"),
    "one attack": ([CLEAN, WEAK], f"at most 2 of 4 images stay right under linf 0.1; strongest: PGD-20; {UNCHECKED}"),
    "attacks together, image by image": ([WEAK, OTHER], f"at most 1 of 4 images stay right under linf 0.1; strongest: PGD-20; {UNCHECKED}"),
    "the part of an ensemble that broke the last": ([ENSEMBLE, GREEN], "at most 1 of 4 images stay right under linf 0.1; strongest: APGD-T; nothing suggests masking"),
    "a yellow flag": ([WEAK, YELLOW], "at most 2 of 4 images stay right under linf 0.1; strongest: PGD-20; yellow flags: restarts; look at them"),
    "a red flag": ([WEAK, RED], "at most 2 of 4 images stay right under linf 0.1; strongest: PGD-20; red flags: restarts; what an attack leaves cannot be believed"),
}  # fmt: skip


@pytest.mark.parametrize("what", VERDICTS)
def test_a_verdict_says_what_was_found_and_what_was_not_looked_at(what):
    results, said = VERDICTS[what]
    named = {f"probe{i}": result for i, result in enumerate(results)}
    assert verdict_of({label: Found.of(result) for label, result in named.items()}, named) == said


def test_results_are_there_in_whole(found):
    assert isinstance(found.results["pgd20"], Result)
    assert set(found.raw) == {str(ResultName("model", label)) for label in found.results}


def test_a_file_whose_classes_are_called_otherwise_than_the_datas_is_not_examined():
    one = actkit.Split(torch.zeros(1, 1, 8, 8), torch.zeros(1).long())
    letters = actkit.Data("letters", (1, 8, 8), tuple("abcdefghij"), {"test": 1}, lambda _: one)
    model = actkit.load_model("example:act_digits")
    model.header = dataclasses.replace(model.header, classes=tuple("bacdefghij"))
    with pytest.raises(InputError, match="in another order: class 0 is 'b' in act_digits, 'a' in letters"):
        actkit.evaluate(model, letters, "accuracy")


def test_a_budget_that_cannot_cross_its_ball_is_said_with_the_numbers():
    attack = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.001, "steps": 2})
    with pytest.warns(UserWarning, match="most of the ball is never seen"):
        found = actkit.evaluate(Brightness(), (GREY, LABELS), Spec("probe", "robust_accuracy", {"attack": attack}))
    assert "2 steps of 0.001 reach 0.002, not eps 0.05" in str(found)


def test_two_probes_with_the_same_title_are_told_apart_by_their_names():
    attack = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.05, "steps": 1})
    twice = [Spec("probe", "robust_accuracy", {"attack": attack, "seed": seed}, label=f"seed{seed}") for seed in (1, 2)]
    shown = str(actkit.evaluate(Brightness(), (GREY, LABELS), twice))
    assert "seed1: PGD-1 worst run" in shown
    assert "seed2: PGD-1 worst run" in shown


def test_a_name_of_the_fields_without_eps_is_under_the_threat_model_that_a_model_was_saved_with():
    model = actkit.load_model("example:act_digits")
    found = actkit.evaluate(model, "digits", "pgd4", limit=5)
    assert found.summary.evaluation[0].kwargs["attack"].kwargs["eps"] == 0.15


def test_what_other_models_images_do_to_a_model_is_no_accuracy_in_the_verdict():
    """Transfer gives rates of success: of two untrained networks they lie far below what stays right."""
    torch.manual_seed(0)
    pair = {name: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for name in ("one", "other")}
    split = actkit.as_data("digits").test
    found = actkit.evaluate(
        pair, split.batch(torch.arange(60)), ["accuracy", "pgd20", "transfer"], eps="1/255", progress=False
    )
    for name in pair:
        right = int(found[name].examples["pgd20"].sum())
        assert f"at most {right} of 60" in found[name].verdict
        assert "strongest: PGD-20; no audit ran" in found[name].verdict

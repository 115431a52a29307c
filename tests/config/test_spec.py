"""Specs print, compare, pickle, go to JSON and back, and build."""

from __future__ import annotations

import json
import pickle

import pytest

from actkit.config.spec import Spec
from actkit.errors import InputError

PGD = Spec("attack", "pgd", {"eps": "8/255", "step_size": 0.007, "steps": 10})
ACT = Spec("objective", "act", {"alpha": 0.9, "attack": PGD})


def test_a_spec_prints_as_its_call():
    assert repr(ACT) == "objective.act(alpha=0.9, attack=attack.pgd(eps='8/255', step_size=0.007, steps=10))"


def test_a_spec_compares_pickles_and_survives_json():
    for copy in (pickle.loads(pickle.dumps(ACT)), Spec.from_json(json.loads(json.dumps(ACT.to_json())))):
        assert copy == ACT
        assert hash(copy) == hash(ACT)
    assert ACT != ACT.replace(alpha=0.5)


def test_building_fills_in_hyper_parameters_and_turns_a_fraction_into_its_number():
    built = PGD.build()
    assert built.keywords["eps"] == pytest.approx(8 / 255)
    assert built.spec == PGD, "what is built remembers its Spec, with the fraction as written"
    objective = ACT.build()
    assert objective.roles == ("robust", "natural")
    assert objective.attack.keywords["steps"] == 10


def test_a_class_is_built_into_an_instance_with_state_of_its_own():
    spec = Spec("objective", "free", {"eps": 0.1, "step_size": 0.1})
    assert spec.build().component is not spec.build().component


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "ten"}, r"attack.pgd.steps should be int, got 'ten' \(str\)"),
        ({"steps": True}, "should be int, got True"),
        ({"steps": 1.5}, "should be int, got 1.5"),
        ({"eps": "8 of 255"}, "should be float, got '8 of 255'"),
        ({"norm": "linff"}, "'l2' or 'linf'.*, got 'linff'"),
        ({"stps": 3}, r"no parameter 'stps'(.|\n)*did you mean 'steps'"),
    ],
    ids=str,
)
def test_a_wrong_name_or_type_is_told(change, message):
    with pytest.raises(InputError, match=message):
        PGD.replace(**change).build()


def test_a_component_of_the_wrong_kind_and_a_missing_value_are_told():
    with pytest.raises(InputError, match=r"objective.act.attack should be an attack, got probe.accuracy\(\)"):
        ACT.replace(attack=Spec("probe", "accuracy")).build()
    with pytest.raises(
        InputError, match=r"'attack.pgd' needs a value for 'step_size'(.|\n)*add  attack.pgd.step_size = "
    ):
        Spec("attack", "pgd", {"eps": 0.1, "steps": 1}).build()


def test_an_int_serves_where_a_float_is_wanted():
    PGD.replace(eps=0).build()


def test_a_quantity_prints_as_it_was_written_and_counts_as_its_number():
    eps = PGD.build().keywords["eps"]
    assert (str(eps), f"{eps}", f"{eps:.4f}") == ("8/255", "8/255", "0.0314")
    assert eps == 8 / 255
    assert json.dumps(eps) == json.dumps(8 / 255)
    assert str(pickle.loads(pickle.dumps(eps))) == "8/255"


def test_fractions_in_an_optional_list_become_numbers_that_keep_their_unit():
    values = Spec("probe", "sweep", {"attack": PGD, "values": ["1/255", 0.5]}).build().keywords["values"]
    assert [str(v) for v in values] == ["1/255", "0.5"]


def test_a_probes_label_is_part_of_it_and_survives_json():
    probe = Spec("probe", "accuracy", {"limit": 3}, "quick")
    assert (probe.title, Spec("probe", "accuracy").title) == ("quick", "accuracy")
    assert Spec.from_json(json.loads(json.dumps(probe.to_json()))) == probe != Spec("probe", "accuracy", {"limit": 3})
    assert probe.replace(limit=4).label == "quick"


def test_a_components_own_check_tells_what_is_wrong_with_its_values_before_it_runs():
    problems = {name: error.message for name, error in PGD.replace(eps=8, steps=0).problems()}
    assert problems == {"eps": "eps must not be above 1, got 8", "steps": "an attack needs at least 1 step, got 0"}
    assert not list(PGD.replace(eps=8, norm="l2").problems()), "an l2 ball may be larger"

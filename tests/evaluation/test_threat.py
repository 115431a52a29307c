"""One threat model for a whole evaluation."""

from __future__ import annotations

import pytest

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.evaluation.threat import named_probe, too_short, under


def pgd(**settings):
    return Spec("attack", "pgd", {"eps": 0.031, "step_size": 0.003, "steps": 20, **settings})


def robust(attack, **settings):
    return Spec("probe", "robust_accuracy", {"attack": attack, **settings})


def settings_of(spec):
    return spec.kwargs["attack"].kwargs


@pytest.mark.parametrize(
    ("eps", "step_size", "now", "step"),
    [
        ("8/255", "2/255", "16/255", "4/255"),
        ("8/255", "2/255", "1/255", "1/1020"),
        ("8/255", "2/255", 0.5, 0.125),
        (0.031, 0.003, "0.062", 0.006),
        (0.031, 0.003, "8/255", 0.00303605),
        # What stays is not written anew.
        ("8/255", 0.003, 8 / 255, 0.003),
    ],
)
def test_the_step_stays_the_same_fraction_of_eps(eps, step_size, now, step):
    moved = under(robust(pgd(eps=eps, step_size=step_size)), eps=now, norm="l2" if now == 0.5 else None)
    assert settings_of(moved)["step_size"] == step


def test_eps_prints_as_it_is_written_and_a_float_of_255ths_as_that():
    assert settings_of(under(robust(pgd()), eps="8/255"))["eps"] == "8/255"
    assert settings_of(under(robust(pgd()), eps=8 / 255))["eps"] == "8/255"
    assert settings_of(under(robust(pgd()), eps=0.1))["eps"] == 0.1


def test_what_is_under_the_threat_model_already_stays_what_it_is():
    spec = robust(pgd(eps="8/255", step_size="2/255"))
    assert under(spec, eps="8/255", norm="linf") == spec


def test_an_attack_is_found_however_deep_and_a_probe_has_an_eps_of_its_own():
    moved = under(Spec("probe", "autoattack", {"eps": 0.031}), eps="1/2", norm="l2")
    assert moved.kwargs == {"eps": "1/2", "norm": "l2"}
    assert settings_of(under(Spec("probe", "audit", {"attack": pgd()}), eps="1/2", norm="l2"))["norm"] == "l2"


@pytest.mark.parametrize("probe", ["accuracy", "fgsm_k", "gallery", "norms"])
def test_a_probe_without_a_budget_is_left_alone(probe):
    assert under(Spec("probe", probe), eps="8/255") == Spec("probe", probe)


@pytest.mark.parametrize(
    ("spec", "threat", "said"),
    [
        (robust(Spec("attack", "square", {"eps": 0.1})), {"eps": 0.5, "norm": "l2"}, "attack.square knows linf alone"),
        (Spec("probe", "surface", {"eps": 0.1}), {"eps": 0.5, "norm": "l2"}, "probe.surface knows linf alone"),
        (Spec("probe", "fgsm_k"), {"eps": 0.5, "norm": "l2"}, "probe.fgsm_k knows linf alone"),
        (robust(pgd()), {"norm": "l2"}, "give both: --norm l2 --eps 0.5"),
        (robust(pgd(eps=0)), {"eps": 0.1}, "cannot be scaled from an eps of 0"),
        (robust(pgd()), {"eps": "eight"}, "eps should be a number such as 8/255, got 'eight'"),
        (robust(pgd()), {"eps": 8}, "perhaps '8/255'?"),
        (robust(pgd()), {"eps": 0.1, "norm": "linff"}, "did you mean 'linf'?"),
    ],
)
def test_what_cannot_be_put_under_a_threat_model_says_why(spec, threat, said):
    with pytest.raises(InputError) as raised:
        under(spec, **threat)
    assert said in str(raised.value)


def test_pgd20_by_that_name_steps_a_quarter_of_eps_from_one_uniform_start_and_any_iterate_counts():
    spec = named_probe("pgd20", eps="8/255")
    assert spec.label == "pgd20"
    assert settings_of(spec) == {"eps": "8/255", "step_size": "2/255", "steps": 20, "start": "uniform"}
    assert (spec.get("mode"), spec.get("starts")) == ("worst_case", 1)


@pytest.mark.parametrize(
    ("name", "attack", "loss"),
    [
        ("fgsm", "fgsm", "cross_entropy"),
        ("apgd-ce", "apgd", "cross_entropy"),
        ("apgd-t", "apgd", "targeted_dlr"),
        ("square", "square", "margin"),
    ],
)
def test_the_fields_names_mean_an_attack_and_its_loss(name, attack, loss):
    spec = named_probe(name, eps=8 / 255)
    assert (spec.label, spec.kwargs["attack"].name, spec.get("loss")) == (name, attack, loss)
    assert not list(spec.problems())


@pytest.mark.parametrize("name", ["audit", "autoattack", "robust_accuracy", "surface", "sweep", "transfer", "accuracy"])
def test_a_registered_probe_is_filled_in_and_wants_nothing_more(name):
    assert not list(named_probe(name, eps="8/255").problems())


def test_a_name_that_is_none_is_none():
    assert named_probe("pgd", eps=0.1) is None
    assert named_probe("pdg20", eps=0.1) is None


def test_three_steps_of_a_quarter_of_eps_are_refused():
    with pytest.raises(InputError, match=r"pgd3: 3 steps of 2/255 reach 0.0235, not eps 8/255"):
        named_probe("pgd3", eps="8/255")
    assert named_probe("pgd4", eps="8/255") is not None


def test_steps_that_cannot_cross_the_ball_are_found_in_a_sweep_too_unless_its_step_grows():
    assert not list(too_short(robust(pgd())))
    assert len(list(too_short(robust(pgd(eps="16/255"))))) == 1
    sweep = Spec("probe", "sweep", {"attack": pgd(steps=100)})
    assert "not eps 100/255" in next(too_short(sweep))
    assert not list(too_short(sweep.replace(scale_step=True)))

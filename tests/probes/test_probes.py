"""Probes on models whose answer is known."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn

from actkit.attacks import pgd as pgd_attack
from actkit.config.registry import register
from actkit.config.spec import Quantity, Spec
from actkit.datasets import Data, Split
from actkit.errors import ActkitError, InputError
from actkit.evaluation.examination import examine
from actkit.evaluation.summary import Found
from actkit.networks.roles import Role
from actkit.probes import Progress, labels, measure
from actkit.probes.protocols import is_random

N = 101


def thresholds() -> tuple[Role, Data]:
    """One pixel, two classes: class 1 above 0.5. Example i lies at distance (i + 0.5) / 1000 from the border, so robust accuracy is known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-10.0], [10.0]]))
        model[1].bias.copy_(torch.tensor([5.0, -5.0]))
    distance = (torch.arange(N) + 0.5) / 1000
    y = torch.arange(N) % 2
    x = 0.5 + distance * (2 * y - 1)
    x[-1] = 0.6 - 0.2  # the last one (class 0 by its number) is right; make the one before it wrong
    x[-2] = 0.4
    split = Split(x.view(-1, 1, 1, 1), y)
    return Role("robust", model), Data("line", (1, 1, 1), ("low", "high"), {"test": N}, lambda name: split)


def survivors(eps: float) -> float:
    """How many of them no attack of this eps can break; distances are (i + 0.5) / 1000, one is wrong, one at 0.1."""
    return sum(i + 0.5 > 1000 * eps for i in range(N - 2)) + (eps < 0.1)


PGD = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.01, "steps": 10})
# A random start and a step that leads hardly anywhere: starts differ.
WEAK = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.001, "steps": 2})


def robust(**kwargs) -> Spec:
    return Spec("probe", "robust_accuracy", {"attack": PGD, **kwargs})


def test_accuracy_counts_every_example():
    role, data = thresholds()
    result = Spec("probe", "accuracy").build()(role, data)
    assert result.numbers["clean"] == pytest.approx((N - 1) / N)
    assert result.examples["correct"].tolist() == [True] * (N - 2) + [False, True]


@pytest.mark.parametrize("mode", ["paper", "worst_case"])
@pytest.mark.parametrize(
    "attack",
    [
        PGD,
        Spec("attack", "fgsm", {"eps": 0.05}),
        Spec("attack", "apgd", {"eps": 0.05, "steps": 20}),
        Spec("attack", "square", {"eps": 0.05, "queries": 20}),
    ],
    ids=lambda a: a.name,
)
def test_accuracy_under_attack_is_that_of_the_examples_farther_than_eps(mode, attack):
    role, data = thresholds()
    result = robust(mode=mode, attack=attack, loss="margin" if attack.name == "square" else "cross_entropy").build()(
        role, data
    )
    found = {k: v for k, v in result.numbers.items() if k not in ("clean", "std", "starts")}
    assert set(found.values()) == {survivors(0.05) / N}
    assert (str(result.threat), result.attacked) == ("linf eps 0.05", True)


def test_starts_that_differ_give_mean_deviation_worst_run_and_per_example_worst():
    role, data = thresholds()
    result = robust(attack=WEAK, starts=4).build()(role, data)
    correct = result.examples["correct"]
    assert correct.shape == (4, N)
    runs = correct.double().mean(1)
    assert result.numbers == pytest.approx(
        {
            "mean": runs.mean().item(),
            "std": runs.std().item(),
            "worst_run": runs.min().item(),
            "per_example_worst": correct.all(0).double().mean().item(),
        }
    )
    assert result.numbers["per_example_worst"] < result.numbers["worst_run"] < result.numbers["mean"]


def test_in_the_worst_case_any_iterate_counts_and_the_broken_are_left_alone():
    role, data = thresholds()

    @register("attack", "test_passing_by")
    def passing_by(goal, x, *, noise, eps: float):
        """It finds the border, and comes back; its starts may differ."""
        noise.uniform()
        goal(x - eps, slice(None))
        goal(x + eps, slice(None))
        seen.append(len(x))
        return x

    attack, seen = Spec("attack", "test_passing_by", {"eps": 0.05}), []
    assert robust(attack=attack).build()(role, data).numbers["worst_run"] == (N - 1) / N
    seen.clear()
    result = robust(attack=attack, mode="worst_case", starts=3).build()(role, data)
    assert result.numbers["worst_case"] == survivors(0.05) / N
    assert seen == [N - 1, survivors(0.05), survivors(0.05)], (
        "the misclassified one is not attacked, the broken ones once"
    )
    assert sorted(set(result.examples["broken_by"].tolist())) == [-2, -1, 0]


def test_a_point_outside_the_budget_breaks_nothing():
    role, data = thresholds()

    @register("attack", "test_cheating_on_the_way")
    def cheating(goal, x, *, noise, eps: float):
        goal(x - 2 * eps, slice(None))
        goal(x + 2 * eps, slice(None))
        return x

    attack = Spec("attack", "test_cheating_on_the_way", {"eps": 0.05})
    assert robust(attack=attack, mode="worst_case").build()(role, data).numbers["worst_case"] == (N - 1) / N


@pytest.mark.parametrize("too_far", [2.0, 0.051, float("nan")])
@pytest.mark.parametrize("mode", ["paper", "worst_case"])
def test_an_attack_that_ends_outside_its_budget_gives_no_result(mode, too_far):
    @register("attack", "test_cheat")
    def cheat(goal, x, *, noise, eps: float, by: float):
        return (x + by) if by != 0.051 else torch.where(x > 0.5, x - by, x + by)

    role, data = thresholds()
    with pytest.raises(ActkitError, match=r"left \[0,1\] or its ball \(linf eps 0.05\)"):
        robust(attack=Spec("attack", "test_cheat", {"eps": 0.05, "by": too_far}), mode=mode).build()(role, data)


@pytest.mark.parametrize("mode", ["paper", "worst_case"])
def test_a_model_that_gives_nan_gets_no_result(mode):
    role, data = thresholds()
    with torch.no_grad():
        role.model[1].bias[0] = float("nan")
    for spec in (robust(mode=mode), Spec("probe", "accuracy"), Spec("probe", "autoattack", {"eps": 0.05})):
        with pytest.raises(ActkitError, match="the model gives NaN"):
            spec.build()(role, data)


class Rooted(nn.Module):
    """Right on the way forward; its gradient is not a number where a pixel is 0."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x + 0 * (x * x).sqrt())


def test_a_gradient_that_is_no_number_does_not_pass_for_robustness():
    role, data = small_net()
    data.test.images[:, :, 0, 0] = 0
    rooted = Role("robust", Rooted(role.model))
    for name in ("paper", "worst case", "targeted", "fgsm_k", "autoattack"):
        with pytest.raises(ActkitError, match="gives NaN"):
            PROBES[name].build()(rooted, data)


def test_an_l2_step_has_its_length_however_small_the_gradient():
    from actkit.attacks import norm_named

    l2, nowhere = norm_named("l2"), torch.zeros(1, 3, 4, 4)
    for scale in (1.0, 1e-14, 1e-30):
        gradient = scale * torch.randn(4, 3, 32, 32)
        assert torch.allclose(l2.length(l2.direction(gradient, gradient, 1.0)), torch.ones(4), atol=1e-5)
    assert l2.direction(nowhere, nowhere, 1.0).equal(nowhere)


@pytest.mark.parametrize("eps", [0.5, 5.0, 20.0])
def test_rounding_takes_no_point_of_an_l2_ball_out_of_it(eps):
    from actkit.attacks import Threat, norm_named

    torch.manual_seed(0)
    x = torch.full((8, 3, 224, 224), 0.5)
    x_adv = norm_named("l2").project(x + 3 * torch.randn_like(x), x, eps)
    assert Threat("l2", eps).allows(x_adv, x).all()
    assert not Threat("l2", eps).allows(x + 1.001 * (x_adv - x), x).any()


def test_the_start_towards_a_class_does_not_depend_on_how_many_there_are():
    from actkit.probes.protocols import attack_runs

    few, many = (
        attack_runs(None, loss="targeted_dlr", starts=1, targets=t, seed=0, classes=5, name="") for t in (1, 9)
    )
    assert [len(few), len(many)] == [1, 4], "towards each wrong class once"
    assert few[0].key == many[0].key
    assert len({run.key for run in many}) == 4


def test_a_sweep_of_something_that_does_not_nest_attacks_everybody_anew():
    sizes = []

    @register("attack", "test_strides")
    def strides(goal, x, *, noise, eps: float, step_size: float = 0.01):
        sizes.append(len(x))
        return pgd_attack(goal, x, noise=noise, eps=eps, step_size=step_size, steps=2)

    sweep(attack=Spec("attack", "test_strides", {"eps": 0.05}), over="step_size", values=[0.01, 0.02])
    assert sizes == [N - 1, N - 1]


# -- the answer depends on nothing else ----------------------------------------------------------------------------------


def small_net() -> tuple[Role, Data]:
    """A network with BatchNorm, on images and labels of its own making, so that starts, targets and drops all matter."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    net[1].running_mean.normal_(), net[1].running_var.uniform_(0.5, 2)
    x = torch.rand(300, 1, 8, 8)
    y = net.eval()(x).argmax(1)
    y[::17] = (y[::17] + 1) % 5
    data = Data("noise", (1, 8, 8), tuple("abcde"), {"test": 300}, lambda name: Split(x, y.detach()))
    return Role("robust", net), data


SMALL = Spec("attack", "pgd", {"eps": 0.03, "step_size": 0.01, "steps": 5})
PROBES = {
    "paper": robust(attack=SMALL, starts=3),
    "worst case": robust(attack=SMALL, starts=3, mode="worst_case"),
    "targeted": robust(
        attack=Spec("attack", "apgd", {"eps": 0.03, "steps": 10}),
        mode="worst_case",
        starts=1,
        loss="targeted_dlr",
        targets=3,
    ),
    "square": robust(
        attack=Spec("attack", "square", {"eps": 0.03, "queries": 30}), mode="worst_case", starts=2, loss="margin"
    ),
    "sweep": Spec("probe", "sweep", {"attack": SMALL, "values": [0.01, 0.03, 0.06]}),
    "fgsm_k": Spec("probe", "fgsm_k", {"tries": 8}),
    "autoattack": Spec("probe", "autoattack", {"eps": 0.03, "steps": 10, "queries": 20}),
}


def outcome(spec: Spec, role: Role, data: Data, **kwargs) -> torch.Tensor:
    examples = spec.replace(**kwargs).build()(role, data).examples
    return examples["distance"] if "distance" in examples else examples["correct"]


@pytest.mark.parametrize("name", PROBES)
def test_the_answer_does_not_depend_on_the_batch_size(name):
    """Nor, so, on how many were dropped beside an example. At most 1 in 1,000 may differ by rounding; here none does."""
    role, data = small_net()
    reference = outcome(PROBES[name], role, data, limit=80)
    if reference.dtype == torch.bool:
        assert 0.1 < reference.double().mean() < 0.98
    for batch_size in (1, 7, 64):
        other = outcome(PROBES[name], role, data, batch_size=batch_size, limit=80)
        assert other.allclose(reference, atol=1e-6) if reference.is_floating_point() else other.equal(reference)


@pytest.mark.parametrize("name", PROBES)
def test_the_answer_does_not_depend_on_the_order_of_the_examples(name):
    role, data = small_net()
    reference = outcome(PROBES[name], role, data)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    split = Split(data.test.images[order], data.test.labels[order], ids=order)
    shuffled = Data(data.name, data.shape, data.classes, data.sizes, lambda name: split)
    found = outcome(PROBES[name], role, shuffled)
    assert (
        found.allclose(reference[..., order]) if reference.is_floating_point() else found.equal(reference[..., order])
    )


@pytest.mark.parametrize("name", [n for n in PROBES if n != "fgsm_k"])
def test_other_starts_come_from_another_seed_and_nowhere_else(name):
    role, data = small_net()
    torch.manual_seed(1)
    first = PROBES[name].build()(role, data)
    torch.manual_seed(2)
    assert PROBES[name].build()(role, data).numbers == first.numbers


def test_an_interrupted_probe_goes_on_and_finds_the_same():
    role, data = small_net()
    spec = PROBES["worst case"].replace(batch_size=50)
    whole = spec.build()(role, data)
    kept: dict = {}
    done = []

    def stop() -> None:
        done.append(1)
        if len(done) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spec.build()(role, data, progress=Progress(kept, done=stop))
    assert len(kept) == 9
    computed = []
    again = spec.build()(role, data, progress=Progress(kept, done=lambda: computed.append(1)))
    assert again.numbers == whole.numbers and again.examples["broken_by"].equal(whole.examples["broken_by"])
    assert 0 < len(computed) == len(kept) - 9


# -- sweeps, transfer, ensembles -----------------------------------------------------------------------------------------


def sweep(**kwargs):
    role, data = thresholds()
    return Spec("probe", "sweep", {"attack": PGD, **kwargs}).build()(role, data)


def test_a_sweep_of_eps_gives_the_closed_form_at_each_value_and_keeps_their_units():
    values = [0.01, "8/255", "0.05"]
    for mode in ("paper", "worst_case"):
        found = sweep(values=values, mode=mode).numbers
        assert list(found) == ["eps 0.01", "eps 8/255", "eps 0.05"]
        assert list(found.values()) == [survivors(float(Quantity(str(v)))) / N for v in values]


def test_survivors_are_carried_upward_so_nothing_is_attacked_twice():
    sizes = []

    @register("attack", "test_counted")
    def counted(goal, x, *, noise, eps: float):
        sizes.append(len(x))
        return pgd_attack(goal, x, noise=noise, eps=eps, step_size=eps, steps=2)

    sweep(attack=Spec("attack", "test_counted", {"eps": 0.05}), values=[0.01, 0.03, 0.05])
    assert sizes == [N - 1, survivors(0.01), survivors(0.03)]


def test_a_sweep_may_scale_the_step_with_eps():
    """Ten steps of 0.001 cannot reach 0.05; scaled to it from eps 0.005 they can."""
    slow = Spec("attack", "pgd", {"eps": 0.005, "step_size": 0.001, "steps": 10, "start": "none"})
    fixed, scaled = (sweep(attack=slow, values=[0.05], scale_step=s).numbers["eps 0.05"] for s in (False, True))
    assert (fixed, scaled) == (survivors(0.01) / N, survivors(0.05) / N)


def test_a_sweep_of_steps():
    slow = Spec("attack", "pgd", {"eps": 0.05, "step_size": 0.01, "steps": 1, "start": "none"})
    found = sweep(attack=slow, over="steps", values=[1, 3, 5]).numbers
    assert found == {f"steps {k}": survivors(0.01 * k) / N for k in (1, 3, 5)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": [0.02, 0.01]}, "must rise"),
        ({"values": []}, "must rise"),
        ({"values": [0.5, 8.0]}, "eps must not be above 1, got 8.0"),
        ({"over": "epz", "values": [1]}, r"no setting 'epz'(.|\n)*did you mean 'eps'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_told(settings, message):
    with pytest.raises(InputError, match=message):
        sweep(**settings)


def shifted(by: float) -> Role:
    """The same border, moved."""
    role, _ = thresholds()
    with torch.no_grad():
        role.model[1].bias += torch.tensor([10.0, -10.0]) * by
    return role


def test_transfer_makes_examples_once_a_surrogate_and_counts_as_the_paper_does():
    _, data = thresholds()
    models, made = {"a": shifted(0.0), "b": shifted(0.02), "c": shifted(-0.3)}, []
    for name, model in models.items():
        model.model.register_forward_hook(lambda m, i, o, name=name: made.append((name, o.requires_grad)))
    found = measure([Spec("probe", "transfer", {"attack": PGD}).build()], models, data)
    assert list(found) == ["a.transfer", "b.transfer", "c.transfer"]
    assert [made.count((name, True)) for name in models] == [10, 10, 10], "ten gradients a surrogate"
    matrix = torch.tensor([[found[f"{t}.transfer"].numbers[s] for s in models] for t in models])
    assert matrix[0, 0] == pytest.approx(1 - survivors(0.05) / N), "white-box success counts what is wrong already"
    assert matrix[2, 2] > 0.45, "the model that is nearly always wrong"
    assert matrix[0, 0] >= matrix[0].max() - 0.02
    assert all(f.level == "green" for f in found["a.transfer"].flags)


class Hiding(nn.Module):
    """A model whose gradient points the wrong way."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(2 * x.detach() - x)


def test_transfer_raises_an_alarm_where_black_box_beats_white_box():
    role, data = thresholds()
    models = {"honest": role, "hiding": Role("hiding", Hiding(role.model))}
    found = measure([Spec("probe", "transfer", {"attack": PGD}).build()], models, data)
    assert not found["honest.transfer"].red
    assert found["hiding.transfer"].red
    (flag,) = found["hiding.transfer"].flags
    assert flag.said.startswith("examples made on honest fool hiding on 51 of 101 images, its own on 1; 50 fall to ")
    assert (flag.counts.images, flag.counts.net, flag.counts.beyond(0.01)) == (N, 50, True)


@pytest.mark.parametrize(("images", "wanted"), [(4, 0.002), (5, 0.0025)], ids=["even", "odd"])
def test_the_median_of_the_smallest_perturbations_lies_in_the_middle(images, wanted):
    """Examples at distances 0.0005, 0.0015, ...: of an even number it is the mean of the two in the middle."""
    role, data = thresholds()
    first = data.split("test").take(torch.arange(images))
    some = Data(data.name, data.shape, data.classes, {"test": images}, lambda name: first)
    found = Spec("probe", "fgsm_k", {"eps": 0.01}).build()(role, some)
    assert found.numbers["median_correct"] == pytest.approx(wanted, abs=2e-5)


def test_transfer_on_few_images_may_be_chance():
    role, data = thresholds()
    models = {"honest": role, "hiding": Role("hiding", Hiding(role.model))}
    found = measure([Spec("probe", "transfer", {"attack": PGD, "limit": 8}).build()], models, data)
    (flag,) = found["hiding.transfer"].flags
    assert (flag.level, flag.counts.images) == ("yellow", 8)
    assert "perhaps chance" in flag.said


@pytest.mark.parametrize("mode", ["paper", "worst_case"])
def test_an_attack_that_draws_no_random_numbers_is_run_once_and_the_result_says_so(mode):
    role, data = thresholds()
    steady = PGD.replace(start="none")
    found = [
        Spec("probe", "robust_accuracy", {"attack": steady, "mode": mode, "starts": starts}).build()(role, data)
        for starts in (1, 5)
    ]
    assert found[1].numbers == {**found[0].numbers, "starts": 1.0}
    assert [c.title for c in found[1].columns] == [f"{c.title} (no random start)" for c in found[0].columns]
    assert is_random(PGD.build(), data.shape) and not is_random(steady.build(), data.shape)


def test_transfer_needs_two_models():
    role, data = thresholds()
    with pytest.raises(InputError, match="at least two models"):
        measure([Spec("probe", "transfer", {"attack": PGD}).build()], {"a": role}, data)


def test_the_smallest_perturbation_is_reported_with_and_without_the_misclassified():
    role, data = thresholds()
    result = Spec("probe", "fgsm_k").build()(role, data)
    distances = torch.cat([(torch.arange(N - 2) + 0.5) / 1000, torch.tensor([0.1])]).double()
    assert result.numbers["mean_correct"] == pytest.approx(distances.mean().item(), abs=2e-6)
    assert result.numbers["mean_all"] == pytest.approx(distances.sum().item() / N, abs=2e-6)
    assert result.numbers["misclassified"] == pytest.approx(1 / N)
    assert result.numbers["not_found"] == 0
    assert result.examples["distance"].shape == (N,)


def test_an_ensemble_is_the_per_example_worst_of_its_attacks():
    role, data = small_net()
    together = PROBES["autoattack"].build()(role, data)
    numbers = together.numbers
    assert numbers["clean"] >= numbers["APGD-CE"] >= numbers["APGD-T"] >= numbers["Square"] == numbers["worst_case"]
    assert numbers["APGD-CE"] > numbers["APGD-T"], "targets find what the cross-entropy does not"
    alone = robust(attack=Spec("attack", "apgd", {"eps": 0.03, "steps": 10}), mode="worst_case", starts=1).build()(
        role, data
    )
    assert alone.numbers["worst_case"] == numbers["APGD-CE"]


def test_an_ensemble_on_two_classes_uses_the_margin():
    role, data = thresholds()
    numbers = Spec("probe", "autoattack", {"eps": 0.05, "steps": 20, "queries": 20}).build()(role, data).numbers
    assert list(numbers) == ["clean", "APGD-CE", "APGD-margin", "Square", "worst_case"]
    assert numbers["worst_case"] == survivors(0.05) / N


def test_the_official_autoattack_is_asked_for_by_name_and_its_absence_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    role, data = small_net()
    with pytest.raises(InputError, match=r"not installed(.|\n)*pip install 'actkit\[autoattack\]'"):
        PROBES["autoattack"].replace(tier="official").build()(role, data)


# -- measuring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["limit", "batch_size", "starts"])
def test_sizes_below_1_are_told(setting):
    role, data = thresholds()
    with pytest.raises(InputError, match=f"{setting} must be at least 1, got 0"):
        robust(**{setting: 0}).build()(role, data)


def test_an_attack_that_does_not_say_its_eps_is_told():
    from actkit.probes import robust_accuracy

    role, data = thresholds()
    with pytest.raises(InputError, match="does not say its eps"):
        robust_accuracy(role, data, attack=lambda goal, x, noise: x)
    plain = functools.partial(pgd_attack, eps=0.05, step_size=0.01, steps=10)
    assert robust_accuracy(role, data, attack=plain).numbers["worst_run"] == survivors(0.05) / N


def test_a_targeted_loss_is_for_the_worst_case():
    role, data = small_net()
    with pytest.raises(InputError, match="mode = 'worst_case'"):
        PROBES["targeted"].replace(mode="paper").build()(role, data)


def test_losses_that_need_more_classes_are_told():
    role, data = thresholds()
    with pytest.raises(InputError, match=r"DLR loss needs 3 classes, the model has 2(.|\n)*'margin'"):
        robust(loss="dlr").build()(role, data)


def test_limit_takes_so_many_examples():
    role, data = thresholds()
    assert len(Spec("probe", "accuracy", {"limit": 7}).build()(role, data).examples["correct"]) == 7


def test_results_are_called_by_the_scope_of_their_probe_and_two_of_one_name_are_refused():
    role, data = thresholds()
    probes = [Spec("probe", "accuracy", {}, "twice").build(), Spec("probe", "accuracy").build()]
    assert list(measure(probes, {"robust": role}, data)) == ["robust.twice", "robust.accuracy"]
    with pytest.raises(InputError, match="two probes are called 'accuracy'"):
        labels([probes[1], probes[1]])


def test_a_probe_of_two_models_runs_over_ordered_pairs():
    from actkit.probes import Result

    @register("probe", "test_pair")
    def pair(source, target, data):
        return Result({"same": float(source is target)})

    role, data = thresholds()
    results = measure([Spec("probe", "test_pair").build()], {"a": role, "b": role}, data)
    assert list(results) == ["a>b.test_pair", "b>a.test_pair"]


def test_examination_is_in_fp32_whatever_the_training_is():
    role, data = thresholds()
    half = Role("robust", role.model, precision="bf16")
    seen = []
    role.model.register_forward_hook(lambda m, i, out: seen.append((out.dtype, torch.is_autocast_enabled("cpu"))))
    examine([Spec("probe", "accuracy").build()], {"robust": half}, data)
    assert set(seen) == {(torch.float32, False)}


def test_an_examination_leaves_no_trace_on_a_model_that_trains_in_bf16():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 2))
    half = Role("robust", network, precision="bf16", trained=True)
    network[1].eval()
    network[2].bias.requires_grad_(False)
    examine([], {"robust": half}, thresholds()[1])
    assert [module.training for module in network] == [True, False, True]
    assert [p.requires_grad for p in network.parameters()] == [True, True, True, False]


def test_looks_at_a_model_that_trains_in_bf16_share_one_copy():
    copied = []

    class Counted(nn.Flatten):
        def __deepcopy__(self, memo):
            copied.append(self)
            return Counted()

    role, data = thresholds()
    half = Role("robust", nn.Sequential(Counted(), role.model[1]), precision="bf16")
    for _ in range(2):
        examine([Spec("probe", "accuracy").build()], {"robust": half}, data)
    assert len(copied) == 1


def test_a_result_says_its_eps_as_it_was_written():
    role, data = thresholds()
    about = Found.of(robust(attack=PGD.replace(eps="8/255")).build()(role, data)).to_json()
    assert about["threat"] == {"norm": "linf", "eps": "8/255", "value": 8 / 255}
    assert math.isclose(about["numbers"]["worst_run"], survivors(8 / 255) / N)

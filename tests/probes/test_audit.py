"""The audit: four deliberately masked models raise their own flags, an honestly trained one raises none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actkit.attacks import away_from, pgd
from actkit.config.registry import register
from actkit.config.spec import Spec
from actkit.findings import Counts, Flag
from actkit.losses import cross_entropy
from actkit.networks.roles import Role
from actkit.noise import Noise
from actkit.probes import Progress, measure
from actkit.probes.result import Result

EPS = 0.15
ATTACK = Spec("attack", "pgd", {"eps": EPS, "step_size": 0.015, "steps": 20})
AUDIT = Spec("probe", "audit", {"attack": ATTACK, "limit": 100, "queries": 100, "targets": 2, "steps": 30})


@pytest.fixture(scope="module")
def digits():
    return Spec("dataset", "digits").build()()


@pytest.fixture(scope="module")
def trained(digits) -> dict[str, nn.Module]:
    """A natural and a robust network, honestly trained on real digits."""

    def net(adversarial: bool) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        role = Role("robust", model, optimizer=torch.optim.Adam(model.parameters(), lr=2e-3))
        for epoch in range(12):
            for ids in digits.train.order(0, epoch).split(128):
                x, y = digits.train.batch(ids)
                if adversarial:
                    with role.frozen("eval") as g:
                        goal = away_from(g, cross_entropy, y)
                        x = pgd(goal, x, noise=Noise(ids, epoch), eps=EPS, step_size=0.05, steps=5)
                role.zero_grad()
                cross_entropy(role(x), y).mean().backward()
                role.step()
        return model.eval().requires_grad_(False)

    return {"natural": net(False), "robust": net(True)}


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class ZeroGradients(Wrapped):
    """Right on the way forward, and nothing on the way back."""

    def forward(self, x):
        return self.inner(x.detach() + 0 * x)


class Detached(Wrapped):
    def forward(self, x):
        return self.inner(x.detach())


class LargeLogits(Wrapped):
    def forward(self, x):
        return self.inner(x) * 1e4


class Noisy(Wrapped):
    def __init__(self, inner: nn.Module, deviation: float = 0.1) -> None:
        super().__init__(inner)
        self.deviation = deviation

    def forward(self, x):
        return self.inner(x + self.deviation * torch.randn_like(x))


class Quantised(Wrapped):
    """16 levels."""

    def forward(self, x):
        return self.inner((x * 15).round() / 15)


class Probabilities(Wrapped):
    def forward(self, x):
        return self.inner(x).softmax(1)


class Neighbourly(Wrapped):
    """What an image is called depends on the batch that it is in."""

    def forward(self, x):
        return self.inner(x - 0.5 * x.mean(0, keepdim=True))


class Optimises(Wrapped):
    """A defence that takes a gradient step of its own before it answers."""

    def forward(self, x):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(self.inner(y).logsumexp(1).sum(), y)
        return self.inner(x + 0.0 * g)


def audit(model: nn.Module, data, **kwargs) -> Result:
    return measure([AUDIT.replace(**kwargs).build()], {"robust": Role("robust", model)}, data)["robust.audit"]


def raised(result: Result, level: str = "red") -> set[str]:
    return {flag.check for flag in result.flags if flag.level == level}


@pytest.mark.parametrize("name", ["natural", "robust"])
def test_an_honestly_trained_model_raises_no_flag(trained, digits, name):
    result = audit(trained[name], digits)
    assert [f for f in result.flags if f.level != "green"] == []
    assert len(result.flags) == 18
    assert (result.numbers["attack"] < 0.2) == (name == "natural")
    assert (result.numbers["attack"] > 0.5) == (name == "robust")
    assert not result.red


@pytest.mark.parametrize(
    ("mask", "its_own"),
    [
        (ZeroGradients, {"zero gradients", "Square"}),
        (LargeLogits, {"saturation", "Square", "APGD-T"}),
        (Noisy, {"deterministic"}),
        (Quantised, {"zero gradients", "Square"}),
        (Probabilities, {"logits"}),
        (Optimises, {"plain forward"}),
        (Neighbourly, {"independent"}),
    ],
)
def test_a_masked_model_raises_its_own_flag(trained, digits, mask, its_own):
    result = audit(mask(trained["natural"]), digits)
    assert result.red
    assert its_own <= raised(result)


def test_a_model_without_any_gradient_gets_its_flag_and_no_traceback(trained, digits):
    result = audit(Detached(trained["natural"]), digits)
    assert raised(result) == {"zero gradients"}
    assert "no gradient with respect to the images" in next(f for f in result.flags if f.level == "red").said


def test_other_models_serve_as_surrogates(trained, digits):
    models = {name: Role(name, model) for name, model in trained.items()}
    models["masked"] = Role("masked", ZeroGradients(trained["natural"]))
    found = measure([AUDIT.build()], models, digits)
    assert not found["natural.audit"].red and not found["robust.audit"].red
    assert "transfer from natural" in raised(found["masked.audit"])
    assert {"transfer from natural", "transfer from masked"} <= {f.check for f in found["robust.audit"].flags}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step_size": 1.0}, "the step size 1.0 is larger than eps 0.15"),
        ({"step_size": 0.001}, "20 steps of 0.001 reach 0.02, not eps 0.15"),
    ],
)
def test_a_step_that_does_not_fit_the_ball_is_yellow(trained, digits, settings, said):
    flags = audit(trained["robust"], digits, attack=ATTACK.replace(**settings)).flags
    assert [f for f in flags if f.check == "step size"] and [f for f in flags if f.check == "step size"] == [
        Flag("step size", "yellow", f.said) for f in flags if said in f.said
    ]


def test_steps_that_help_the_defender_are_yellow(trained, digits):
    """The paper's Table 4: accuracy rises from PGD-10 to PGD-100. Here an attack that comes back when it has more steps."""

    @register("attack", "test_coming_back")
    def coming_back(goal, x, *, noise, eps: float, steps: int):
        x_adv = pgd(lambda x, rows: (goal(x, rows)[0], None), x, noise=noise, eps=eps, step_size=eps / 4, steps=10)
        return x_adv if steps <= 10 else x

    attack = Spec("attack", "test_coming_back", {"eps": EPS, "steps": 10})
    flag = next(f for f in audit(trained["robust"], digits, attack=attack).flags if f.check == "more steps")
    assert flag.level == "yellow" and "twice the steps help the defender" in flag.said


def test_a_last_iterate_that_shows_more_than_the_attack_ever_left_is_red(trained, digits):
    @register("attack", "test_returning")
    def returning(goal, x, *, noise, eps: float, steps: int = 10):
        pgd(goal, x, noise=noise, eps=eps, step_size=eps / 4, steps=steps)
        return x

    result = audit(trained["natural"], digits, attack=Spec("attack", "test_returning", {"eps": EPS}))
    assert "last iterate" in raised(result)


def test_an_attack_without_steps_is_audited(trained, digits):
    """R+FGSM: a random start and one step."""

    @register("attack", "test_one_step")
    def one_step(goal, x, *, noise, eps: float, step_size: float):
        return pgd(goal, x, noise=noise, eps=eps, step_size=step_size, steps=1)

    result = audit(trained["robust"], digits, attack=Spec("attack", "test_one_step", {"eps": EPS, "step_size": EPS}))
    assert "step size" in {flag.check for flag in result.flags}


def test_another_loss_is_not_blamed_for_a_saturated_cross_entropy(trained, digits):
    result = audit(LargeLogits(trained["natural"]), digits, loss="margin")
    assert not result.red and "saturation" in raised(result, "yellow")


def test_an_attack_that_is_weaker_than_one_step_is_red(trained, digits):
    @register("attack", "test_lazy")
    def lazy(goal, x, *, noise, eps: float):
        return x

    result = audit(trained["natural"], digits, attack=Spec("attack", "test_lazy", {"eps": EPS}))
    assert {"one step", "Square", "APGD-T", "eps 1"} <= raised(result)


def test_accuracy_that_rises_with_eps_is_red(trained, digits):
    @register("attack", "test_confused")
    def confused(goal, x, *, noise, eps: float):
        return pgd(goal, x, noise=noise, eps=eps, step_size=eps / 4, steps=10) if eps <= EPS else x

    result = audit(trained["natural"], digits, attack=Spec("attack", "test_confused", {"eps": EPS}))
    assert {"monotone", "eps 1"} <= raised(result)


def test_accuracy_at_eps_0_that_is_not_clean_accuracy_is_red(trained, digits):
    assert "eps 0" in raised(audit(Noisy(trained["natural"], 0.3), digits))


def lazy(goal, x, *, noise, eps: float):
    """An attack that does nothing."""
    return x


def test_on_few_images_what_beats_the_attack_may_be_chance(trained, digits):
    """The attack does nothing and everything else beats it, on so few images that chance may do as much."""
    register("attack", "test_lazy_on_few")(lazy)
    result = audit(trained["natural"], digits, attack=Spec("attack", "test_lazy_on_few", {"eps": EPS}), limit=6)
    flags = {flag.check: flag for flag in result.flags}
    for check in ("one step", "Square"):
        assert flags[check].level == "yellow"
        assert "perhaps the gradients mislead, perhaps chance (p = 0.0" in flags[check].said
        assert flags[check].counts.images == 6 and flags[check].counts.net >= 2
    assert flags["images"].level == "yellow" and flags["images"].said.startswith(
        "6 images were looked at, 6 of them right unattacked: few show little;"
    )


def test_a_check_says_on_how_many_images_and_keeps_the_counts(trained, digits):
    register("attack", "test_lazy_on_many")(lazy)
    result = audit(trained["natural"], digits, attack=Spec("attack", "test_lazy_on_many", {"eps": EPS}))
    flag = next(flag for flag in result.flags if flag.check == "one step")
    left, held = round(100 * result.numbers["one_step"]), round(100 * result.numbers["attack"])
    assert flag.level == "red"
    assert flag.counts == Counts(100, held - left, 0, flag.counts.p) and flag.counts.p < 0.01
    assert flag.said == (
        f"one step leaves {left} of 100 images, test_lazy_on_many {held}; {held - left} fall to one step alone, 0 to test_lazy_on_many alone: "
        "the gradients mislead (p < 0.0001)"
    )


def test_an_attack_without_random_numbers_is_run_once_and_that_is_said(trained, digits):
    @register("attack", "test_steady")
    def steady(goal, x, *, noise, eps: float):
        return pgd(goal, x, noise=noise, eps=eps, step_size=eps / 4, steps=5, start="none")

    result = audit(trained["robust"], digits, attack=Spec("attack", "test_steady", {"eps": EPS}), limit=20)
    flag = next(flag for flag in result.flags if flag.check == "restarts")
    assert flag == Flag(
        "restarts", "green", "test_steady draws no random numbers: it was run once, not from 5 equal starts"
    )
    assert result.numbers["attack"] == result.numbers["first_start"]


def test_a_few_images_without_a_gradient_are_no_proof_and_many_are(trained, digits):
    class Some(Wrapped):
        """The first images have no gradient."""

        def __init__(self, inner, count) -> None:
            super().__init__(inner)
            self.count = count

        def forward(self, x):
            dead = torch.arange(len(x), device=x.device) < self.count
            return self.inner(torch.where(dead[:, None, None, None], x.detach() + 0 * x, x))

    levels = {}
    for count in (1, 8):
        flags = audit(Some(trained["natural"], count), digits, queries=1, steps=2, starts=1, targets=1).flags
        levels[count] = next((f.level, f.counts.against) for f in flags if f.check == "zero gradients")
    assert levels == {1: ("yellow", 1), 8: ("red", 8)}


def test_an_interrupted_audit_goes_on_in_the_same_order_and_finds_the_same(trained, digits):
    class Interrupted(dict):
        """Holds so many parts, and then the work is interrupted."""

        def __setitem__(self, name, part):
            if len(self) == 12:
                raise KeyboardInterrupt
            super().__setitem__(name, part)

    def audited(parts: dict) -> Result:
        probe = AUDIT.replace(limit=20, queries=5, steps=5, starts=2).build()
        models = {"robust": Role("robust", trained["robust"])}
        return measure([probe], models, digits, Progress(parts))["robust.audit"]

    whole, kept = {}, Interrupted()
    straight = audited(whole)
    with pytest.raises(KeyboardInterrupt):
        audited(kept)
    assert list(kept) == list(whole)[:12] and len(whole) > 12
    resumed = dict(kept)
    again = audited(resumed)
    assert (again.numbers, again.flags) == (straight.numbers, straight.flags)
    assert list(resumed) == list(whole)


def test_the_l2_ball_is_audited_too(trained, digits):
    attack = ATTACK.replace(norm="l2", eps=1.0, step_size=0.1)
    result = audit(trained["natural"], digits, attack=attack)
    assert not result.red
    assert "Square" not in {f.check for f in result.flags}, "it is an linf attack"


def test_on_a_robust_model_of_real_digits_stronger_attacks_succeed_more(trained, digits):
    """FGSM <= PGD-20 <= PGD-100 <= APGD-CE + APGD-T in success, each as a per-example worst case."""

    def left(attack: Spec, **kwargs) -> float:
        probe = Spec("probe", "robust_accuracy", {"attack": attack, "mode": "worst_case", "starts": 2, **kwargs})
        return probe.build()(Role("robust", trained["robust"]), digits).numbers["worst_case"]

    ensemble = Spec("probe", "autoattack", {"eps": EPS, "queries": 0, "steps": 50}).build()
    numbers = ensemble(Role("robust", trained["robust"]), digits).numbers
    order = [
        left(Spec("attack", "fgsm", {"eps": EPS}), starts=1),
        left(ATTACK),
        left(ATTACK.replace(steps=100)),
        numbers["APGD-T"],
    ]
    assert order == sorted(order, reverse=True)
    assert order[0] > order[1] > order[-1] > 0.4, "attacks that differ, on a model that holds"
    assert "Square" not in numbers, "no queries, no Square"


class DroppingOut(Wrapped):
    """Dropout that stays on at test time."""

    def forward(self, x):
        return self.inner(nn.functional.dropout(x, 0.2, training=True))


class Resized(Wrapped):
    """Random resizing and padding (Xie et al. 2018)."""

    def forward(self, x):
        size = int(torch.randint(6, 9, ()))
        small = nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        left = int(torch.randint(0, 9 - size, ()))
        return self.inner(nn.functional.pad(small, (left, 8 - size - left, left, 8 - size - left)))


@pytest.mark.parametrize("random", [DroppingOut, Resized])
def test_a_model_that_answers_at_random_is_pointed_to_the_expectation_over_its_draws(trained, digits, random):
    torch.manual_seed(0)
    (flag,) = (f for f in audit(random(trained["robust"]), digits).flags if f.check == "deterministic")
    assert flag.level == "red"
    assert "expectation over transformation: -s probe.robust_accuracy.draws=20" in flag.said

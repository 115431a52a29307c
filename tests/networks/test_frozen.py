"""The frozen view follows whatever happens to the model: one that did not would attack a model that no longer exists."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from torch import Tensor, nn

from actkit.networks.roles import Role

X = torch.linspace(0, 1, 8 * 16).view(8, 1, 4, 4)


class Net(nn.Module):
    """A network with all that can change: two sets of BatchNorm, settings in an attribute, a list, and an object."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.clean, self.adversarial = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.norm = self.clean
        nn.init.constant_(self.adversarial.weight, 3.0)
        self.adversarial.running_mean.fill_(0.2)
        self.which, self.scales, self.settings = "norm", [1.0], types.SimpleNamespace(shift=0.0)
        self.offset = torch.zeros(3)
        self.extra: nn.Module | None = None
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, self.which)(self.conv(x)).relu().flatten(1)
        x = self.head(x) * self.scales[0] + self.settings.shift + self.offset
        return x if self.extra is None else self.extra(x)


def role(precision: str = "fp32", trained: bool = True) -> Role:
    torch.manual_seed(0)
    return Role("robust", Net(), precision=precision, trained=trained)


def new_data(net: Net) -> None:
    net.conv.weight.data = -net.conv.weight.data


def replaced_parameter(net: Net) -> None:
    net.head.weight = nn.Parameter(-net.head.weight.detach())


def replaced_buffer(net: Net) -> None:
    net.clean.running_var = torch.full((4,), 7.0)


def first_parameter_of_a_kind(net: Net) -> None:
    net.conv.bias = None


def replaced_submodule(net: Net) -> None:
    net.head = nn.Linear(64, 3)


def first_submodule_of_a_name(net: Net) -> None:
    net.extra = nn.Linear(3, 3)


def another_of_its_submodules(net: Net) -> None:
    net.norm = net.adversarial


def switched_by_an_attribute(net: Net) -> None:
    net.which = "adversarial"


def changed_in_a_list(net: Net) -> None:
    net.scales[0] = 2.0


def changed_in_an_object(net: Net) -> None:
    net.settings.shift = 1.5


def changed_attribute_with_a_history(net: Net) -> None:
    net.offset = net.head.bias * 2 + 1


def changed_attribute_in_place(net: Net) -> None:
    net.offset += 2


def hook(net: Net) -> None:
    net.head.register_forward_hook(lambda module, inputs, out: 2 * out)


CHANGES = [
    new_data,
    replaced_parameter,
    replaced_buffer,
    first_parameter_of_a_kind,
    replaced_submodule,
    first_submodule_of_a_name,
    another_of_its_submodules,
    switched_by_an_attribute,
    changed_in_a_list,
    changed_in_an_object,
    changed_attribute_with_a_history,
    changed_attribute_in_place,
    hook,
]


def logits(model: Role, mode: str) -> Tensor:
    with model.frozen(mode) as view, torch.no_grad():
        return view(X)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_view_follows(change, mode, precision):
    one, unseen = role(precision), role(precision)
    before = logits(one, mode)
    for model in (one, unseen):
        torch.manual_seed(1)
        change(model.model)
    after = logits(one, mode)
    assert after.equal(logits(unseen, mode))
    # In train mode BatchNorm takes its statistics from the batch, and what comes before it as bias makes no difference.
    if not (mode == "train" and change in (replaced_buffer, first_parameter_of_a_kind)):
        assert not after.equal(before)
    # And it goes on sharing what the change brought.
    with torch.no_grad():
        for model in (one, unseen):
            for p in model.model.parameters():
                p.mul_(1.5)
    assert logits(one, mode).equal(logits(unseen, mode))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_view_leaves_no_trace_after_a_change(change):
    one = role()
    logits(one, "train")
    change(one.model)
    before = {k: v.clone() for k, v in one.model.state_dict().items()}
    for mode in ("eval", "train"):
        x = X.clone().requires_grad_()
        with one.frozen(mode) as view:
            view(x).sum().backward()
        assert x.grad is not None
    assert one.model.training
    assert all(p.grad is None and p.requires_grad for p in one.model.parameters())
    assert all(before[k].equal(v) for k, v in one.model.state_dict().items())


def test_tied_weights_are_tied_in_the_view_until_the_model_unties_them():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16))
    net[2].weight = net[1].weight
    one = Role("robust", net, trained=True)
    logits(one, "eval")
    net[2].weight = nn.Parameter(2 * net[1].weight.detach())
    with torch.no_grad():
        net[1].weight.mul_(3)
    assert logits(one, "eval").equal(net(X).detach())


def test_another_model_in_the_role_is_seen():
    one = role()
    logits(one, "eval")
    torch.manual_seed(5)
    one.model = Net()
    assert logits(one, "eval").equal(one.model.eval()(X).detach())


def test_what_the_views_forward_sets_is_not_the_models():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.last = 0, None
            self.line = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = self.line(x.flatten(1))
            return self.last

    one = Role("robust", Counting(), trained=True)
    one(X)
    for _ in range(2):
        logits(one, "train")
    assert one.model.calls == 1
    assert one.model.last.requires_grad


def test_a_view_of_another_dtype_than_it_was_made_of():
    one = role(trained=False)
    logits(one, "eval")
    one.model.double()
    with one.frozen() as view:
        assert view(X.double()).equal(copy.deepcopy(one.model)(X.double()).float().detach())

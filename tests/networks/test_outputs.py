"""What a network may give and do: anything but logits is refused in one line that names it; the caller's images stay what they were."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from actkit.attacks.goals import NoGradient, ascend, untargeted
from actkit.errors import InputError
from actkit.networks.averages import Average
from actkit.networks.building import asks_for_image_size, build, initialise
from actkit.networks.roles import Role
from actkit.networks.trial import assert_takes

SHAPE = (1, 6, 6)
Out = namedtuple("Out", "logits aux")


class Net(nn.Module):
    """Logits of three classes, given as `how` says; `after` may change them."""

    def __init__(self, give=lambda z, net: z, before=lambda x: x):
        super().__init__()
        self.fc, self.give, self.before = nn.Linear(36, 3), give, before

    def forward(self, x: Tensor):
        return self.give(self.fc(self.before(x).flatten(1)), self)


KINDS = {
    "a tuple": (lambda z, net: (z, z), r"gives a tuple of \(2, 3\) and \(2, 3\)"),
    "a list": (lambda z, net: [z], r"gives a list of \(2, 3\)"),
    "a dict": (lambda z, net: {"logits": z}, r"gives a dict of logits \(2, 3\)"),
    "a named tuple": (lambda z, net: Out(z, None), r"gives Out of \(2, 3\) and nothing"),
    "a tuple in training": (lambda z, net: (z, z) if net.training else z, "in training: .* gives a tuple"),
    "nothing": (lambda z, net: None, "gives nothing"),
    "no batch": (lambda z, net: z.mean(0), r"gives \(3,\) for 2 images"),
    "no batch of one": (lambda z, net: z.squeeze(), r"gives \(3,\) for 1 image"),
    "a map": (lambda z, net: z[..., None, None], r"gives \(2, 3, 1, 1\)"),
    "other classes": (lambda z, net: z[:, :2], r"gives \(2, 2\) .* logits of 3 classes"),
    "an error": (lambda z, net: z.no_such, "does not take images of 1x6x6: 'Tensor' object has no attribute"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_are_no_logits_are_refused_by_the_name_of_the_network(kind):
    give, message = KINDS[kind]
    role = Role("robust", Net(give), trained=True)
    with pytest.raises(InputError, match=message) as caught:
        assert_takes(role, "backbone.net", SHAPE, 3, in_training=True)
    assert "backbone.net" in caught.value.message


def test_a_network_that_is_asked_leaves_no_trace():
    role = Role("robust", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Dropout(), nn.Linear(36, 3)), trained=True)
    before = {name: value.clone() for name, value in role.model.state_dict().items()}
    state = torch.get_rng_state()
    assert_takes(role, "backbone.net", SHAPE, 3, in_training=True)
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in role.model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [lambda x: x.sub_(0.5).div_(0.25), lambda x: x.data.mul_(2), lambda x: x[:, :, 0].zero_() * 0 + x[:, :, 0]],
)
def test_a_network_that_changes_its_input_in_place_leaves_the_callers_images_alone(change):
    torch.manual_seed(0)
    net = Net(before=lambda x: (change(x), x)[1])
    torch.manual_seed(0)
    reference = Net(before=lambda x: (lambda own: (change(own), own)[1])(x.clone()))
    role, x = Role("robust", net), torch.rand(2, *SHAPE)
    kept = x.clone()
    for _ in range(2):
        with role.frozen() as view:
            assert view(x).equal(reference(x.clone()))
        assert role(x).equal(reference(x.clone()))
        assert x.equal(kept)
    with role.frozen() as view:
        ascend(untargeted(view, torch.tensor([0, 1])), x, slice(None))
    assert x.equal(kept)


@pytest.mark.parametrize(
    "before",
    [lambda x: x.detach(), lambda x: x.argmax(-1, keepdim=True).expand(-1, -1, -1, 6).float()],
    ids=["detached", "argmax"],
)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_network_without_a_gradient_is_refused_also_where_its_weights_have_one(before, frozen):
    role = Role("robust", Net(before=before), trained=not frozen)
    with pytest.raises(NoGradient, match="no gradient with respect to the images"):
        ascend(untargeted(role, torch.tensor([0, 1])), torch.rand(2, *SHAPE), slice(None))


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"])
@pytest.mark.filterwarnings("ignore")
def test_a_network_with_weight_norm_is_copied_attacked_and_averaged(norm):
    role = Role("robust", nn.Sequential(nn.Flatten(), norm(nn.Linear(36, 3))), trained=True)
    optimizer = torch.optim.SGD(role.model.parameters(), lr=0.5)
    for _ in range(2):
        x = torch.rand(2, *SHAPE)
        role(x).square().sum().backward()
        optimizer.step()
        average = Average(role.model, "ema", decay=0.9, first=0)
        average.end(role.model, "batch", epochs=0)
        with role.frozen() as view:
            assert view(x).equal(role(x))


def test_lazy_layers_are_refused_in_one_line():
    def lazy(num_classes, *, in_chans=3):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    with pytest.raises(InputError, match=r"has lazy layers \(1\)"):
        initialise(lazy, num_classes=3, in_chans=1, seed=0)


class Holds(Net):
    def __init__(self):
        super().__init__()
        self.numbers = (n for n in range(3))


def test_a_network_that_cannot_be_copied_says_why():
    role = Role("robust", Holds())
    with pytest.raises(InputError, match=r"\(Holds\) cannot be copied"):
        assert_takes(role, "backbone.net", SHAPE, 3)


def sides(num_classes, *, in_chans=3, image_size: tuple[int, int]):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * image_size[0] * image_size[1], num_classes))


def one_side(num_classes, *, in_chans=3, image_size: int):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * image_size**2, num_classes))


@pytest.mark.parametrize("backbone", [sides, one_side])
def test_a_network_that_asks_for_the_size_of_images_is_given_it(backbone):
    assert asks_for_image_size(backbone)
    net = build(backbone, 3, in_chans=1, image_size=(6, 6))
    assert net(torch.rand(2, 1, 6, 6)).shape == (2, 3)


def test_one_that_wants_a_square_is_given_no_other():
    with pytest.raises(InputError, match="takes square images, these are 6x8"):
        build(one_side, 3, in_chans=1, image_size=(6, 8))

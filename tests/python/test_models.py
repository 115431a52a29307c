"""A model that is handed in comes back as it was; one from a file is ready to use."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import actkit
from actkit import InputError
from actkit.networks import model_files
from actkit.python.models import as_role

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4
CPU = torch.device("cpu")


def network(*, noisy: bool = False) -> nn.Module:
    """With what may be disturbed: BatchNorm, dropout, a stride that torch is unsafe with in channels-last."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 1, stride=2),
        nn.Dropout(0.5),
        Noise() if noisy else nn.Identity(),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
    )


class Noise(nn.Module):
    """A defence that draws from every global generator, in eval mode too, and counts in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + 1e-4 * torch.randn_like(x) * random.random() * np.random.rand()


def state(model: nn.Module) -> dict:
    """All that one could notice of it."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {n: t.detach().clone() for n, t in tensors.items()},
        "objects": {n: (id(t), t.data_ptr(), t.stride(), t.requires_grad) for n, t in tensors.items()},
        "grads": {n: (id(p.grad), None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()},
        "modes": [m.training for m in model.modules()],
        "hooks": [(list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()],
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()),
        "switches": (torch.is_grad_enabled(), torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32),
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.equal(b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


HANDED_IN = {
    "in train mode": lambda m: m.train(),
    "in eval mode": lambda m: m.eval(),
    "partly in train mode": lambda m: m.eval()[1].train() and m,
    "channels-last": lambda m: m.to(memory_format=torch.channels_last),
    "partly frozen": lambda m: m[0].requires_grad_(False) and m,
    "with gradients": lambda m: m(X).sum().backward() or m,
    "with a hook": lambda m: m[2].register_forward_hook(lambda module, x, y: y) and m,
}

LOOKS = {
    "attack": lambda m: actkit.attack.pgd(m, X, Y, eps=0.1, step_size=0.05, steps=2),
    "evaluate": lambda m: actkit.evaluate(m, (X, Y), ["accuracy", "pgd5"], eps=0.1),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("how", HANDED_IN)
@pytest.mark.parametrize("noisy", [False, True], ids=["", "that draws numbers"])
def test_looking_leaves_the_model_and_all_generators_as_they_were(how, look, noisy):
    model = HANDED_IN[how](network(noisy=noisy))
    before = state(model)
    LOOKS[look](model)
    assert same(state(model), before)


@pytest.mark.parametrize("how", HANDED_IN)
def test_however_a_model_is_handed_in_its_answers_are_those_of_eval_mode(how):
    model = HANDED_IN[how](network())
    twin = copy.deepcopy(model).eval()
    with as_role(model).frozen("eval") as view, torch.no_grad():
        assert torch.allclose(view(X), twin(X), atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_attack_works_where_the_caller_has_switched_gradients_off(mode):
    model = network()
    wanted = LOOKS["attack"](model)
    with mode():
        assert LOOKS["attack"](model).equal(wanted)


def test_a_model_that_draws_numbers_gives_the_same_result_each_time():
    model = network(noisy=True)
    assert LOOKS["attack"](model).equal(LOOKS["attack"](model))


def test_a_copy_shares_the_memory_of_what_is_no_convolution():
    model = network()
    assert as_role(model).model[7].weight.data_ptr() == model[7].weight.data_ptr()


WRAPPED = {"compiled": torch.compile, "in DataParallel": nn.DataParallel}


# Importing torch's compiler takes ten seconds.
@pytest.mark.parametrize("how", [pytest.param("compiled", marks=pytest.mark.slow), "in DataParallel"])
def test_a_wrapped_model_is_the_model(how):
    model = network()
    assert LOOKS["attack"](WRAPPED[how](model)).equal(LOOKS["attack"](model))


class Tuple(nn.Module):
    def forward(self, x):
        return x, x


REFUSED = {
    "a function": (lambda: lambda x: x, "a model is a torch.nn.Module, this is a function"),
    "a class": (lambda: nn.Linear, "this is a class: make an instance of it"),
    "half precision": (lambda: network().half(), "its weights are float16"),
    "another size": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 4)), r"does not take images of 3x8x8: mat1 and mat2"),
    "a script": (lambda: torch.jit.script(nn.Linear(2, 2)), "a TorchScript module cannot be looked through"),
    "lazy layers": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "has lazy layers"),
    "a tuple": (Tuple, "gives a tuple of"),
    "features": (nn.Identity, r"gives \(1, 3, 8, 8\) for 1 image of 3x8x8; logits of shape \(1, classes\) are wanted"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_classifier_is_refused_in_a_line(what):
    make, said = REFUSED[what]
    with pytest.raises(InputError, match=said):
        LOOKS["attack"](make())


# -- from files ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    return actkit.load_model("example:act_digits")


def test_a_loaded_model_gives_the_logits_of_its_role(example):
    x = torch.rand(3, 1, 8, 8)
    role, _ = model_files.load_role(example.path)
    with role.frozen("eval") as view:
        assert example(x).equal(view(x))
    assert not example.training


def test_a_loaded_model_is_the_headline_model_and_says_what_it_is(example):
    assert (example.name, example.header.role, example.header.classes[3]) == ("act_digits", "robust", "3")
    assert "images in [0,1], NCHW, 1x8x8" in repr(example)


def test_another_role_of_a_run_is_asked_for_by_name():
    assert actkit.load_model("example:act_digits", role="natural").name == "act_digits.natural"
    with pytest.raises(InputError, match="no model here has the role 'robst'"):
        actkit.load_model("example:act_digits", role="robst")


def test_a_single_file_is_a_model_too(example, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(example.path.read_bytes())
    assert actkit.load_model(file).name == "mine"


def test_a_module_passes_through_as_it_is():
    model = network()
    assert actkit.load_model(model) is model

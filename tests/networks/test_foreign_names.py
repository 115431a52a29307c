"""Which entries of a foreign file are the network's: by name and shape, whatever the prefix and the order; the rest is used or named."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks import importing
from actkit.networks.foreign_names import Choice

ARCH = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]})


def state(classes: int = 10, channels: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return ARCH.build()(classes, in_chans=channels).state_dict()


def under(prefix: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state(seed=seed).items()}


def take(found, **how) -> importing.Imported:
    return importing.imported(found, ARCH, where="here", **how)


def equal(made: importing.Imported, seed: int = 0) -> bool:
    return all(made.weights[name].equal(value) for name, value in state(seed=seed).items())


COUNT = {"n_averaged": torch.tensor(3)}

TAKEN = {
    "bare": (state(), ""),
    "DataParallel": (under("module."), "'module.'"),
    "compiled within DDP": (under("module._orig_mod."), "'module._orig_mod.'"),
    "Lightning": (under("net."), "'net.'"),
    "a wrapper's backbone": (under("backbone."), "'backbone.'"),
    "an EMA": (under("ema_model."), "'ema_model.'"),
    "behind a normaliser without buffers": (under("1.module."), "'1.module.'"),
    "an average": (under("module.") | COUNT, "left out 1 entries of n_averaged"),
    "an encoder and its head": (
        {name if name.startswith("fc.") else f"encoder.{name}": value for name, value in state().items()},
        "'encoder.'",
    ),
    "a profiler": (
        state() | {"layer1.0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
        "a profiler wrote",
    ),
    "a loss": (under("model.") | {"criterion.weight": torch.ones(10)}, "which belong to a loss"),
    "its number of classes": (under("model.") | {"n_classes": torch.tensor(10)}, "n_classes"),
    "the same twice": (under("model.") | under("copy."), "where there is the same network again"),
    "half precision": ({k: v.half().float() for k, v in state().items()}, ""),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_wrapped_network_is_found_and_what_is_left_out_is_said(kind):
    found, said = TAKEN[kind]
    made = take(found)
    assert kind == "half precision" or equal(made)
    assert (made.num_classes, made.in_chans) == (10, 3)
    assert said in "\n".join(made.notes)


def test_the_order_of_a_files_names_means_nothing():
    """The last matrix and the first convolution of the file are not the classifier and the stem here."""
    found = dict(reversed(list(state(classes=7, channels=1).items())))
    made = take(found)
    assert (made.num_classes, made.in_chans) == (7, 1)


def test_parameters_are_counted_without_statistics_and_constants():
    plain = take(state())
    behind = take(state(), normalise=([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]))
    own = sum(p.numel() for p in ARCH.build()(10, in_chans=3).parameters())
    assert plain.parameters == behind.parameters == own


REFUSED = {
    "two networks": (
        lambda: under("student.") | under("teacher.", seed=1),
        r"under 2 prefixes: 'student\.', 'teacher\.'",
        "--prefix",
    ),
    "two encoders and a head": (
        lambda: (
            {name if name.startswith("fc.") else f"encoder_q.{name}": value for name, value in state().items()}
            | {f"encoder_k.{name}": value for name, value in state(seed=1).items() if not name.startswith("fc.")}
        ),
        r"but for its head are in it under 2 prefixes: 'encoder_k\.', 'encoder_q\.'",
        "--prefix",
    ),
    "an entry of a stranger": (
        lambda: under("net.") | {"projector.weight": torch.zeros(2, 2)},
        "1 of its entries are unknown: projector.weight",
        r"--ignore 'projector\.\*'",
    ),
    "another stage": (
        lambda: state() | {"layer1.7.conv1.weight": torch.zeros(4, 4, 3, 3)},
        "1 of its entries are unknown: layer1.7.conv1.weight",
        "--rename",
    ),
    "no running statistics": (
        lambda: {name: value for name, value in state().items() if "running" not in name},
        "14 of ours are missing, such as 'bn1.running_mean'",
        "--arch",
    ),
    "classes that disagree": (
        lambda: state() | {"fc.bias": torch.zeros(7)},
        "different numbers of classes: fc.weight for 10, fc.bias for 7",
        "--arch",
    ),
    "quantised weights": (
        lambda: state() | {"conv1.weight": torch.ones(64, 3, 3, 3, dtype=torch.int8)},
        "conv1.weight holds int8",
        "decoded",
    ),
    "two normalisations": (
        lambda: (
            under("model.")
            | {
                f"{where}.{name}": torch.full((3,), value)
                for where, value in (("a", 0.1), ("b", 0.2))
                for name in ("mean", "std")
            }
        ),
        "it normalises twice",
        "--ignore",
    ),
    "a normalisation of 0..255": (
        lambda: under("model.") | {"mean": torch.full((3,), 125.0), "std": torch.full((3,), 63.0)},
        r"the file's normalisation, mean \[125, 125, 125\] and deviation \[63, 63, 63\], would be for pixels of 0..255",
        "0.4902",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_mean_two_things_or_is_unknown_is_refused_by_name(kind):
    make, message, help = REFUSED[kind]
    with pytest.raises(InputError, match=message) as caught:
        take(make())
    assert help.replace("\\", "") in (caught.value.help or "")


def test_a_prefix_that_is_named_chooses_and_the_other_network_is_said():
    made = take(under("student.") | under("teacher.", seed=1), choice=Choice(prefix="teacher"))
    assert equal(made, seed=1)
    assert any("student.*" in note for note in made.notes)
    with pytest.raises(InputError, match="no entry begins with the prefix 'techer.'") as caught:
        take(under("teacher."), choice=Choice(prefix="techer"))
    assert "'teacher'" in caught.value.help


def test_entries_are_left_out_by_pattern_and_parts_of_names_renamed():
    found = {name.replace("fc.", "classifier."): value for name, value in under("net.").items()}
    found["projector.weight"] = torch.zeros(2, 2)
    made = take(found, choice=Choice(ignore=["projector.*"], rename=[("classifier", "fc")]))
    assert equal(made)
    assert "left out 1 entries by --ignore 'projector.*': projector.weight" in made.notes
    with pytest.raises(InputError, match=r"--ignore 'projctor\.\*' matches no entry") as caught:
        take(found, choice=Choice(ignore=["projctor.*"]))
    assert "projector" in caught.value.help
    with pytest.raises(InputError, match="--rename clasifier=fc: no entry") as caught:
        take(found, choice=Choice(rename=[("clasifier", "fc")]))
    assert "classifier" in caught.value.help
    with pytest.raises(InputError, match="would call two entries"):
        take(found, choice=Choice(rename=[("conv1", "bn1"), ("conv2", "bn1")]))


PARTS = st.sampled_from(
    ["module", "net", "model", "backbone", "encoder", "ema_model", "_orig_mod", "0", "1", "student"]
)
LEFTOVERS = {
    "n_averaged": torch.tensor(3),
    "module.total_ops": torch.zeros(1),
    "total_params": torch.zeros(1),
    "criterion.weight": torch.ones(10),
    "n_classes": torch.tensor(10),
    "projector.0.weight": torch.zeros(2, 2),
    "queue": torch.zeros(4, 4),
    "head2.fc.weight": torch.zeros(10, 9),
    "normalizer.mean": torch.full((3,), 0.4),
    "normalizer.std": torch.full((3,), 0.2),
    "layer9.0.conv1.weight": torch.zeros(1, 1, 1, 1),
}


@settings(max_examples=40, deadline=None)
@given(
    prefixes=st.lists(st.lists(PARTS, max_size=3), min_size=1, max_size=2),
    leftovers=st.sets(st.sampled_from(sorted(LEFTOVERS))),
    dropped=st.sets(st.sampled_from(sorted(state())), max_size=2),
    order=st.randoms(use_true_random=False),
)
def test_every_entry_is_used_or_named_and_nothing_ends_in_a_traceback(prefixes, leftovers, dropped, order):
    found = {name: LEFTOVERS[name] for name in leftovers}
    for seed, parts in enumerate(prefixes):
        prefix = "".join(f"{part}." for part in parts)
        found |= {f"{prefix}{n}": v for n, v in state(seed=seed).items() if n not in dropped}
    names = list(found)
    order.shuffle(names)
    found = {name: found[name] for name in names}
    try:
        made = take(found)
    except InputError as error:
        made, refusal = None, error
    if made is None:
        # Which entries: those that are unknown, missing, or meant twice.
        assert re.search(r"such as '|unknown: |under \d prefixes: '|mean our '|has the shape", refusal.message)
        return
    said = "\n".join(made.notes)
    values = list(made.weights.values())
    for name, value in found.items():
        used = any(value.shape == own.shape and value.equal(own) for own in values)
        constants = value.numel() == 3 and "its normalisation is a layer" in said
        known = any(word in name and word in said for word in ("n_averaged", "total_", "criterion", "n_classes"))
        copy = any(f"left out {n} entries of" in said for n in range(1, 60)) and "same network again" in said
        assert used or constants or known or copy, name

"""Other people's weights: read without running anything, given our names, equal in every logit."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks import importing, model_files
from helpers.references import BasicBlock, Bottleneck, Normalised, PreActResNet18, ResNet, WideResNet, lively


def reference(name: str, **more) -> nn.Module:
    torch.manual_seed(0)
    made = {
        "resnet18": lambda: ResNet(BasicBlock, [2, 2, 2, 2], 10),
        "resnet34": lambda: ResNet(BasicBlock, [3, 4, 6, 3], 10),
        "resnet50": lambda: ResNet(Bottleneck, [3, 4, 6, 3], 10),
        "preactresnet18": lambda: PreActResNet18(10),
        "wrn_16_2": lambda: WideResNet(16, 2, 10, **more),
        "wrn_28_10": lambda: WideResNet(28, 10, 10, **more),
        "wrn_34_10": lambda: WideResNet(34, 10, 10, **more),
    }
    return lively(made[name]())


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits(file: Path) -> torch.Tensor:
    with torch.no_grad(), model_files.load_role(file)[0].frozen() as model:
        return model(images())


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "preactresnet18", "wrn_16_2", "wrn_28_10", "wrn_34_10"]
)
def test_every_cifar_network_gives_the_logits_of_an_independent_definition(name):
    theirs = reference(name)
    found = importing.imported(theirs.state_dict(), Spec("backbone", name), where="here")
    ours = found.backbone.build()(10, in_chans=3).eval()
    ours.load_state_dict(found.weights)
    x = images(2)
    with torch.no_grad():
        assert theirs(x).std() > 0.01  # not all alike
        assert (ours(x) - theirs(x)).abs().max() < 1e-5
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def act_release(path: Path) -> tuple[str, dict[str, nn.Module]]:
    """The released ACT code: both models and their optimizers in one file, in PyTorch 1.1's own format."""
    g, f = reference("resnet18"), lively(ResNet(BasicBlock, [2, 2, 2, 2], 10), seed=5)
    optimizer = torch.optim.SGD(g.parameters(), 1e-6, momentum=0.9)
    g(images()).sum().backward()
    optimizer.step()
    content = {
        "nat_model": f.state_dict(),
        "adv_model": g.state_dict(),
        "adv_optimizer": optimizer.state_dict(),
        "epoch": 200,
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return "resnet18", {"robust": g, "natural": f}


def act_release_on_several_gpus(path: Path) -> tuple[str, dict[str, nn.Module]]:
    arch, models = act_release(path)
    prefixed = {
        k: {f"module.{n}": v for n, v in m.state_dict().items()}
        for k, m in (("nat_model", models["natural"]), ("adv_model", models["robust"]))
    }
    torch.save(prefixed, path)
    return arch, models


def trades(path: Path) -> tuple[str, dict[str, nn.Module]]:
    """TRADES: a bare state dict of its first WideResNet, with the stage that is never used."""
    model = reference("wrn_16_2", dead=True)
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, path, _use_new_zipfile_serialization=False)
    return "wrn_16_2", {"robust": model}


def test_the_count_of_parameters_is_the_networks_without_the_constants_of_its_normalisation():
    arch = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]})
    weights = arch.build()(10, in_chans=3).state_dict()
    how = {"where": "here", "image_size": (32, 32)}
    plain = importing.imported(weights, arch, **how)
    behind = importing.imported(weights, arch, normalise=([0.5] * 3, [0.25] * 3), **how)
    assert plain.parameters == behind.parameters == sum(p.numel() for p in arch.build()(10, in_chans=3).parameters())


def madry(path: Path) -> tuple[str, dict[str, nn.Module]]:
    """MadryLab's robustness: the model twice, a normaliser of its own, and what its trainer keeps beside them."""
    inner = reference("resnet50")
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    state = {}
    for owner in ("module.", "module.attacker."):
        state |= {
            f"{owner}normalizer.new_mean": torch.tensor(mean).view(3, 1, 1),
            f"{owner}normalizer.new_std": torch.tensor(std).view(3, 1, 1),
        }
        state |= {f"{owner}model.{name}": value for name, value in inner.state_dict().items()}
    torch.save({"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 150, "amp": None}, path)
    return "resnet50", {"robust": Normalised(inner, mean, std, ("a", "b")).eval()}


def robustbench(path: Path) -> tuple[str, dict[str, nn.Module]]:
    """RobustBench: a state dict under 'state_dict', a normalisation as buffers, the wrapper's prefix."""
    model = Normalised(reference("preactresnet18"), [0.49, 0.48, 0.44], [0.24, 0.24, 0.26], ("mu", "sigma")).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}, "best_acc": 0.5}, path)
    return "preactresnet18", {"robust": model}


def old_pytorch(path: Path) -> tuple[str, dict[str, nn.Module]]:
    """Before PyTorch 0.4.1 BatchNorm counted no batches; half precision; nn.Sequential(normalisation, network)."""
    inner = reference("wrn_16_2")
    state = {f"1.{k}": v for k, v in inner.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({"0.mean": torch.tensor([0.5, 0.5, 0.5]), "0.std": torch.tensor([0.2, 0.2, 0.25]), **state}, path)
    return "wrn_16_2", {"robust": Normalised(inner, [0.5, 0.5, 0.5], [0.2, 0.2, 0.25], ("a", "b")).eval()}


@pytest.mark.parametrize(
    "source",
    [act_release, act_release_on_several_gpus, trades, madry, robustbench, old_pytorch],
    ids=lambda s: s.__name__,
)
def test_a_foreign_checkpoint_imports_and_gives_the_same_logits(source, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arch, models = source(tmp_path / "theirs.pt")
    said = actkit("import", "theirs.pt", "--arch", arch, "--json")
    assert said.code == 0, said.err
    found = {entry["role"]: Path(entry["file"]) for entry in json.loads(said.out)}
    assert found.keys() == models.keys()
    for role, model in models.items():
        with torch.no_grad():
            assert (logits(found[role]) - model(images())).abs().max() < 1e-5


def test_what_was_left_out_is_said(tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trades(tmp_path / "t.pt")
    assert "left out 25 entries of sub_block1.*" in actkit("import", "t.pt", "--arch", "wrn_16_2").out
    madry(tmp_path / "m.pt")
    out = actkit("import", "m.pt", "--arch", "resnet50").out
    assert "attacker.*" in out
    assert "its normalisation is a layer now: mean [0.4914, 0.4822, 0.4465]" in out
    old_pytorch(tmp_path / "o.pt")
    assert "added 13 batch counters" in actkit("import", "o.pt", "--arch", "wrn_16_2").out


def test_an_imported_model_is_examined_by_its_file_alone(tmp_path, actkit, monkeypatch):
    """On digits: one channel, another recipe for its data and evaluation."""
    monkeypatch.chdir(tmp_path)
    model = Spec("backbone", "resnet", {"width": 4, "layers": [1, 1]}).build()(10, in_chans=1)
    torch.save({"state_dict": model.state_dict()}, "d.pt")
    settings = ("-s", "backbone.resnet.width=4", "-s", "run.evaluation=[@probe.accuracy()]")
    said = actkit(
        "import", "d.pt", "--arch", "resnet", "--like", "gin/digits.gin", *settings, "--out", "sub/mine.safetensors"
    )
    assert said.code == 0, said.err
    shown = actkit("probe", "--ckpt", "sub/mine.safetensors")
    assert shown.code == 0, shown.err
    assert "imported from d.pt" in shown.out
    again = actkit(
        "import", "d.pt", "--arch", "resnet", "--like", "gin/digits.gin", *settings, "--out", "sub/mine.safetensors"
    )
    assert again.code == 2
    assert "there is a file of that name already" in again.err


def test_a_normalisation_outside_the_model_becomes_its_first_layer(tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = reference("wrn_16_2")
    torch.save(inner.state_dict(), "w.pt")
    given = ("--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.3")
    assert actkit("import", "w.pt", "--arch", "wrn_16_2", *given).code == 0
    whole = Normalised(inner, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3], ("mean", "std")).eval()
    with torch.no_grad():
        assert (logits(Path("w.safetensors")) - whole(images())).abs().max() < 1e-5
    madry(tmp_path / "m.pt")
    for args, message in (
        (["m.pt", "--arch", "resnet50", *given], "holds a normalisation of its own"),
        (["w.pt", "--arch", "wrn_16_2", *given[:2]], "--mean and --std go together"),
        (["w.pt", "--arch", "wrn_16_2", "--mean", "a,b", "--std", "1,1"], "--mean a,b: numbers are wanted"),
        (
            ["w.pt", "--arch", "wrn_16_2", "--mean", "0.5", "--std", "0.2"],
            "--mean has 1 number, images of 3 channels want 3 numbers, one a channel",
        ),
        (
            ["w.pt", "--arch", "wrn_16_2", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2"],
            "such as --std 0.247,0.243,0.262",
        ),
    ):
        said = actkit("import", *args, "--out", "x.safetensors")
        assert said.code == 2
        assert message in said.err
    assert not Path("x.safetensors").exists()


def test_any_of_timms_networks_can_be_named(tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Spec("backbone", "timm", {"model": "resnet10t"}).build()(10, in_chans=3)
    torch.save(model.state_dict(), "t.pt")
    assert actkit("import", "t.pt", "--arch", "resnet10t").code == 0
    said = actkit("import", "t.pt", "--arch", "resnet10q")
    assert said.code == 2
    assert "there is no architecture 'resnet10q'" in said.err
    assert "did you mean" in said.err


# -- what is refused -----------------------------------------------------------------------------------------------------


class Runs:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def evil(folder: Path) -> None:
    torch.save({"state_dict": reference("wrn_16_2").state_dict(), "extra": Runs(folder / "ran")}, folder / "f.pt")


def bare_pickle(folder: Path) -> None:
    (folder / "f.pt").write_bytes(pickle.dumps(Runs(folder / "ran")))


def whole_module(folder: Path) -> None:
    torch.save(reference("wrn_16_2"), folder / "f.pt")


def claims_10_12_elements(folder: Path) -> None:
    """A zip whose pickle says that a storage of 16 numbers holds 10^12."""
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(4, 4), "conv1.weight": torch.zeros(3, 3, 3, 3)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(folder / "f.pt", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"K\x10t" in content
                content = content.replace(b"K\x10t", b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"t")
            target.writestr(name, content)


def stretched(folder: Path) -> None:
    """One number, shown as 10^12 of them by strides of zero."""
    state = reference("wrn_16_2").state_dict()
    state["block1.layer.0.conv1.weight"] = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))
    torch.save(state, folder / "f.pt")


def stretched_classes(folder: Path) -> None:
    state = reference("wrn_16_2").state_dict()
    state["fc.weight"] = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))
    torch.save(state, folder / "f.pt")


def hostile_safetensors(folder: Path) -> None:
    header = json.dumps(
        {"fc.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    ).encode()
    (folder / "f.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


def inflates(folder: Path) -> None:
    """Zeros, deflated: a thousandth of their size."""
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(1000, 1000), "conv1.weight": torch.zeros(3, 3, 3, 3)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(folder / "f.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))


def nests_without_end(folder: Path) -> None:
    deep: dict = {"state_dict": {}}
    deep["state_dict"]["state_dict"] = deep
    torch.save(deep, folder / "f.pt")


def without_values(folder: Path) -> None:
    torch.save({k: v.to("meta") for k, v in reference("wrn_16_2").state_dict().items()}, folder / "f.pt")


def another_network(folder: Path) -> None:
    torch.save(reference("preactresnet18").state_dict(), folder / "f.pt")


def another_width(folder: Path) -> None:
    torch.save(WideResNet(16, 3, 10).state_dict(), folder / "f.pt")


def incomplete(folder: Path) -> None:
    state = reference("wrn_16_2").state_dict()
    del state["block2.layer.1.conv2.weight"]
    torch.save(state, folder / "f.pt")


def not_finite(folder: Path) -> None:
    state = reference("wrn_16_2").state_dict()
    state["fc.bias"][3] = float("nan")
    torch.save(state, folder / "f.pt")


def cut_short(folder: Path) -> None:
    torch.save(reference("wrn_16_2").state_dict(), folder / "f.pt")
    (folder / "f.pt").write_bytes((folder / "f.pt").read_bytes()[:100_000])


def several(folder: Path) -> None:
    state = reference("wrn_16_2").state_dict()
    torch.save({"last": {"state_dict": state}, "best": {"state_dict": state}}, folder / "f.pt")


def seven_classes(folder: Path) -> None:
    torch.save(WideResNet(16, 2, 7).state_dict(), folder / "f.pt")


REFUSED = {
    evil: "this file is not only weights: loading it would run code",
    bare_pickle: "this file is not only weights: loading it would run code",
    whole_module: "save the weights alone there: torch.save(model.state_dict()",
    claims_10_12_elements: "cannot be read as PyTorch weights",
    stretched: "block1.layer.0.conv1.weight has the shape (1000000, 1000000)",
    stretched_classes: "fc.weight has the shape (1000000, 1000000), backbone.wrn_16_2() needs (num_classes, 128, 1, 1)",
    hostile_safetensors: "the checkpoint cannot be read",
    inflates: "claims to unpack to 4,00",
    nests_without_end: "there are no weights in this file",
    without_values: "without values",
    another_network: "conv1.weight has the shape (64, 3, 3, 3), backbone.wrn_16_2() needs (16, in_chans, 3, 3)",
    another_width: "(48, 16, 3, 3), backbone.wrn_16_2() needs (32, 16, 3, 3)",
    incomplete: "1 of ours are missing, such as 'stages.1.blocks.1.conv2.weight'",
    not_finite: "head.fc.bias holds values that are not finite",
    cut_short: "cannot be read as PyTorch weights",
    several: "there are 2 sets of weights in this file: last.state_dict, best.state_dict",
    seven_classes: "for models of 7 classes it must be said what data they are for",
    lambda folder: (folder / "f.pt").write_text("hello"): "this is no PyTorch file",
    lambda folder: (folder / "f.pt").write_bytes(b""): "this is no PyTorch file",
    lambda folder: (folder / "f.pt").write_bytes(bytes(1000)): "this is no PyTorch file",
    lambda folder: torch.save([1, 2], folder / "f.pt"): "there are no weights in this file",
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED, ids=lambda m: m.__name__.replace("<lambda>", "no weights"))
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_runs(make, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    before = set(tmp_path.iterdir())
    said = actkit("import", next(iter(before)).name, "--arch", "wrn_16_2")
    assert said.code == 2
    assert REFUSED[make] in said.err
    assert "f.pt" in said.err or "f.safetensors" in said.err
    assert said.out == ""
    assert set(tmp_path.iterdir()) == before  # nothing ran, nothing was written


def test_one_of_several_sets_of_weights_is_chosen_by_its_place(tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    several(tmp_path)
    assert actkit("import", "f.pt", "--arch", "wrn_16_2", "--key", "best.state_dict").code == 0
    said = actkit("import", "f.pt", "--arch", "wrn_16_2", "--key", "bset.state_dict")
    assert "did you mean 'best.state_dict'" in said.err


def test_a_checkpoint_of_ours_whose_header_claims_any_size_takes_no_memory(tmp_path):
    """The network that a header describes is compared with what the file holds before memory is taken for it."""
    about = {
        "role": "robust",
        "roles": ["robust"],
        "num_classes": 10,
        "shape": [3, 32, 32],
        "evaluation": [],
        "seed": 0,
        "epoch": 1,
        "step": 1,
        "data": Spec("dataset", "cifar10").to_json(),
        "backbone": Spec("backbone", "resnet", {"width": 10**5, "layers": [1, 1]}).to_json(),
    }
    model_files.save_tensors(
        {"fc.weight": torch.zeros(2, 2)}, tmp_path / "h.safetensors", {"actkit": json.dumps(about)}
    )
    with pytest.raises(InputError, match="the weights are of another network|has shape"):
        model_files.load_role(tmp_path / "h.safetensors")
    about |= {"backbone": Spec("backbone", "resnet", {"layers": [10**9]}).to_json()}
    model_files.save_tensors(
        {"fc.weight": torch.zeros(2, 2)}, tmp_path / "h.safetensors", {"actkit": json.dumps(about)}
    )
    with pytest.raises(InputError, match="2 to 1,000 blocks"):
        model_files.load_role(tmp_path / "h.safetensors")
    about |= {"num_classes": 10**12}
    model_files.save_tensors(
        {"fc.weight": torch.zeros(2, 2)}, tmp_path / "h.safetensors", {"actkit": json.dumps(about)}
    )
    with pytest.raises(InputError, match="num_classes = 1000000000000"):
        model_files.header(tmp_path / "h.safetensors")


def test_imagenets_stem_is_named_where_the_network_has_that_of_small_images(actkit, tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(num_classes=10).state_dict(), tmp_path / "tv.pt")
    said = actkit("import", tmp_path / "tv.pt", "--arch", "resnet18", "--out", tmp_path / "tv.safetensors")
    assert said.code == 2
    assert "add -s backbone.resnet18.stem=imagenet" in said.err

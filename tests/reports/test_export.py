"""Exports: folders that timm and RobustBench load, and cards that say what was measured and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch

import actkit.models
from actkit.errors import InputError
from actkit.files import sha256
from actkit.networks import model_files
from helpers.references import BasicBlock, ResNet, lively


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with two models, an attack and an audit in its evaluation."""
    from actkit.cli.group import main
    from helpers.runs import QUICK

    where = tmp_path_factory.mktemp("exported")
    text = (
        QUICK
        + "run.evaluation = [@probe.accuracy(), @pgd20/probe.robust_accuracy(), @probe.audit()]\nprobe.audit.limit = 20\n"
    )
    (where / "quick.gin").write_text(text)
    with pytest.raises(SystemExit):
        main.main(["run", str(where / "quick.gin"), "--out", str(where / "run"), "--device", "cpu"])
    return where / "run"


@pytest.fixture
def imported(tmp_path, actkit, monkeypatch):
    """A CIFAR ResNet-18 that came from elsewhere."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(lively(ResNet(BasicBlock, [2, 2, 2, 2], 10)).state_dict(), "theirs.pt")
    assert actkit("import", "theirs.pt", "--arch", "resnet18").code == 0
    return tmp_path / "theirs.safetensors"


def logits(model, x):
    with torch.no_grad():
        return model.eval()(x)


def ours(file: Path):
    return model_files.load_role(file)[0].model.to(memory_format=torch.contiguous_format)


def robustbench_load(name: str, dataset: str, threat_model: str, custom_checkpoint: str = ""):
    """What `robustbench.utils.load_model` does where timm knows the name, in its own words (repository HEAD of 2025-03-31)."""
    full = f"{name.lower().replace('-', '_')}_{dataset}_{threat_model.lower()}"
    assert timm.is_model(full)
    return timm.create_model(full, num_classes=10, pretrained=True, checkpoint_path=custom_checkpoint).eval()


def test_timm_and_robustbench_load_an_export_with_equal_logits(imported, actkit):
    said = actkit("export", imported, "--name", "Arani2020Adversarial_R18", "--json")
    assert said.code == 0, said.err
    folder = json.loads(said.out)["folder"]
    assert folder == "exports/Arani2020Adversarial_R18"
    x = torch.rand(4, 3, 32, 32)
    wanted = logits(ours(imported), x)
    assert logits(timm.create_model(f"local-dir:{folder}", pretrained=True), x).equal(wanted)
    assert actkit_models_register(folder) == "arani2020adversarial_r18_cifar10_linf"
    for weights in ("", f"{folder}/model.safetensors"):
        assert logits(robustbench_load("Arani2020Adversarial_R18", "cifar10", "Linf", weights), x).equal(wanted)
    # timm's own options go on working: another head, no weights.
    assert timm.create_model("arani2020adversarial_r18_cifar10_linf", pretrained=True, num_classes=7)(x).shape == (4, 7)
    assert not logits(timm.create_model("arani2020adversarial_r18_cifar10_linf"), x).equal(wanted)


def actkit_models_register(folder):
    return actkit.models.register(folder)


def test_normalisation_stays_inside_and_timm_is_told_so(tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = lively(ResNet(BasicBlock, [2, 2, 2, 2], 10)).state_dict()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.2, 0.25])
    torch.save({"normalize.mean": mean, "normalize.std": std, **{f"model.{k}": v for k, v in state.items()}}, "n.pt")
    assert actkit("import", "n.pt", "--arch", "resnet18").code == 0
    assert actkit("export", "n.safetensors", "--name", "inside").code == 0
    model = timm.create_model("local-dir:exports/inside", pretrained=True)
    assert model.pretrained_cfg["mean"] == (0.0, 0.0, 0.0) or model.pretrained_cfg["mean"] == [0.0, 0.0, 0.0]
    x = torch.rand(2, 3, 32, 32)
    assert (logits(model, x) - logits(ours(Path("n.safetensors")), x)).abs().max() < 1e-6
    assert timm.create_model("local-dir:exports/inside", pretrained=True, num_classes=3)(x).shape == (2, 3)


def test_an_export_is_a_checkpoint_too(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert actkit("export", run, "--name", "mine").code == 0
    for path in ("exports/mine", "exports/mine/model.safetensors"):
        said = actkit("probe", "--ckpt", path, "--probe", "accuracy")
        assert said.code == 0, said.err
        assert "clean" in said.out


def test_the_card_and_the_description_say_what_the_run_measured(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert actkit("export", run).code == 0
    folder = tmp_path / "exports/act_resnet"
    card, about = (folder / "README.md").read_text(), json.loads((folder / "description.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    robust = summary["results"]["robust.pgd20"]["numbers"]
    assert about["results"]["pgd20"]["numbers"] == robust
    assert f"| PGD-2 worst run (linf 0.15) | {100 * robust['worst_run']:.2f}" in card
    assert f"| {100 * summary['results']['robust.accuracy']['numbers']['clean']:.2f} |" in card
    assert "linf, eps = 0.15" in card
    assert about["threat_model"] == {"norm": "linf", "eps": "0.15", "eps_255": 38.25}
    assert "seed 0, 2 epochs (6 batches)" in card
    assert summary["command"] in card
    assert "objective.act.alpha = 0.5" in card
    levels = [flag["level"] for flag in about["flags"]]
    assert f"{levels.count('green')} green" in card
    assert about["weights_sha256"] == sha256(folder / "model.safetensors")
    assert re.match(r"---\nlibrary_name: timm\n", card)
    assert "RobustBench" not in card  # which has no digits
    assert {p.name for p in folder.iterdir()} == {"README.md", "config.json", "description.json", "model.safetensors"}


def test_the_other_role_can_be_exported(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert actkit("export", run, "--role", "natural").code == 0
    about = json.loads((tmp_path / "exports/act_natural_resnet/description.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert about["results"]["accuracy"]["numbers"] == summary["results"]["natural.accuracy"]["numbers"]


def test_a_red_flag_marks_the_card(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = run / "probes/flags-robust.json"
    before = kept.read_text()
    flags = json.loads(before)
    (checks,) = flags.values()
    next(iter(checks.values())).append({"check": "made up", "level": "red", "said": "for this test"})
    kept.write_text(json.dumps(flags))
    try:
        assert actkit("export", run, "--name", "flagged").code == 0
    finally:
        kept.write_text(before)
    card = (tmp_path / "exports/flagged/README.md").read_text()
    assert "UNVERIFIED" in card
    assert "red: made up: for this test" in card


def test_nothing_measured_is_said_and_later_results_can_be_given(imported, actkit, tmp_path):
    said = actkit("export", imported)
    assert said.code == 0
    assert "warning: nothing was measured" in said.err
    assert "Nothing has been measured" in (tmp_path / "exports/imported_resnet18/README.md").read_text()


def test_results_of_a_later_examination_go_onto_the_card(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = actkit("probe", "--ckpt", run, "--probe", "accuracy", "-s", "probe.accuracy.limit=50", "--json")
    Path("later.json").write_text(found.out)
    assert actkit("export", run, "--results", "later.json", "--name", "later").code == 0
    assert "on 50 images" in (tmp_path / "exports/later/README.md").read_text()
    other = json.loads(found.out)
    for model in other[0]["models"].values():
        model["sha256"] = "0" * 64
    Path("other.json").write_text(json.dumps(other))
    said = actkit("export", run, "--results", "other.json", "--name", "other")
    assert said.code == 2
    assert "these results are of other weights" in said.err


def test_a_card_names_no_data_set_that_the_model_is_only_filed_under(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert actkit("export", run, "--name", "own").code == 0
    own = (tmp_path / "exports/own/README.md").read_text()
    assert "datasets:\n- digits\n" in own
    assert "as it is published" not in own
    assert actkit("export", run, "--name", "filed", "--dataset", "mnist").code == 0
    filed = (tmp_path / "exports/filed/README.md").read_text()
    assert "datasets:" not in filed
    assert "measured on digits, which is not mnist as it is published" in filed


def test_a_card_says_how_little_checks_of_few_images_say(run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert actkit("export", run, "--name", "few").code == 0
    assert "that says little: few images (20)" in (tmp_path / "exports/few/README.md").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--role", "teacher"], "no model here has the role 'teacher'"),
        (["--name", "a/b"], "'a/b' cannot be a model's name"),
        (["--results", "none.json"], "these results cannot be read"),
        (["--out", "full"], "the folder is not empty, and an export overwrites nothing"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(args, message, run, tmp_path, actkit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    said = actkit("export", run, *args)
    assert said.code == 2
    assert message in said.err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["full", "mine"]


def test_a_folder_that_is_no_export_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="no export of actkit's"):
        actkit.models.register(tmp_path)


def test_models_needs_none_of_the_other_libraries():
    """RobustBench's environment has torch and timm, and neither gin nor rich nor scikit-learn."""
    import subprocess
    import sys

    code = """
import sys
for name in ("gin", "rich", "click", "sklearn", "matplotlib"):
    sys.modules[name] = None
import actkit.models, timm
timm.create_model("actkit", backbone={"spec": "backbone.resnet18", "kwargs": {}}, num_classes=10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

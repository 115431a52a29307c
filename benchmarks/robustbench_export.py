"""RobustBench loads actkit's exports, without a change there: equal logits, in an environment of its own.

    make robustbench

`make` runs the first half here, with actkit whole, and the second in an environment that has RobustBench, timm and actkit's package without its
dependencies. Networks with random weights and BatchNorm statistics are imported, exported and loaded by `robustbench.utils.load_model`.
Written to docs/results/robustbench.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent.parent / "docs/results"
MODELS = {
    "resnet18": "Arani2020Adversarial_R18",
    "resnet50": "Arani2020Adversarial_R50",
    "wrn_16_2": "Arani2020Adversarial_WRN-16-2",
}
CLASSES = {"resnet18": 10, "resnet50": 10, "wrn_16_2": 100}


def images() -> torch.Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def write(folder: Path) -> None:
    """Exports, and the logits that they must give."""
    from actkit.config.spec import Spec
    from actkit.networks import model_files
    from actkit.networks.importing import convert
    from actkit.reports.export import export

    wanted = {}
    for arch, name in MODELS.items():
        torch.manual_seed(0)
        model = Spec("backbone", arch).build()(CLASSES[arch], in_chans=3)
        # So that the statistics are not the first ones.
        model.train()(images())
        torch.save(model.state_dict(), folder / f"{arch}.pt")
        ((file, _),) = convert(folder / f"{arch}.pt", arch, out=folder / f"{arch}.safetensors")
        export(file, name=name, out=folder / name)
        with torch.no_grad():
            loaded = model_files.load_role(file)[0].model.to(memory_format=torch.contiguous_format).eval()
            wanted[name] = loaded(images())
    torch.save(wanted, folder / "logits.pt")


def load(folder: Path) -> None:
    """What RobustBench makes of them."""
    import timm
    from robustbench.utils import load_model

    import actkit.models

    wanted = torch.load(folder / "logits.pt", weights_only=True)
    found = {}
    for arch, name in MODELS.items():
        known = actkit.models.register(folder / name)
        for how, weights in (("by name", ""), ("custom_checkpoint", str(folder / name / "model.safetensors"))):
            model = load_model(name, dataset=f"cifar{CLASSES[arch]}", threat_model="Linf", custom_checkpoint=weights)
            with torch.no_grad():
                difference = (model(images()) - wanted[name]).abs().max().item()
            found[f"{name}, {how}"] = {
                "timm_name": known,
                "in_eval_mode": not model.training,
                "largest_difference": difference,
            }
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=here
    ).stdout.strip()
    result = {
        "command": "make robustbench",
        "commit": commit,
        "machine": platform.machine(),
        "versions": {
            "robustbench": importlib.metadata.version("robustbench"),
            "timm": timm.__version__,
            "torch": torch.__version__,
        },
        "data": "16 random images of 32x32",
        "models": found,
    }
    print(json.dumps(result, indent=1))
    if any(entry["largest_difference"] > 1e-5 or not entry["in_eval_mode"] for entry in found.values()):
        sys.exit("the logits differ")
    (RESULTS / "robustbench.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    half, folder = sys.argv[1:]
    {"write": write, "load": load}[half](Path(folder))

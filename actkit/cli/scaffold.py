"""`actkit new KIND NAME`: a plugin that works, with a recipe and a test, ready to edit and to publish."""

from __future__ import annotations

import keyword
from pathlib import Path

from actkit import __version__
from actkit.errors import InputError, nearest

_TREE = {
    "pyproject.toml": """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "actkit-NAME"
version = "0.1.0"
description = "NAME, KIND for actkit"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["actkit>=VERSION"]

[project.entry-points."actkit.plugins"]
NAME = "actkit_NAME" # imported when actkit starts: what it registers is then there

[tool.setuptools]
packages = ["actkit_NAME"]

[tool.setuptools.package-data]
actkit_NAME = ["gin/*.gin"] # found by name: actkit run NAME_digits.gin

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
""",
    "README.md": """# actkit-NAME

A plugin of the kind KIND for actkit.

```sh
pip install -e .
actkit list KIND NAME
actkit run NAME_digits.gin
```

Without installing it: `actkit run actkit_NAME/gin/NAME_digits.gin --plugins actkit_NAME`
""",
    "actkit_NAME/__init__.py": '''"""NAME: KIND for actkit."""

from __future__ import annotations

from actkit_NAME.NAME import NAME

__all__ = ["NAME"]
''',
    "tests/test_NAME.py": '''"""The plugin does what it says, and its recipe runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST_IMPORTS

HERE = Path(__file__).parent.parent

TEST_BODY

def test_its_recipe_runs(tmp_path):
    recipe = HERE / "actkit_NAME/gin/NAME_digits.gin"
    command = [sys.executable, "-m", "actkit", "run", str(recipe), "--plugins", str(HERE / "actkit_NAME"), "--out", str(tmp_path / "run")]
    quick = ["run.steps=1", "run.monitor=[]", "run.evaluation=[EVALUATED]"]
    done = subprocess.run([*command, *(part for s in quick for part in ("-s", s))], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/summary.json").is_file()
''',
}


_KINDS: dict[str, dict[str, str]] = {
    "objective": {
        "code": '''from __future__ import annotations

from actkit import Attack, away_from, cross_entropy, register


# Positional parameters after x, y are the roles that it trains or consults, the first being the headline model; keyword-only ones are what a recipe
# can set. `noise`, and `progress` from 0 to 1, are supplied to an objective that asks for them.
@register("objective")
def NAME(x, y, robust, *, attack: Attack, share: float = 0.5, noise):
    """Cross-entropy on clean and adversarial examples: say here what it is, whose, and which forward runs in which mode."""
    with robust.frozen("eval") as f:  # no weight gradients, nothing left behind
        x_adv = attack(away_from(f, cross_entropy, y), x, noise=noise)
    clean, adversarial = cross_entropy(robust(x), y), cross_entropy(robust(x_adv), y)
    yield {robust: (1 - share) * clean + share * adversarial}  # one loss an example; each yield is one update
''',
        "recipe": """# NAME on digits.
include 'digits.gin'

run.objective = @objective.NAME()
objective.NAME.attack = @train/attack.pgd()
objective.NAME.share = 0.5
""",
        "imports": """import torch
from torch import nn

import actkit_NAME  # noqa: F401  registers it
from actkit import Noise, Role, Spec, update""",
        "body": """
def test_an_update_moves_the_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    role = Role("robust", model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    before = model[1].weight.detach().clone()
    noise = Noise(torch.arange(8), 0)
    attack = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 2})
    objective = Spec("objective", "NAME", {"attack": attack}).build()
    (losses,) = update(objective, noise.uniform(1, 8, 8), noise.integers(10), {"robust": role}, noise=noise)
    assert losses["robust"].shape == (8,)
    assert not model[1].weight.equal(before)

""",
        "evaluated": "@probe.accuracy()",
    },
    "attack": {
        "code": '''from __future__ import annotations

import torch

from actkit import InputError, register


def problems(*, eps: float, tries: int):
    if eps < 0:
        yield "eps", InputError(f"eps must not be negative, got {eps}")
    if tries < 1:
        yield "tries", InputError(f"at least 1 try is needed, got {tries}")


# An attack sees a goal, never a model or labels: goal(x, rows) gives, for those rows of the batch, the value to maximise and whether the
# attacker has won already (None in training). Random numbers come from `noise` alone.
@register("attack", check=problems)
def NAME(goal, x, *, noise, eps: float, tries: int = 10):
    """The best of several random corners of the linf ball: x of shape (B, C, H, W) in [0,1], eps in the same unit."""
    best, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
    for _ in range(tries):
        candidate = (x + eps * (2 * noise.integers(2, *x.shape[1:]).to(x) - 1)).clamp(0, 1)
        with torch.no_grad():
            value, _ = goal(candidate, slice(None))
        better = value > highest
        best, highest = torch.where(better[:, None, None, None], candidate, best), torch.maximum(value, highest)
    return best
''',
        "recipe": """# Madry's adversarial training on digits, with the attack NAME.
include 'madry_digits.gin'

objective.madry.attack = @train/attack.NAME()
train/attack.NAME.eps = %EPS
""",
        "imports": """import torch

import actkit_NAME  # noqa: F401  registers it
from actkit import Noise, Spec""",
        "body": """
def test_it_stays_in_the_ball_and_raises_the_value():
    noise = Noise(torch.arange(4), 0)
    x = noise.uniform(1, 8, 8)
    attack = Spec("attack", "NAME", {"eps": 0.1}).build()
    x_adv = attack(lambda at, rows: (at.flatten(1).sum(1), None), x, noise=noise)
    assert (x_adv - x).abs().max() <= 0.1 + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1

""",
        "evaluated": "@probe.accuracy()",
    },
    "backbone": {
        "code": '''from __future__ import annotations

from torch import nn

from actkit import register


# It gives logits for x in [0,1], NCHW. num_classes and in_chans come from the data set; the other keyword parameters are what a recipe can set.
@register("backbone")
def NAME(num_classes: int, *, in_chans: int = 3, width: int = 32) -> nn.Module:
    """Two convolutions and a classifier."""
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )  # fmt: skip
''',
        "recipe": """# ACT on digits with the network NAME.
include 'act_digits.gin'

role.backbone = @backbone.NAME()
backbone.NAME.width = 16
""",
        "imports": """import torch

import actkit_NAME  # noqa: F401  registers it
from actkit import Spec""",
        "body": """
def test_it_gives_logits():
    model = Spec("backbone", "NAME", {"width": 8}).build()(10, in_chans=1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)

""",
        "evaluated": "@probe.accuracy()",
    },
    "probe": {
        "code": '''from __future__ import annotations

import torch

from actkit import Result, register


# A probe measures something on a trained model; what it stores of each example has the examples as its last dimension.
@register("probe")
def NAME(model, data, *, split: str = "test", limit: int | None = None) -> Result:
    """Mean confidence: the largest probability of the posterior, over a split."""
    images = data.split(split)
    places = torch.arange(len(images) if limit is None else min(limit, len(images)))
    found = []
    with model.frozen("eval") as f, torch.no_grad():
        for x, _ in images.batches(places.split(256), device=model.device):
            found.append(f(x).softmax(1).amax(1).cpu())
    confidence = torch.cat(found)
    return Result({"mean": float(confidence.mean())}, {"confidence": confidence})
''',
        "recipe": """# Madry's adversarial training on digits, examined by the probe NAME too.
include 'madry_digits.gin'

run.evaluation = [@probe.accuracy(), @probe.NAME()]
""",
        "imports": """import torch
from torch import nn

import actkit_NAME  # noqa: F401  registers it
from actkit import Role, Spec""",
        "body": """
def test_a_model_that_knows_nothing_is_sure_of_a_tenth():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    result = Spec("probe", "NAME").build()(Role("robust", model), Spec("dataset", "digits").build()())
    assert abs(result.numbers["mean"] - 0.1) < 1e-6
    assert result.examples["confidence"].shape == (359,)
    assert torch.allclose(result.examples["confidence"], torch.tensor(0.1))

""",
        "evaluated": "@probe.accuracy(), @probe.NAME()",
    },
    "dataset": {
        "code": '''from __future__ import annotations

import torch

from actkit import Data, Split, register


# It gives Data: sizes by split, and how each is read, which happens when it is first asked for. Images are float in [0,1], NCHW, or uint8.
@register("dataset")
def NAME(*, count: int = 200, seed: int = 0) -> Data:
    """Made-up squares on a dark ground: two classes, bright on the left or on the right."""

    def read(split: str) -> Split:
        generator = torch.Generator().manual_seed(seed + (split == "test"))
        labels = torch.randint(2, (count,), generator=generator)
        images = 0.2 * torch.rand(count, 1, 8, 8, generator=generator)
        for image, label in zip(images, labels, strict=True):
            image[:, 2:6, 4 * int(label) : 4 * int(label) + 4] += 0.6
        return Split(images, labels)

    return Data("NAME", (1, 8, 8), ("left", "right"), {"train": count, "test": count}, read)
''',
        "recipe": """# ACT on the data set NAME.
include 'act_digits.gin'

run.data = @dataset.NAME()
run.epochs = 5
""",
        "imports": """import actkit_NAME  # noqa: F401  registers it
from actkit import Spec""",
        "body": """
def test_it_is_the_same_every_time_and_its_splits_differ():
    data = Spec("dataset", "NAME", {"count": 20}).build()()
    again = Spec("dataset", "NAME", {"count": 20}).build()()
    assert data.sizes == {"train": 20, "test": 20}
    assert data.split("train").fingerprint() == again.split("train").fingerprint()
    assert data.split("train").fingerprint() != data.split("test").fingerprint()

""",
        "evaluated": "@probe.accuracy()",
    },
}


KINDS = tuple(_KINDS)


def new(kind: str, name: str, place: Path) -> Path:
    """Write the plugin into `place/NAME` and give that folder. Raises `InputError` for a kind or name that cannot be, or a folder that is there."""
    if kind not in _KINDS:
        raise InputError(
            f"a plugin cannot be begun for {kind!r}", help=nearest(kind, KINDS) or f"one of {', '.join(KINDS)}"
        )
    taken = name in ("actkit", "torch", "problems", "pytest", "sys", "subprocess")
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or name.strip("_") != name or taken:
        suggested = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")
        raise InputError(
            f"a component's name must be a Python identifier in lower case that begins and ends with no underscore and is no module's, got {name!r}",
            help=f"did you mean {suggested!r}?" if suggested.isidentifier() and not keyword.iskeyword(suggested) else None,
        )  # fmt: skip
    folder = place / name
    if folder.exists():
        raise InputError(
            "the folder is there already", where=str(folder), help="choose another name, or another --into"
        )
    parts = _KINDS[kind]
    files = {
        **_TREE, "actkit_NAME/NAME.py": parts["code"], "actkit_NAME/gin/NAME_digits.gin": parts["recipe"],
    }  # fmt: skip
    for file, text in files.items():
        text = text.replace("TEST_IMPORTS", parts["imports"]).replace("TEST_BODY\n", parts["body"])
        text = text.replace("EVALUATED", parts["evaluated"]).replace("VERSION", __version__)
        text = text.replace("KIND", kind).replace("NAME", name)
        path = folder / file.replace("NAME", name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"the plugin cannot be written: {error.strerror}", where=str(path), help="choose another --into"
            ) from error
    return folder

"""The model card of an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from actkit.evaluation.summary import Summary
from actkit.reports.rows import UNVERIFIED, rows
from actkit.reports.words import thin_evidence

_CARD = """---
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- adversarial-robustness
- timm
- actkit
{datasets}---

# {name}

{what}

It takes images with values in [0,1], of shape {shape}; {normalised}.

## Threat model

{threat}

## Results

{results}

{flags}

## Use

```python
import actkit.models, timm

model = timm.create_model("local-dir:{folder}", pretrained=True).eval()   # the folder that holds this file
```

{robustbench}To examine it again: `actkit probe --ckpt {folder}/model.safetensors`.

## Training

{training}
"""


_ROBUSTBENCH = """In RobustBench, without a change there (in an environment of its own, since RobustBench pins an old timm; actkit's README has the commands):

```python
import actkit.models
from robustbench.utils import load_model

actkit.models.register("{folder}")
model = load_model("{name}", dataset="{dataset}", threat_model="{norm}")
```

"""


# The data sets that RobustBench has.
_ROBUSTBENCH_DATA = ("cifar10", "cifar100", "imagenet")


def model_card(about: Mapping[str, Any], measured: Summary | None, *, shape: Sequence[int]) -> str:
    """The card, from an export's description and what was measured of the model; `shape` of an image, (C, H, W)."""
    threat = about["threat_model"]
    said = {
        "name": about["name"],
        "dataset": about["dataset"],
        "folder": f"exports/{about['name']}",
        "norm": threat["norm"].capitalize() if threat else "",
    }
    text = _CARD.format(
        **said,
        # A folder of images with the same classes is no such data set.
        datasets=f"datasets:\n- {about['dataset']}\n" if about["published_data"] else "",
        robustbench=_ROBUSTBENCH.format(**said) if about["dataset"] in _ROBUSTBENCH_DATA and threat else "",
        shape=" x ".join(map(str, shape)),
        what=f"`{about['backbone']}`, {about['parameters']:,} parameters, {about['num_classes']} classes.",
        normalised="any normalisation is a layer of the model",
        threat=_threat(threat),
        results=_table(about, measured) + _other_data(about["dataset"], measured) if measured else _NOTHING,
        flags=_checks(about["flags"], thin_evidence(measured, about["role"]) if measured else ""),
        training=_training(about),
    )
    return text.rstrip() + "\n"


def _other_data(dataset: str, measured: Summary) -> str:
    """What is to be said where the numbers are of other images than the data set's that the model is filed under."""
    if measured.data.lower() == dataset:
        return ""
    return f"\n\n**These numbers were measured on {measured.data}, which is not {dataset} as it is published**, whatever the model is filed under: they do not stand beside others' on {dataset}."


_NOTHING = "Nothing has been measured of these weights. `actkit probe` measures."


def _threat(threat: Mapping[str, Any] | None) -> str:
    if threat is None:
        return "None: its evaluation attacks nothing."
    return f"{threat['norm']}, eps = {threat['eps']} in [0,1] pixels ({threat['eps_255']:g}/255)."


def _checks(flags: Sequence[Mapping[str, str]], thin: str) -> str:
    """The green flags counted, the others written out; and, where they say little, why (`thin`)."""
    if not flags:
        return "No audit for gradient masking has been run on these weights."
    others = [f"- {flag['level']}: {flag['check']}: {flag['said']}" for flag in flags if flag["level"] != "green"]
    counted = f"{len(flags) - len(others)} green, {len(others)} others"
    counted += f"; that says little: {thin}" if thin else ""
    return f"Checks for gradient masking: {counted}.\n" + "\n".join(others)


def _training(about: Mapping[str, Any]) -> str:
    if origin := about["imported"]:
        return f"Imported from `{origin['file']}` (SHA-256 `{origin['sha256']}`); how it was trained is not known here."
    length = f"{about['epochs']} epochs ({about['steps']:,} batches)"
    recipe = f" The whole recipe:\n\n```python\n{about['recipe'].strip()}\n```" if about["recipe"] else ""
    return f"`{about['objective']}`, seed {about['seed']}, {length}.{recipe}"


def _table(about: Mapping[str, Any], measured: Summary) -> str:
    own = {name: found for name, found in measured.results.items() if name.model == about["role"]}
    measured = dataclasses.replace(measured, results=own)
    titles, body = rows(measured)
    lines = ["| | percent |", "|---|---|"]
    lines += [f"| {title} | {cell} |" for title, cell in zip(titles[1:], body[0][1:], strict=True)] if body else []
    said = [
        f"- {label}: `{r['probe']}` on {r['images']:,} images" for label, r in about["results"].items() if r["images"]
    ]
    data = ", ".join(f"{split} {fingerprint}" for split, fingerprint in measured.data_fingerprint.items())
    made = ", ".join(f"{name} {measured.versions.get(name, '?')}" for name in ("actkit", "torch"))
    by = f"Measured by `{measured.command}` on {measured.data} (fingerprint: {data}), {made}."
    doubts = [f"- {UNVERIFIED}: {because}" for because in measured.because]
    return "\n".join([*lines, "", *said, "", by, *doubts])

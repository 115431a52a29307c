"""The model card of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actkit.reports.rows import UNVERIFIED, rows

_CARD = """---
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- adversarial-robustness
- timm
- actkit
datasets:
- {dataset}
---

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


def model_card(about: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    threat = about["threat_model"]
    flags = [
        f"- {flag['level']}: {flag['check']}: {flag['said']}" for flag in about["flags"] if flag["level"] != "green"
    ]
    green = sum(flag["level"] == "green" for flag in about["flags"])
    if about["flags"]:
        checked = f"Checks for gradient masking: {green} green, {len(flags)} others.\n" + "\n".join(flags)
    else:
        checked = "No audit for gradient masking has been run on these weights."
    if about["imported"]:
        training = f"Imported from `{about['imported']['file']}` (SHA-256 `{about['imported']['sha256']}`); how it was trained is not known here."
    else:
        training = (
            f"`{about['objective']}`, seed {about['seed']}, {about['epochs']} epochs ({about['steps']:,} batches)."
        )
        training += f" The whole recipe:\n\n```python\n{about['recipe'].strip()}\n```" if about["recipe"] else ""
    said = {
        "name": about["name"], "dataset": about["dataset"], "folder": f"exports/{about['name']}",
        "norm": threat["norm"].capitalize() if threat else "",
    }  # fmt: skip
    known = about["dataset"] in ("cifar10", "cifar100", "imagenet") and threat  # the data sets that RobustBench has
    return _CARD.format(
        **said, robustbench=_ROBUSTBENCH.format(**said) if known else "", shape=" x ".join(map(str, about["input"].partition("shape (")[2].partition(")")[0].split(", "))),
        what=f"`{about['backbone']}`, {about['parameters']:,} parameters, {about['num_classes']} classes.",
        normalised="any normalisation is a layer of the model",
        threat=f"{threat['norm']}, eps = {threat['eps']} in [0,1] pixels ({threat['eps_255']:g}/255)." if threat else "None: its evaluation attacks nothing.",
        results=_table(about, summary) if summary else "Nothing has been measured of these weights. `actkit probe` measures.",
        flags=checked, training=training,
    ).rstrip() + "\n"  # fmt: skip


def _table(about: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    own = {name: r for name, r in summary["results"].items() if name.rpartition(".")[0] == about["role"]}
    titles, body = rows({**summary, "results": own})
    lines = ["| | percent |", "|---|---|"]
    lines += [f"| {title} | {cell} |" for title, cell in zip(titles[1:], body[0][1:], strict=True)] if body else []
    said = [
        f"- {label}: `{r['probe']}` on {r['images']:,} images" for label, r in about["results"].items() if r["images"]
    ]
    by = about["measured_by"]
    data = ", ".join(f"{split} {sum}" for split, sum in by.get("data_fingerprint", {}).items())
    said += [
        "",
        f"Measured by `{by['command']}` on {by['data']} (fingerprint: {data}), actkit {by['versions']['actkit']}, torch {by['versions']['torch']}.",
    ]
    because = dict.fromkeys(b for r in own.values() for b in r.get("because", ()))
    return "\n".join([*lines, "", *said, *(f"- {UNVERIFIED}: {b}" for b in because)])

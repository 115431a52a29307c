"""The table of digits: four defences, two seeds, each trained and examined by `actkit run`; written to docs/results.

python benchmarks/digits.py            # a quarter of an hour on two cores; stopped, it goes on where it was
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECIPES = ("natural", "madry", "trades", "act")
SEEDS = (0, 1)
OUT = Path(__file__).parent.parent / "docs/results"


def run(recipe: str, seed: int) -> dict:
    command = [
        sys.executable,
        "-m",
        "actkit",
        "run",
        f"gin/{recipe}_digits.gin",
        "--seed",
        str(seed),
        "--device",
        "cpu",
        "--json",
    ]
    # Two runs side by side, one thread each: OpenMP's busy waiting makes two of two threads many times slower.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, stdout=subprocess.PIPE, text=True, cwd=OUT.parent).stdout.strip()


def main() -> None:
    rows = {}
    cells = [(recipe, seed) for recipe in RECIPES for seed in SEEDS]
    with ThreadPoolExecutor(2) as pool:
        summaries = [
            (recipe, summary) for (recipe, _), summary in zip(cells, pool.map(lambda c: run(*c), cells), strict=True)
        ]
    for recipe, summary in summaries:
        for name, numbers in summary["results"].items():
            role, _, _ = name.partition(".")
            label = recipe if len({n.partition(".")[0] for n in summary["results"]}) == 1 else f"{recipe}, {role} model"
            for number, value in numbers.items():
                rows.setdefault(label, {}).setdefault(number, []).append(value)
    about = {
        "command": "python benchmarks/digits.py",
        "commit": git("rev-parse", "--short", "HEAD")
        + ("-dirty" if git("status", "--porcelain", "--", "../actkit", "../gin") else ""),
        "machine": {
            "processor": platform.machine(),
            "torch": summaries[0][1]["versions"]["torch"],
            "python": platform.python_version(),
        },
        "data": "digits (scikit-learn), 1,438 training and 359 test images; not comparable with the paper",
        "data_fingerprint": summaries[0][1]["data_fingerprint"],
        "evaluation": summaries[0][1]["evaluation"],
        "seeds": list(SEEDS),
        "rows": rows,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "digits.json").write_text(json.dumps(about, indent=1) + "\n")
    lines = [
        "| defence | clean | PGD-20 worst of 5 runs | PGD-20 per-example worst |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {label} | "
            + " | ".join(f"{100 * statistics.mean(n[key]):.1f}" for key in ("clean", "worst_run", "worst_case"))
            + " |"
            for label, n in rows.items()
        ),
    ]
    text = [
        "# Digits",
        "",
        f"Percent, mean of seeds {' and '.join(map(str, SEEDS))}. {about['data']}. eps 0.15, step 0.015.",
        f"Made by `{about['command']}` at commit {about['commit']}; every number is in [digits.json](digits.json).",
        "",
        *lines,
        "",
    ]
    (OUT / "digits.md").write_text("\n".join(text))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

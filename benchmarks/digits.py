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


def flagged(flags: list[dict]) -> str:
    """What an audit complained of, in a word or two."""
    return ", ".join(f"{flag['level']}: {flag['check']}" for flag in flags) or "green"


def main() -> None:
    cells = [(recipe, seed) for recipe in RECIPES for seed in SEEDS]
    with ThreadPoolExecutor(2) as pool:
        summaries = list(zip(cells, pool.map(lambda cell: run(*cell), cells), strict=True))
    rows: dict = {}
    for (recipe, seed), summary in summaries:
        models = {name.partition(".")[0] for name in summary["results"]}
        for name, result in summary["results"].items():
            role, _, probe = name.partition(".")
            row = rows.setdefault(
                recipe if len(models) == 1 else f"{recipe}, {role} model", {"numbers": {}, "flags": {}}
            )
            for number, value in result["numbers"].items():
                row["numbers"].setdefault(f"{probe}.{number}", []).append(value)
            row["flags"].setdefault(f"seed {seed}", []).extend(f for f in result["flags"] if f["level"] != "green")
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
        "| defence | clean | PGD-20 worst of 5 runs | PGD-20 per-example worst | APGD-T, 3 targets (200 images) | audit, by seed |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    wanted = ("accuracy.clean", "pgd20.worst_run", "pgd20.per_example_worst", "audit.apgd")
    for label, row in rows.items():
        means = [f"{100 * statistics.mean(row['numbers'][number]):.1f}" for number in wanted]
        lines.append(f"| {label} | {' | '.join(means)} | {'; '.join(map(flagged, row['flags'].values()))} |")
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

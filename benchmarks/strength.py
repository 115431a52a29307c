"""From the weakest attack to the strongest on one trained model: FGSM, PGD-20, PGD-100, APGD-CE + APGD-T (+ Square), as per-example worst cases.

python benchmarks/strength.py NAME --ckpt RUN [-s KEY=VALUE ...]     # writes docs/results/strength_NAME.json

Theory says that success of FGSM <= PGD-20 <= PGD-100 <= APGD-CE + APGD-T. Exit code 1 where it does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import subprocess
import sys
from pathlib import Path

OUT = Path(__file__).parent.parent / "docs/results"
# APGD-CE alone, from one start, has no place in it beside PGD-100 from five.
ORDER = ["clean", "FGSM", "PGD-20", "PGD-100", "+ APGD-T", "+ Square"]


def git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, stdout=subprocess.PIPE, text=True, cwd=OUT.parent).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("-s", "--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    settings = [part for setting in given.settings for part in ("-s", setting)]
    command = [
        "actkit",
        "probe",
        "--ckpt",
        given.ckpt,
        "--evaluation",
        "gin/evaluation_strength.gin",
        *settings,
        "--json",
    ]
    said = subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    (summary,) = json.loads(said)
    rows = {}
    for name, result in summary["results"].items():
        model = rows.setdefault(name.rpartition(".")[0], {})
        for column in result["columns"]:
            model[column["title"].removesuffix(" any iterate")] = result["numbers"][column["number"]]
    trained = json.loads((Path(given.ckpt) / "summary.json").read_text())
    rising = {model: all(row[a] >= row[b] for a, b in itertools.pairwise(ORDER)) for model, row in rows.items()}
    about = {
        "command": " ".join(command),
        "trained by": trained["command"],
        "commit": git("rev-parse", "HEAD"),
        "uncommitted changes": bool(git("status", "--porcelain")),
        "machine": f"{platform.machine()}, {summary['device']}",
        "versions": summary["versions"],
        "data": summary["data"],
        "data_fingerprint": summary["data_fingerprint"],
        "evaluation": summary["evaluation"],
        "accuracy": rows,
        "in order": rising,
    }
    (OUT / f"strength_{given.name}.json").write_text(json.dumps(about, indent=1) + "\n")
    for model, row in rows.items():
        print(
            model,
            " >= ".join(f"{title} {100 * row[title]:.2f}" for title in ORDER),
            "" if rising[model] else "NOT IN ORDER",
        )
    sys.exit(not all(rising.values()))


if __name__ == "__main__":
    main()

"""What each part of the recipe brings, in small: `python -m training.ablation RUN --labels PSEUDO --steps 500`

Table 6 of the paper with what data there is: the organ network of its pair with and without pseudo-labels and
synthesis, and a unified one beside it. Each network trains from nothing for the same number of steps with the same
seed, and is scored on scans that it has not seen. An arm that is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from training.evaluate import evaluate, means
from training.sources import LABELLED, open_sources
from training.train import train

# From nothing within minutes: large voxels, classes balanced, a high rate.
COARSE, BALANCE, PEAK = 3.0, 0.7, 2e-3


@dataclass(frozen=True)
class Arm:
    """Shares of synthetic and of pseudo-labelled patches, the labelled scans having the rest, and the outputs."""

    synthetic: float
    pseudo: float
    outputs: str = "organ"  # a key of training.labels.OUTPUTS


ARMS = {
    "labelled scans": Arm(0.0, 0.0),
    "with pseudo-labels": Arm(0.0, 0.4),
    "with synthesis": Arm(0.6, 0.0),
    "with both": Arm(0.5, 0.2),
    "with both, organs and tumour in one": Arm(0.5, 0.2, "unified"),
}


def run(folder: Path, data: Path, labels: Path, held_out: list[str], steps: int, seed: int) -> dict[str, float]:
    """Mean organ DSC by arm; each arm's scores are written to its own folder."""
    result = {}
    for name, arm in ARMS.items():
        place = folder / name.replace(",", "").replace(" ", "-")
        scores = place / "scores.json"
        if not scores.exists():
            sources = open_sources(data, arm.synthetic, arm.pseudo, labels, held_out)
            state = train(
                place,
                sources,
                outputs=arm.outputs,
                steps=steps,
                peak=PEAK,
                seed=seed,
                coarse=COARSE,
                balance=BALANCE,
            )
            weights = place / "weights"
            for command in (
                ["training.result_folder", state, place / "model", "--labels", arm.outputs, "--coarse", COARSE],
                ["training.export", place / "model", weights / arm.outputs],
            ):
                subprocess.run([sys.executable, "-m", *map(str, command)], check=True, stdout=sys.stderr)
            scans = [data / "labelled" / f"{case}_0000.nii.gz" for case in held_out if case in LABELLED]
            found = evaluate(weights, scans, data / "labelled", [], [])
            plain = {case: {label: vars(score) for label, score in by.items()} for case, by in found.items()}
            mean = means(found)[0].dsc
            scores.write_text(json.dumps({"mean_organ_dsc": mean, "steps": steps, "seed": seed, "cases": plain}) + "\n")
        result[name] = json.loads(scores.read_text())["mean_organ_dsc"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--labels", type=Path, required=True, help="folder with pseudo-labels")
    parser.add_argument("--held-out", nargs="+", default=["ts_slab", "amos_0001"], help="scans to score on")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = run(arguments.run, arguments.data, arguments.labels, arguments.held_out, arguments.steps, arguments.seed)
    print(f"| {arguments.steps} steps, seed {arguments.seed} | mean organ DSC of {', '.join(arguments.held_out)} |")
    print("|---|---|")
    for name, dsc in result.items():
        print(f"| {name} | {100 * dsc:.1f} |")


if __name__ == "__main__":
    main()

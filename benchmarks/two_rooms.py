"""Two Rooms from pixels: what each term of PLDM is worth to a planner, and how it grows with the time of training.

    python -m benchmarks.two_rooms            # fixed wall, all variants, seed 0: two hours of one core
    python -m benchmarks.two_rooms --variants default sigreg --seeds 0 1 --episodes 200
    python -m benchmarks.two_rooms --wall random --variants default --steps 8000 16000 24000

Every variant is the preset with one thing changed, trained for the same steps on the same episodes. Measured as `probe`
and `plan` do: R2 of the dot's place (and of wall and door, where they vary) off z, and goals reached and held under the
protocol of that wall, whose cost counts steps. Pairs are those for reporting; nothing was chosen on them here. Runs
stay in `--out`; one that is there already is measured, not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import openjepa
from benchmarks import record
from benchmarks.jobs import each

SIGREG = ["method.variance=0", "method.covariance=0", "method.sigreg=1.0"]
VARIANTS: dict[str, list[str]] = {
    "default": [],
    "no-inverse": ["method.inverse=0"],
    "no-variance": ["method.variance=0"],
    "no-covariance": ["method.covariance=0"],
    "no-slowness": ["method.slowness=0"],
    "sigreg": SIGREG,
    "sigreg-alone": [*SIGREG, "method.slowness=0", "method.inverse=0"],
}
Job = tuple[str, str, int, int, int, Path]  # wall, variant, seed, steps, episodes, folder of the runs


def work(job: Job) -> dict[str, Any]:
    """One run, trained unless it is there, and what it is worth."""
    wall, variant, seed, steps, episodes, folder = job
    out = folder / f"{wall}-{variant}-{steps}-{seed}"
    begin = time.process_time()
    if not (out / "health.json").exists():
        changes = [*VARIANTS[variant], f"budget.steps={steps}"]
        openjepa.train(f"two-rooms-{wall}-pldm", out=out, seed=seed, threads=1, overrides=changes)
    trained = time.process_time() - begin
    run = openjepa.Run(out)
    known = {v["name"]: v["r2"] for v in run.probe()["variables"]}
    begin = time.process_time()
    plan = run.plan(protocol=f"two-rooms-{wall}", episodes=episodes, controls=[], films=0)
    row = plan["rows"]["model"]
    verdict = json.loads((out / "health.json").read_text())
    return {
        "wall": wall, "variant": variant, "seed": seed, "steps": steps, "processor_seconds": round(trained, 1),
        "planning_processor_seconds": round(time.process_time() - begin, 1), "verdict": verdict["name"],
        "r2": known, "plan": row,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wall", choices=["fixed", "random"], default="fixed")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[6000])
    parser.add_argument("--episodes", type=int, default=60, help="pairs of start and goal")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/two-rooms"))
    parser.add_argument("--name", default="two-rooms-parts", help="of the results file")
    args = parser.parse_args(arguments)
    jobs = [
        (args.wall, variant, seed, steps, args.episodes, args.out)
        for variant in args.variants for seed in args.seeds for steps in args.steps
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for row in each(work, jobs, args.processes):
        rows.append(row)
        record.save(args.name, {"preset": f"two-rooms-{args.wall}-pldm", "runs": rows})  # kept as it comes
        print(json.dumps(row), flush=True)
    return {"runs": rows}


if __name__ == "__main__":
    main()

"""The case for video in one table: what V-JEPA knows of two moving digits that an image encoder cannot.

    python -m benchmarks.moving_mnist_video --data MNIST train --minutes 36     # core-minutes, for each of the two runs
    python -m benchmarks.moving_mnist_video --data MNIST table                  # about fifteen core-minutes

Clips of 20 frames, 64 x 64, two digits (`openjepa.data.clips`, the paper's conventions). V-JEPA is the preset
moving-mnist-vjepa-cpu; I-JEPA has the same network but for time (vit_micro/8, rotary positions, the same additions) and
learns from single frames of the same clips by the recipe of cifar10-ijepa-cpu, for as many core-minutes. Both are
frozen and read by the same linear maps; beside them the raw pixels and V-JEPA's encoder untrained. I-JEPA sees a clip
frame by frame.

  pair       which two digits of 55 pairs, logistic regression on the mean token
  presence   mean over digits of the average precision of "a k is there", ridge regression on the mean token
  x, y, vx, vy               R2, mean of both digits; "of the first": of the digit of lower value (clips of two equal
                             ones left out). Pixels know the mean place by their brightness; the first one's place
                             needs to know what is where, and velocity needs more than one frame
  per step / whole clip      read from the mean token of a time step, one map for all steps; or from those of all steps
                             behind one another, a map for every frame. From one frame velocity cannot be known: per
                             step an image encoder is at 0 by construction, over the whole clip it is not
  per step, in place         from a step's tokens averaged over 4 x 4 places: rotary positions are relative, so the mean
                             token need not know where anything is, while the tokens lie where they belong
  order      frames in order, or shuffled

5,000 clips of training digits to learn from, 2,000 of test digits to be measured on, intervals over these.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import save
from openjepa.app.clip_measuring import Seen, both_sides, scores
from openjepa.app.clip_subjects import ClipSubject, of_run, subject
from openjepa.app.requests import CompareRequest
from openjepa.app.runs import Run
from openjepa.app.settings import resolve
from openjepa.core.types import Clock
from openjepa.data.clips import open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.methods import METHODS
from openjepa.probe.intervals import t_interval
from openjepa.probe.localise import average_precision
from openjepa.probe.ridge import ridge
from openjepa.probe.trajectory import MOST
from openjepa.train import execute
from openjepa.train.opening import open_data
from openjepa.train.run import RunConfig

FRAMES = 20_000  # single frames that I-JEPA learns from
KINDS = ("linear", "motion", "order")
SUBJECTS = {"vjepa": "V-JEPA", "ijepa": "I-JEPA, frame by frame", "pixels": "pixels", "init": "init"}


def videos(args: argparse.Namespace) -> RunConfig:
    """V-JEPA's run, its steps still to be set."""
    return resolve("moving-mnist-vjepa-cpu", keywords={"data": {"path": f"moving-mnist:{args.data}"}},
                   overrides=common(args, "vjepa"))  # fmt: skip


def pictures(args: argparse.Namespace) -> RunConfig:
    """I-JEPA's run on single frames of the same training clips."""
    file = Path(args.out) / f"frames-{args.frames}.npy"
    if not file.exists():
        source = open_clips(ClipConfig(path=f"moving-mnist:{args.data}", split="train", channels=1, frames=20))
        assert source.together is not None
        rows = np.arange(args.frames)
        frames = [source.together.take(some, some[:, None] % 20)[:, 0, 0] for some in np.array_split(rows, 100)]
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.concatenate(frames))
    keywords: dict[str, Any] = {
        "method": {
            "name": "ijepa", "encoder": {"name": "vit_micro/8", "pos": "rope"}, "predictor_width": 64,
            "predictor_depth": 2, "share_context": True, "ema": (0.996, 1.0), "sigreg": 0.05, "agree": 0.95,
            "projector_out": 64, "crop": {"count": 2, "scale": (0.3, 1.0), "filter": "bilinear"},
        },
        "data": {"path": str(file), "size": 64, "channels": 1, "normalise": "data"},
        "batch_size": 64, "optim": {"lr": 1.5e-3, "weight_decay": 0.05},
    }  # fmt: skip
    return resolve("ijepa", keywords=keywords, overrides=common(args, "ijepa"))


def common(args: argparse.Namespace, name: str) -> list[str]:
    words = ["budget.steps=100", "probe.online=false", "threads=1", f"seed={args.seed}", "data.workers=0"]
    return [*words, f"out={Path(args.out) / f'{name}-{args.seed}'}", "log.tensorboard=false"]


def trained(run: RunConfig, minutes: float) -> dict:
    """Train for so much processor time, or go on with what is there. What a step takes is measured first."""
    assert run.out is not None
    done = Path(run.out) / "config.yaml"
    if done.exists():
        run = Run(run.out).config
    else:
        seconds = seconds_per_step(run)
        steps = max(2, round(60 * minutes / seconds))
        run = run.override([f"budget.steps={steps}", f"log.look={max(1, steps // 4)}"])
        print(f"{run.out}: {seconds:.2f} s a step, {steps} steps", flush=True)
    begin = time.process_time()
    execute(run, resume=done.exists())
    return {"steps": run.budget.steps, "core_minutes": round((time.process_time() - begin) / 60, 2)}


def seconds_per_step(run: RunConfig) -> float:
    """Processor seconds of a step, its batch included."""
    opened = open_data(run, torch.device("cpu"))
    method: Any = METHODS[run.method.name](run.method, **opened.keywords)  # type: ignore[attr-defined]
    times, stream = [], iter(opened.stream.batches())
    for step in range(5):
        begin = time.process_time()
        terms, _ = method(next(stream), Clock(step, 5, run.seed))
        torch.stack(list(terms.values())).sum().backward()
        method.zero_grad(set_to_none=True)
        times.append(time.process_time() - begin)
    opened.stream.close()
    return statistics.median(times) * 1.1  # the optimiser and the teacher


def presence(sides: tuple[Seen, Seen], digits: list[np.ndarray]) -> dict:
    """Mean over the ten digits of the average precision of "a k is in this clip"; the interval is over digits."""
    features = [x.steps() for x in sides]
    shown = [d[f.index.numpy()] for f, d in zip(features, digits, strict=True)]  # (N, 2)
    held = [np.stack([(d == k).any(1) for k in range(10)], 1) for d in shown]
    a, b = (torch.from_numpy(h).float() for h in held)
    z = [f.z.flatten(1) if sides[0].subject.plain else f.z.mean(1) for f in features]
    if min(z[0].shape) > MOST:  # what the ridge takes; evenly drawn, as for `trajectory`
        kept = torch.linspace(0, len(a) - 1, MOST).round().long()
        z[0], a = z[0][kept], a[kept]
    scored = average_precision(ridge(z[0], a)(z[1]).T, b.T).tolist()
    low, high = t_interval(scored)
    return {"value": statistics.fmean(scored), "low": low, "high": high, "n": len(b), "each": scored}


def row(one: ClipSubject, on: Any, asked: CompareRequest) -> dict:
    """All numbers of one subject."""
    device = torch.device("cpu")
    found = {r.pop("name"): r for r in scores(one, on, asked, device)}
    sides = tuple(Seen(one, x, asked, device) for x in on.batches(one.preprocess, asked.batch_size, device))
    digits = [x.batches.source.reel.digits(np.arange(len(x.batches.source))) for x in sides]
    return {**found, "presence (mAP)": presence(sides, digits)}  # type: ignore[arg-type]


def table(args: argparse.Namespace) -> dict:
    """Every subject on the same clips, kept as it comes."""
    first, second = (Run(Path(args.out) / f"{name}-{args.seed}") for name in ("vjepa", "ijepa"))
    counts = f":{args.clips}" if args.clips else ""
    given = {"path": f"moving-mnist:{args.data}{counts}"}
    asked = CompareRequest.model_validate({"data": given, "kinds": args.kinds, "batch_size": 16, "device": "cpu"})
    main = of_run(first, "auto", torch.device("cpu"))
    on, found = both_sides(first, asked, main), {}
    for name in args.subjects:
        item = {"vjepa": first, "ijepa": second}.get(name, name)
        one = subject(item, first, "auto", torch.device("cpu"))
        name = SUBJECTS[name]
        begin = time.process_time()
        found[name] = row(one, on, asked) | {"core_minutes": round((time.process_time() - begin) / 60, 2)}
        print(name, {k: round(v.get("accuracy", v.get("r2", v.get("value", 0.0))), 3)
                     for k, v in found[name].items() if isinstance(v, dict)}, flush=True)  # fmt: skip
        about = {
            k: str(v).replace(str(args.data), "MNIST") if k in ("data", "test") else v for k, v in on.about().items()
        }
        save(f"moving_mnist_video-{args.part}", {"settings": plain(args), **about, "table": found})
    return found


def plain(args: argparse.Namespace) -> dict:
    return {k: v for k, v in vars(args).items() if k not in ("data", "out")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["train", "table"], help="train, vjepa, ijepa, table")
    parser.add_argument("--data", required=True, help="folder with the MNIST files")
    parser.add_argument("--minutes", type=float, default=36.0, help="core-minutes of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--clips", type=int, default=None, help="drawn clips of each side; by default 5,000 and 2,000")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="rows of the table")
    parser.add_argument("--out", default="runs/moving-mnist-video")
    parser.add_argument("--part", default="all", help="name of this part in the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in (("vjepa", videos), ("ijepa", pictures)):
        if {name, "train"} & set(args.parts):
            print(name, trained(make(args), args.minutes), flush=True)
    if "table" in args.parts:
        table(args)


if __name__ == "__main__":
    main()

"""CIFAR-10 on a laptop: what LeJEPA and I-JEPA learn in so many minutes, against pixels, chance weights and labels.

    python -m benchmarks.cifar10 --data DIR lejepa ijepa --seeds 0 1 --steps 2000

For each method and seed: the CPU preset is trained for `--steps` steps (or its own budget), then measured by linear
probe and kNN on the 10,000 test pictures. Beside it: raw pixels, the untrained encoder, and the same encoder trained
with labels by the same loop for as many core-minutes (cross-entropy on the pooled tokens, crops and flips).
Time is processor time of one thread, which does not depend on what else the machine does; divide by the threads of a
quiet machine for minutes. DIR holds train.parquet and test.parquet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import save
from openjepa.app.settings import resolve
from openjepa.config import View
from openjepa.core.types import Clock, Moment, Pictures, Seen, Terms
from openjepa.data import evaluation, open_source
from openjepa.methods import METHODS, Method
from openjepa.nn import Encoder, LinearHead
from openjepa.probe import PROBES, features, pixels, untrained
from openjepa.train import execute
from openjepa.train.run import RunConfig

PRESETS = {"lejepa": "cifar10-lejepa-cpu", "ijepa": "cifar10-ijepa-cpu"}


class Supervised(Method):
    """The bound from above: the same encoder and crops, with labels."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.cfg = method.cfg.model_copy()
        self.encoder: Encoder = method.encoder  # type: ignore[assignment]
        self.head = LinearHead(self.encoder.dim, 10)
        self.weights = {"cross_entropy": 1.0}

    def losses(self, batch: Pictures, clock: Clock) -> tuple[Terms, Seen]:
        z = self.encode(batch.views[0][0]).mean(1)  # (B, D)
        loss = F.cross_entropy(self.head(z), batch.label)
        return {"cross_entropy": loss}, {"z": z.detach(), "prediction": z.detach(), "target": z.detach()}

    def encode(self, obs: Tensor) -> Tensor:
        return self.encoder(obs)[:, self.encoder.prefix :]


class Curve:
    """Accuracy by nearest neighbours against core-minutes: an observer on 5,000 training and 2,000 test pictures."""

    def __init__(self, data: str, size: int) -> None:
        self.sets = [load(data, split, size, limit) for split, limit in (("train", 5000), ("test", 2000))]
        self.begin, self.away, self.rows = time.process_time(), 0.0, []  # type: ignore[var-annotated]

    def __call__(self, moment: Moment) -> dict[str, float]:
        now = time.process_time()
        encoder = moment.method.teacher if isinstance(getattr(moment.method, "teacher", None), nn.Module) else None
        train, test = (features(encoder or moment.method.encoder, s) for s in self.sets)  # type: ignore[arg-type]
        knn, linear = PROBES["knn"](train, test).accuracy, PROBES["linear"](train, test).accuracy
        minutes = (now - self.begin - self.away) / 60
        self.rows.append({"step": moment.step, "core_minutes": round(minutes, 2), "knn": knn, "linear": linear})
        print(f"    step {moment.step}: {minutes:.1f} core-minutes, kNN {knn:.3f}, linear {linear:.3f}", flush=True)
        self.away += time.process_time() - now
        return {"curve/knn": knn, "curve/linear": linear}


def load(data: str, split: str, size: int, limit: int | None = None) -> list[tuple[Tensor, Tensor, Tensor]]:
    source = open_source(settings(data, split, size, limit).data)
    return list(evaluation(source, size=size, batch_size=500))


def settings(data: str, split: str, size: int, limit: int | None) -> RunConfig:
    return resolve(
        "cifar10-lejepa-cpu", keywords={"data": {"path": data, "split": split, "size": size, "limit": limit}}
    )


def measure(encoder: object, data: str, size: int) -> dict:
    """Linear and kNN on all 50,000 and 10,000 pictures, with their intervals."""
    train, test = (features(encoder, load(data, split, size)) for split in ("train", "test"))  # type: ignore[arg-type]
    found = {name: PROBES[name](train, test) for name in ("linear", "knn")}
    return {name: {"accuracy": r.accuracy, "interval": list(r.interval)} for name, r in found.items()}


def trained(name: str, seed: int, args: argparse.Namespace, *, labels: bool, minutes: float | None = None) -> dict:
    """One run: its test accuracy, its curve, its cost."""
    out = Path(args.out) / f"{name}{'-supervised' if labels else ''}-{seed}"
    budget = [f"budget.steps={args.steps}", "budget.minutes=null"] if args.steps else []
    words = [f"log.look={max(1, (args.steps or 2000) // 6)}", "probe.online=false", "threads=1", f"seed={seed}"]
    run = resolve(PRESETS[name], keywords={"data": {"path": args.data, "split": "train"}, "out": str(out)},
                  overrides=budget + words)  # fmt: skip
    source = open_source(run.data, seed=seed)
    torch.manual_seed(seed)
    method = METHODS[name](run.method, size=source.size, channels=3)  # type: ignore[call-arg]
    if labels:
        view = View(count=1, scale=(0.3, 1.0), flip=0.5, filter="bilinear")
        method = Supervised(method)
        method.cfg = Views(view)
        rate = seconds_per_step(method, source.size, run.batch_size)
        steps = max(50, int((minutes or 1.0) * 60 / rate))
        run = run.override([f"budget.steps={steps}", "budget.minutes=null", f"log.look={max(1, steps // 6)}"])
    curve = Curve(args.data, source.size)
    execute(run, method=method, observers=[curve])
    teacher = getattr(method, "teacher", None)
    used = (curve.rows[-1]["core_minutes"]) if curve.rows else 0.0
    return {"seed": seed, "steps": run.budget.steps, "core_minutes": used, "curve": curve.rows,
            **measure(teacher or method.encoder, args.data, source.size)}  # fmt: skip


class Views:
    """What a stream asks of a method's settings."""

    def __init__(self, view: View) -> None:
        self.views = (view,)

    def model_dump(self, mode: str = "python") -> dict:
        return {"name": "supervised", "views": [v.model_dump() for v in self.views]}


def plain(run: RunConfig) -> dict:
    """The settings without where this machine keeps its data."""
    settings = json.loads(run.model_dump_json())
    settings["data"]["path"] = Path(run.data.path).name
    return settings


def seconds_per_step(method: Method, size: int, batch: int) -> float:
    """Processor seconds of a supervised step, crops not counted."""
    x = Pictures((torch.randn(1, batch, 3, size, size),), torch.arange(batch), torch.zeros(batch, dtype=torch.long))
    times = []
    for _ in range(6):
        begin = time.process_time()
        method(x, Clock())[0]["cross_entropy"].backward()
        method.zero_grad(set_to_none=True)
        times.append(time.process_time() - begin)
    return statistics.median(times) * 1.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=None, help="by default the budget of the preset")
    parser.add_argument("--only", nargs="+", default=["trained", "references", "supervised"])
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="core-minutes with labels, where nothing is trained"
    )
    parser.add_argument("--out", default="runs/cifar10")
    parser.add_argument("--part", default="all", help="name of this part in the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict = {"steps": args.steps, "seeds": args.seeds}
    for name in args.methods:
        run = resolve(PRESETS[name], keywords={"data": args.data})
        size = open_source(run.data).size
        found = results[name] = {"settings": plain(run)}
        minutes = args.minutes
        if "trained" in args.only:
            found["runs"] = []
            for seed in args.seeds:
                found["runs"].append(trained(name, seed, args, labels=False))
                save(f"cifar10-{args.part}", results)  # kept as it comes: the whole takes an hour
            minutes = statistics.mean(row["core_minutes"] for row in found["runs"])
        if "references" in args.only:
            encoder = run.method.encoder  # type: ignore[attr-defined]
            found["untrained"] = measure(untrained(encoder, size=size, seed=0), args.data, size)
            found["pixels"] = measure(pixels(), args.data, size)
        if "supervised" in args.only:
            found["supervised"] = []
            for seed in args.seeds:
                found["supervised"].append(trained(name, seed, args, labels=True, minutes=minutes))
                save(f"cifar10-{args.part}", results)
        print("saved", save(f"cifar10-{args.part}", results))


if __name__ == "__main__":
    main()

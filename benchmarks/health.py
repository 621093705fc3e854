"""Are the health verdicts right? Short runs with a known fault each, their verdicts, and how early the alarm comes.

    python -m benchmarks.health few           # four runs, to see that it works
    python -m benchmarks.health tune          # seeds 0-1: the runs on which the limits were chosen
    python -m benchmarks.health report        # seeds 2-5: the runs that are published; writes results/health_*.json

A run is a method on a source with one fault, made from outside the library: a subclass, a config value, or a change to
the pictures. Each is a few hundred steps of a tiny network on one thread. What the fault did is checked without the
health numbers: nearest-neighbour accuracy of the features before and after, and their variance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.jobs import each
from benchmarks.record import save
from openjepa.config import View
from openjepa.core.compare import whiten_tokens
from openjepa.core.types import Clock, Moment, Pictures, Terms
from openjepa.data.augment import COLOUR_DRAWS, augment, normalise
from openjepa.data.crop import BOX_DRAWS, crop_batch, sample_boxes
from openjepa.methods import IJEPA, IJEPAConfig, LeJEPA, LeJEPAConfig, Method, total
from openjepa.probe.health import Monitor, knn_accuracy
from openjepa.probe.intervals import wilson
from openjepa.probe.verdict import alarm_step, first_alarm, verdict
from openjepa.train.optim import make_optimizer, set_rates
from openjepa.train.run import OptimConfig

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
EMA = (0.99, 1.0)
REFERENCE = 512  # pictures the monitor looks at
DATA = Path(os.environ.get("OPENJEPA_DATA", Path(__file__).resolve().parents[2] / "shared/data"))


@dataclass(frozen=True)
class Job:
    """One run: what is trained, on what, with which fault, and what the verdict should be."""

    method: str
    data: str
    fault: str
    seed: int
    steps: int = 300
    batch: int = 64
    look: int = 15

    @property
    def name(self) -> str:
        return f"{self.method}-{self.data}-{self.fault}-{self.seed}".replace(" ", "_")


# ------------------------------------------------------------------------------------------------ methods and faults
class TrainedTeacher(IJEPA):
    """I-JEPA without stop-gradient: the target is the encoder's own output, and gradients run through it."""

    def targets(self, images: Tensor) -> Tensor:
        return whiten_tokens(self.encoder(images)[:, self.encoder.prefix :])


class VarianceOnly(LeJEPA):
    """LeJEPA whose features must vary, but may all vary together: a variance hinge in place of SIGReg."""

    def losses(self, batch: Pictures, clock: Clock) -> tuple[Terms, dict]:
        h = torch.cat([self.pooled(views) for views in batch.views])
        z = self.projector(h.flatten(0, 1)).unflatten(0, h.shape[:2])
        centre = z[:2].mean(0, keepdim=True)
        hinge = F.relu(1 - (z.var(1) + 1e-4).sqrt()).mean()
        terms = {"predict": (centre - z).square().mean(), "sigreg": 50 * hinge}
        return terms, {"z": z.detach(), "prediction": centre.detach(), "target": z.detach()}


def make_method(job: Job, size: int) -> Method:
    torch.manual_seed(job.seed)
    if job.method == "ijepa":
        momentum = (0.0, 0.0) if job.fault in ("EMA 0", "no stop-gradient") else EMA
        tiny = {"name": f"vit_micro/{size // 8 if size > 16 else 2}", "depth": 3, "width": 64, "heads": 2}
        cfg = IJEPAConfig(
            encoder=tiny,
            predictor_width=64,
            predictor_depth=2,
            share_context=True,
            ema=momentum,
            crop=View(scale=(0.5, 1.0)),
        )
        method = (TrainedTeacher if job.fault == "no stop-gradient" else IJEPA)(cfg, size=size)
        return with_loud_patches(method)
    lam = 0.0 if job.fault == "lambda 0" else 0.05
    colour = {"jitter": (0.4, 0.4, 0.2, 0.1), "grey": 0.2} if job.data != "digits" else {}
    views = View(count=2, scale=(0.3, 1.0), **colour)
    cfg = LeJEPAConfig(
        encoder={"name": "convnet_tiny", "width": 16}, lam=lam, slices=128, projector_hidden=128, projector_out=32,
        global_views=views, local_views=None,
    )  # fmt: skip
    return (VarianceOnly if job.fault == "variance only" else LeJEPA)(cfg, size=size)


@torch.no_grad()
def with_loud_patches(method: IJEPA) -> IJEPA:
    """Scale the patch embedding so that a patch weighs as much as its position: without this, patches of a few pixels
    are drowned by the positions at the start, and every I-JEPA run at this size collapses, controls included.
    """
    for encoder in (method.encoder, method.teacher):
        weight = encoder.patch_embed.proj.weight
        weight.mul_(0.5 / (weight.std() * weight[0].numel() ** 0.5))
    return method


def learning_rate(job: Job) -> float:
    usual = {"ijepa": 1e-3, "lejepa": 2e-3}[job.method]
    return usual * 300 if job.fault == "huge rate" else usual


# --------------------------------------------------------------------------------------------------------- pictures
def pictures(job: Job) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, S, S) and labels, with what the fault does to the pictures themselves."""
    x, y = SOURCES[job.data](job.seed)
    if job.fault == "constant images":  # a dead camera
        x = torch.full_like(x, 128)
    if job.fault == "noise images":  # a camera with its cap on: grey, and a little noise
        g = torch.Generator().manual_seed(job.seed)
        x = (128 + 4 * torch.randn(x.shape, generator=g)).clamp(0, 255).to(torch.uint8)
    return x, y


def framed(x: Tensor, index: Tensor, seed: int) -> Tensor:
    """Normalised views (..., B, C, S, S) inside a frame of one random colour per picture, an eighth of the side wide.

    Put on after cropping and colour, like a border or a stamp that the recording adds: every view of a picture carries
    the same one, it tells which picture it is, and nothing about what is in it.
    """
    g = torch.Generator().manual_seed(seed)
    colour = 4 * torch.rand(100_000, x.shape[-3], generator=g) - 2
    side = x.shape[-1]
    w = max(1, side // 8)
    out = colour[index][..., None, None].expand_as(x).clone()
    out[..., w : side - w, w : side - w] = x[..., w : side - w, w : side - w]
    return out


def digits(seed: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = torch.tensor(raw.images * 255 / 16).to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    return x, torch.tensor(raw.target)


def cifar10(seed: int) -> tuple[Tensor, Tensor]:
    import io

    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(DATA / "cifar10/test.parquet").slice(0, 3000).to_pylist()
    x = np.stack([np.asarray(Image.open(io.BytesIO(r["image"]["bytes"])).convert("RGB")) for r in table])
    return half(torch.from_numpy(x).permute(0, 3, 1, 2)), torch.tensor([r["label"] for r in table])


def half(x: Tensor) -> Tensor:
    """32 x 32 pictures at 16 x 16: a quarter of the cost, and a run stays below 20 seconds."""
    return F.avg_pool2d(x.float(), 2).round().to(torch.uint8)


def shapes(seed: int) -> tuple[Tensor, Tensor]:
    from openjepa.data import open_source
    from openjepa.data.config import DataConfig

    source = open_source(DataConfig(path="shapes:2000", size=32), seed=seed)
    x = torch.stack([source.read(i) for i in range(len(source))])
    return half(x), torch.as_tensor(source.labels)


SOURCES: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {"digits": digits, "shapes": shapes, "cifar10": cifar10}


def views(x: Tensor, spec: View, g: torch.Generator) -> Tensor:
    """(count, B, C, H, W) normalised random views."""
    out = []
    for _ in range(spec.count):
        boxes = sample_boxes(torch.rand(len(x), BOX_DRAWS, generator=g), *x.shape[-2:], spec.scale, spec.ratio)
        crops = crop_batch(x, boxes, spec.size or x.shape[-1])
        out.append(augment(crops, spec, torch.rand(len(x), COLOUR_DRAWS, generator=g), MEAN, STD))
    return torch.stack(out)


# ------------------------------------------------------------------------------------------------------------ a run
def run(job: Job) -> dict:
    """Train, look, judge; everything that is reported about one run."""
    torch.set_num_threads(1)
    x, y = pictures(job)
    method = make_method(job, x.shape[-1])
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:REFERENCE]
    reference = normalise(x[some], MEAN, STD)
    if job.fault == "shortcut borders":
        reference = framed(reference, some, job.seed)
    monitor, started = Monitor(reference), time.perf_counter()
    rows = list(steps(job, method, x, monitor))
    after = outcome(method, reference, y[some])
    before = outcome(make_method(job, x.shape[-1]), reference, y[some])
    judged = verdict(rows)
    return {
        **asdict(job), "name": job.name, "verdict": judged.name, "evidence": judged.evidence,
        "alarm": alarm_step(rows), "first_alarm": first_alarm(rows), "loss_step": loss_step(rows),
        "before": before, "after": after, "seconds": round(time.perf_counter() - started, 1), "history": rows,
    }  # fmt: skip


def steps(job: Job, method: Method, x: Tensor, monitor: Monitor) -> Iterator[dict]:
    optim = OptimConfig(lr=learning_rate(job), warmup=0.1, weight_decay=0.05)
    optimizer = make_optimizer(method, optim)
    g = torch.Generator().manual_seed(1000 + job.seed)
    for step in range(job.steps + 1):
        clock = Clock(step, job.steps, job.seed)
        index = torch.randint(len(x), (job.batch,), generator=g)
        shown = tuple(views(x[index], v, g) for v in method.cfg.views)
        if job.fault == "shortcut borders":
            shown = tuple(framed(v, index, job.seed) for v in shown)
        batch = Pictures(shown, index, torch.full_like(index, -1))
        method.train()
        terms, seen = method(batch, clock)
        loss = total(terms, method.weights)
        row = {"step": step, "progress": clock.progress, "loss": loss.item()}
        row |= {f"terms/{k}": v.item() for k, v in terms.items()}
        if step % job.look == 0:
            row |= monitor(Moment(step, job.steps, method, {k: v.item() for k, v in terms.items()}, seen))
        row["lr"], _ = set_rates(optimizer, optim, step, job.steps)
        optimizer.zero_grad()
        loss.backward()
        row["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(method.parameters(), math.inf))
        yield row
        if not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"]):
            return
        optimizer.step()
        method.after_step(clock)


@torch.no_grad()
def outcome(method: Method, reference: Tensor, labels: Tensor) -> dict[str, float]:
    """What the fault did, by other means than the verdict: nearest-neighbour accuracy and variance of the features."""
    method.eval()
    z = method.encode(reference).mean(1)
    relative = (z.var(0).sum() / z.square().sum(1).mean().clamp_min(1e-30)).item()
    return {"knn": knn_accuracy(z, labels) if z.isfinite().all() else 0.0, "relative_variance": relative}


# ------------------------------------------------------------------------------------------------------- the numbers
EXPECTED = {  # fault -> verdicts that name it
    "healthy": {"healthy"},
    "no stop-gradient": {"collapsed", "collapsing"},
    "EMA 0": {"collapsed", "collapsing"},
    "lambda 0": {"collapsed", "collapsing"},
    "variance only": {"dimensionally collapsed"},
    "huge rate": {"diverging"},
    "constant images": {"collapsed"},
    "noise images": {"learning shortcuts"},
    "shortcut borders": {"learning shortcuts"},
}
FAULTS = {
    "ijepa": ("no stop-gradient", "EMA 0", "huge rate", "constant images", "noise images", "shortcut borders"),
    "lejepa": ("lambda 0", "variance only", "huge rate", "constant images", "noise images", "shortcut borders"),
}


def jobs(seeds: Sequence[int], controls: Sequence[str]) -> list[Job]:
    """Every fault on digits, and a healthy control on each of `controls`."""
    out = []
    for seed in seeds:
        for method, faults in FAULTS.items():
            out += [Job(method, data, "healthy", seed) for data in controls if data != "cifar10" or DATA.is_dir()]
            out += [Job(method, "digits", fault, seed) for fault in faults]
    return out


def loss_step(rows: list[dict]) -> int | None:
    """When somebody who sees the loss alone would notice: it is not finite, or its median over 15 steps has stayed 20 %
    above its lowest for 30 steps.
    """
    losses = [row["loss"] for row in rows]
    lowest, above = math.inf, 0
    for i, row in enumerate(rows):
        if not math.isfinite(losses[i]):
            return row["step"]
        smooth = sorted(losses[max(0, i - 14) : i + 1])[min(i, 14) // 2]
        lowest = min(lowest, smooth) if i >= 14 else math.inf
        above = above + 1 if smooth > 1.2 * lowest else 0
        if above >= 30:
            return row["step"]
    return None


def hurt(result: dict) -> bool:
    """By other means than the verdict: features worth less than at the random start, or that no longer vary."""
    before, after = result["before"], result["after"]
    return after["knn"] < before["knn"] - 0.02 or after["relative_variance"] < 0.1 * before["relative_variance"]


def summary(results: list[dict]) -> dict:
    """Confusion matrix, error rates with Wilson intervals, and how early the alarm comes."""
    matrix: dict[str, dict[str, int]] = {}
    for r in results:
        row = matrix.setdefault(f"{r['method']}: {r['fault']}", {})
        row[r["verdict"]] = row.get(r["verdict"], 0) + 1
    sick = [r for r in results if r["fault"] != "healthy"]
    well = [r for r in results if r["fault"] == "healthy"]
    alarmed = [r for r in sick if r["verdict"] not in ("healthy", "too early to say")]
    return {
        "runs": len(results),
        "confusion": matrix,
        "faults_noticed": share(len(alarmed), len(sick)),
        "faults_named": share(sum(r["verdict"] in EXPECTED[r["fault"]] for r in sick), len(sick)),
        "controls_called_healthy": share(sum(r["verdict"] == "healthy" for r in well), len(well)),
        "controls_with_a_passing_alarm": share(sum(r["first_alarm"] is not None for r in well), len(well)),
        "controls_where_the_loss_alone_alarms": share(sum(r["loss_step"] is not None for r in well), len(well)),
        "faults_that_the_loss_ever_shows": share(sum(r["loss_step"] is not None for r in sick), len(sick)),
        "faults_that_hurt_by_knn_or_variance": share(sum(map(hurt, sick)), len(sick)),
        "controls_that_were_hurt": share(sum(map(hurt, well)), len(well)),
        "lead": {fault: lead([r for r in alarmed if r["fault"] == fault]) for fault in EXPECTED if fault != "healthy"},
        "seconds_per_run": round(sum(r["seconds"] for r in results) / max(1, len(results)), 1),
    }


def share(count: int, n: int) -> dict:
    low, high = wilson(count, n) if n else (0.0, 1.0)
    return {"count": count, "of": n, "share": count / n if n else None, "low": low, "high": high}


def lead(results: list[dict]) -> dict:
    """Steps from the alarm to the loss showing it; runs where the loss never does are counted apart."""
    seen = [r["loss_step"] - r["alarm"] for r in results if r["loss_step"] is not None and r["alarm"] is not None]
    alarms = sorted(r["alarm"] for r in results if r["alarm"] is not None)
    return {
        "alarm_step_median": alarms[len(alarms) // 2] if alarms else None,
        "loss_never_shows_it": sum(r["loss_step"] is None for r in results),
        "steps_before_the_loss": sorted(seen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tune", "report", "few"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--controls", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="healthy runs on")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default 0 1 to tune, 2 3 4 5 to report")
    parser.add_argument("--keep", type=Path, help="folder for the histories, to try other limits on without training")
    given = parser.parse_args()
    chosen = given.seeds or {"tune": [0, 1], "report": [2, 3, 4, 5], "few": [0]}[given.what]
    todo = (
        jobs(chosen, given.controls)
        if given.what != "few"
        else [Job(m, "digits", f, 0) for m in FAULTS for f in ("healthy", FAULTS[m][0])]
    )
    results = []
    for r in each(run, todo, given.processes):
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{r['name']}.json").write_text(json.dumps(r))
        results.append({k: v for k, v in r.items() if k != "history"})
        print(
            f"{r['name']:42s} {r['verdict']:24s} alarm {r['alarm']}  loss {r['loss_step']}  {r['seconds']} s",
            flush=True,
        )
        if given.what == "report":  # kept as they come: the whole takes half an hour
            path = save("health", {"summary": summary(results), "seeds": chosen, "runs": results})
    print(json.dumps(summary(results), indent=1))
    if given.what == "report":
        print(path)


if __name__ == "__main__":
    main()

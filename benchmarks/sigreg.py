"""SIGReg against the formula as it is usually written: time, peak memory and agreement, forward and backward.

    python -m benchmarks.sigreg                 # minutes on two cores; writes benchmarks/results/sigreg_cpu_<date>.json
    python -m benchmarks.sigreg --device cuda
    python -m benchmarks.sigreg --compiled      # also the direct formula under torch.compile (one thread)
    python -m benchmarks.sigreg --quick         # one small size, writes nothing

All sides get the same samples and the same directions, run alternately in one process, and the median of the rounds
counts; on the CPU with one thread and with as many as torch takes. Memory is the growth of the process (CPU: peak
resident size, each side in a process of its own) or of the allocator (CUDA: `max_memory_allocated`) during one forward
and backward pass.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.record import save
from openjepa.core.spread import random_directions, sigreg

SIZES = [  # (V, N, D, K): views, samples, features, directions
    (1, 256, 64, 1024),
    (1, 2048, 128, 1024),
    (1, 2048, 512, 1024),
    (4, 512, 128, 1024),
    (1, 8192, 128, 256),
]
KNOTS, LIMIT = 17, 3.0


def direct(z: Tensor, unit: Tensor) -> Tensor:
    """Sliced Epps-Pulley, one tensor operation per symbol of the formula."""
    t = torch.linspace(0, LIMIT, KNOTS, device=z.device, dtype=z.dtype)
    phi = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * LIMIT / (KNOTS - 1))
    weights[[0, -1]] /= 2
    angle = (z @ unit.T).unsqueeze(-1) * t  # (V, N, K, T)
    error = (angle.cos().mean(-3) - phi).square() + angle.sin().mean(-3).square()
    return (error @ (weights * phi)).mean() * z.shape[-2]


def ours(z: Tensor, unit: Tensor) -> Tensor:
    return sigreg(z, directions=unit, knots=KNOTS, limit=LIMIT)


SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "direct": direct,
    "ours": ours,
    "compiled": torch.compile(direct, dynamic=False),  # compiled at its first call, if ever
}


def problem(size: tuple[int, int, int, int], device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    views, samples, dim, slices = size
    g = torch.Generator().manual_seed(0)
    z = torch.randn(views, samples, dim, generator=g).to(device, dtype).requires_grad_()
    return z, random_directions(slices, dim, g, device).to(dtype)


def step(side: str, z: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """One forward and backward pass: the value and the gradient."""
    value = SIDES[side](z, unit)
    return value.detach(), torch.autograd.grad(value, z)[0]


def seconds(side: str, z: Tensor, unit: Tensor) -> tuple[float, float]:
    """Wall-clock time of one pass, and processor time summed over threads, which a busy machine disturbs less."""
    if z.is_cuda:
        torch.cuda.synchronize()
    start, busy = time.perf_counter(), time.process_time()
    step(side, z, unit)
    if z.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - busy


def peak_mib(side: str, size: tuple[int, int, int, int], device: str) -> float:
    """Peak memory that one pass adds, in MiB."""
    if device == "cpu":
        words = [sys.executable, "-m", "benchmarks.sigreg", "--peak", side, *map(str, size)]
        env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        return float(subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout)
    z, unit = problem(size, device)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(side, z, unit)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def print_own_peak(side: str, size: tuple[int, int, int, int]) -> None:
    """In a fresh process: load everything with a first pass, then print by how much the next one raises the peak."""
    import psutil

    step(side, *problem(size if side == "compiled" else (1, 16, size[2], 16), "cpu"))
    z, unit = problem(size, "cpu")
    unit_bytes = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
    # Memory that was used and freed before would hide ours below the old peak: fill it up.
    ballast = torch.ones(max(1, peak - psutil.Process().memory_info().rss), dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
    step(side, z, unit)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
    del ballast
    print((after - before) / 2**20)


def compare(size: tuple[int, int, int, int], device: str, sides: list[str], rounds: int) -> dict:
    z, unit = problem(size, device)
    exact_value, exact_grad = step("direct", *problem(size, device, torch.float64))
    row: dict = dict(zip(("views", "samples", "dim", "directions"), size, strict=True))
    row["threads"] = torch.get_num_threads()
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for side in sides:
        value, grad = step(side, z, unit)
        row[f"{side}_value_error"] = abs(value.item() / exact_value.item() - 1)
        row[f"{side}_gradient_error"] = ((grad - exact_grad).abs().max() / exact_grad.abs().max()).item()
    del exact_value, exact_grad
    for together in (
        ("direct", "ours"),
        ("compiled",),
    ):  # compiled code brings threads of its own, which disturb others
        for _ in range(rounds):
            for side in (s for s in together if s in sides):
                times[side].append(seconds(side, z, unit))
    for side in sides:
        wall, busy = zip(*times[side], strict=True)
        row[f"{side}_ms"] = round(statistics.median(wall) * 1e3, 3)
        row[f"{side}_best_ms"] = round(min(wall) * 1e3, 3)
        row[f"{side}_processor_ms"] = round(statistics.median(busy) * 1e3, 3)
        row[f"{side}_peak_mib"] = round(peak_mib(side, size, device), 1)
    for side in sides:
        if side != "ours":
            for kind in ("ms", "best_ms", "processor_ms"):
                row[f"{side}_{kind}_over_ours"] = round(row[f"{side}_{kind}"] / row[f"ours_{kind}"], 2)
    row["memory_of_direct"] = round(row["ours_peak_mib"] / row["direct_peak_mib"], 4)
    return row


def show(row: dict, sides: list[str]) -> None:
    print("V {views}  N {samples}  D {dim}  K {directions}  threads {threads}".format(**row), flush=True)
    for side in sides:
        print(
            f"  {side:9s}{row[f'{side}_ms']:9.1f} ms ({row[f'{side}_processor_ms']:.1f} ms of processor time)"
            f"{row[f'{side}_peak_mib']:9.1f} MiB   relative errors: value {row[f'{side}_value_error']:.0e}, "
            f"gradient {row[f'{side}_gradient_error']:.0e}"
        )
        if side != "ours":
            print(f"            {row[f'{side}_ms_over_ours']} times ours ({row[f'{side}_processor_ms_over_ours']})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small size; writes nothing")
    parser.add_argument("--compiled", action="store_true", help="also the direct formula under torch.compile")
    parser.add_argument("--peak", nargs=5, metavar=("SIDE", "V", "N", "D", "K"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        views, samples, dim, slices = map(int, given.peak[1:])
        print_own_peak(given.peak[0], (views, samples, dim, slices))
        return
    rows = []
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        # Compiled code brings a second set of threads, which would disturb the others: compared on one thread only.
        sides = ["direct", "ours", "compiled"] if given.compiled and threads == 1 else ["direct", "ours"]
        for size in SIZES[:1] if given.quick else SIZES:
            rows.append(compare(size, given.device, sides, given.rounds))
            show(rows[-1], sides)
    if not given.quick:
        results = {"knots": KNOTS, "limit": LIMIT, "rounds": given.rounds, "sizes": rows}
        print(save("sigreg", results, device=given.device))


if __name__ == "__main__":
    main()

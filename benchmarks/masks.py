"""How many I-JEPA masks per second: ours, ours as published, and a collator that goes picture by picture.

And picking the kept tokens: `take` against `gather` with an expanded index, forward and backward.

    python benchmarks/masks.py            # all grids and batches, about half a minute
    python benchmarks/masks.py --quick    # one grid, one batch

The three are timed in turn inside one run, best of several rounds, on one thread; the ratio is the result.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch

from benchmarks.record import save
from openjepa.core.masks import Masks, multiblock
from openjepa.core.tokens import take
from openjepa.core.types import Clock


class PictureByPicture:
    """The usual way: a Python loop over pictures and blocks, each block painted into a mask of its own.

    Written for this benchmark from the published rule: block sizes per batch, one random number for scale and aspect,
    positions per picture, context cells outside the targets with a retry, everything cut to the batch's shortest.
    """

    def __init__(self, grid: tuple[int, int], targets: int = 4, least: int = 10) -> None:
        self.grid, self.num, self.least = grid, targets, least

    def __call__(self, batch: int, step: int) -> Masks:
        g = torch.Generator().manual_seed(step)
        size = self.size(float(torch.rand(1, generator=g)), (0.15, 0.2), (0.75, 1.5))
        block = self.size(float(torch.rand(1, generator=g)), (0.85, 1.0), (1.0, 1.0))
        contexts, targets = [], []
        for _ in range(batch):
            drawn = [self.paint(size, g) for _ in range(self.num)]
            targets.append([mask.flatten().nonzero().flatten() for mask in drawn])
            contexts.append(self.context(block, drawn, g))
        shortest = min(len(c) for c in contexts)
        return Masks(torch.stack([c[:shortest] for c in contexts]), torch.stack([torch.stack(t) for t in targets]))

    def size(self, u: float, scale: tuple[float, float], aspect: tuple[float, float]) -> tuple[int, int]:
        height, width = self.grid
        area = int(height * width * (scale[0] + u * (scale[1] - scale[0])))
        shape = aspect[0] + u * (aspect[1] - aspect[0])
        return min(round(math.sqrt(area * shape)), height - 1), min(round(math.sqrt(area / shape)), width - 1)

    def paint(self, size: tuple[int, int], g: torch.Generator) -> torch.Tensor:
        mask = torch.zeros(self.grid, dtype=torch.int32)
        top = int(torch.randint(0, self.grid[0] - size[0], (1,), generator=g))
        left = int(torch.randint(0, self.grid[1] - size[1], (1,), generator=g))
        mask[top : top + size[0], left : left + size[1]] = 1
        return mask

    def context(self, block: tuple[int, int], hidden: list[torch.Tensor], g: torch.Generator) -> torch.Tensor:
        tries = 0
        while True:
            mask = self.paint(block, g)
            for target in hidden[: max(0, self.num - tries // 20)]:
                mask = mask * (1 - target)
            kept = mask.flatten().nonzero().flatten()
            if len(kept) > self.least:
                return kept
            tries += 1


def rounds(ways: dict[str, Callable[[int], Masks]], batch: int, number: int) -> dict[str, float]:
    """Masks per second of each way: the best of `number` rounds, taken in turn so that all see the same machine."""
    best = dict.fromkeys(ways, math.inf)
    for step in range(number):
        for name, draw in ways.items():
            start = time.perf_counter()
            draw(step)
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: batch / seconds for name, seconds in best.items()}


def measure(side: int, batch: int, number: int) -> dict[str, float]:
    grid = (side, side)
    loop = PictureByPicture(grid)
    multiblock(grid, 2, clock=Clock())  # the context size of a grid is found once per process
    rate = rounds(
        {
            "unbiased": lambda step: multiblock(grid, batch, clock=Clock(step=step)),
            "paper_exact": lambda step: multiblock(grid, batch, clock=Clock(step=step), paper_exact=True),
            "picture_by_picture": lambda step: loop(batch, step),
        },
        batch,
        number,
    )
    out = {f"{name}_per_s": round(value) for name, value in rate.items()}
    for name in ("unbiased", "paper_exact"):
        out[f"{name}_ratio"] = round(rate[name] / rate["picture_by_picture"], 1)
    return {"grid": side, "batch": batch, **out}


def picking(batch: int = 64, tokens: int = 196, dim: int = 384, keep: int = 68, number: int = 15) -> dict[str, float]:
    """Milliseconds of `take` and of gather, best of `number` rounds taken in turn."""
    x = torch.randn(batch, tokens, dim, requires_grad=True)
    index = torch.rand(batch, tokens).argsort(1)[:, :keep].sort(1).values
    weight = torch.randn(batch, keep, dim)
    ways = {"take": lambda: take(x, index), "gather": lambda: x.gather(1, index[..., None].expand(-1, -1, dim))}
    best: dict[str, float] = {}
    for _ in range(number):
        for name, pick in ways.items():
            start = time.perf_counter()
            y = pick()
            middle = time.perf_counter()
            torch.autograd.grad(y, x, weight)
            for part, seconds in (("forward", middle - start), ("backward", time.perf_counter() - middle)):
                key = f"{name}_{part}_ms"
                best[key] = min(best.get(key, math.inf), seconds * 1e3)
    for part in ("forward", "backward"):
        best[f"{part}_ratio"] = best[f"gather_{part}_ms"] / best[f"take_{part}_ms"]
    shape = {"batch": batch, "tokens": tokens, "dim": dim, "keep": keep}
    return shape | {key: round(value, 2) for key, value in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one grid and batch, nothing saved")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    cases = [(16, 128)] if quick else [(12, 128), (14, 128), (16, 8), (16, 128), (16, 1024), (32, 128)]
    rows = []
    for side, batch in cases:
        rows.append(measure(side, batch, 10 if quick else 12))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    picked = picking()
    print("take against gather: ", picked)
    if not quick:
        print(
            save(
                "masks", {"threads": 1, "unit": "pictures with one context and four targets, per second", "rows": rows}
            )
        )


if __name__ == "__main__":
    main()

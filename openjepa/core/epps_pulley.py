"""The sliced Epps-Pulley statistic with its exact gradient, in blocks that fit the cache.

For projections x_n = z_n . u of N samples on one direction, knots t_j = j h and weights w_j,

    T = N sum_j w_j [ (C_j - phi_j)^2 + S_j^2 ],   C_j = mean_n cos(t_j x_n),  S_j = mean_n sin(t_j x_n)

The knots are equally spaced, so with theta = h x every cosine and sine is a harmonic of theta, and writing
j = 5 b + a with a in -2..2 (the angle sum formulas) makes the 2 T harmonics products of two short lists:

    near = 1, cos 1, sin 1, cos 2, sin 2          far = 1, cos 5, sin 5, cos 10, sin 10, ...

One sine and one cosine per projection are evaluated; the rest are a dozen multiply-adds. The sums over n of all
harmonics are one small matrix product near x far^T, and the derivative by x, a sum of harmonics, is near . (W far) with
a small matrix W per direction. Nothing of size N x K x T exists, and the gradient comes with the value while the lists
are still in the cache: the backward pass only scales it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from openjepa.core import dist

NEAR = 5  # 1, cos 1, sin 1, cos 2, sin 2
STRIDE = 5  # harmonics between two far pairs: -2..2 around each


def knots_and_weights(knots: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Knots t on [0, limit], trapezoid weights of the integral over [-limit, limit] times exp(-t^2/2), and phi(t).

    All three are (T,) in float64; phi(t) = exp(-t^2/2) is the characteristic function of N(0, 1).
    """
    t = torch.linspace(0.0, limit, knots, dtype=torch.float64)
    phi = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * limit / (knots - 1))
    weights[0] /= 2
    weights[-1] /= 2
    return t, weights * phi, phi


@torch.library.custom_op("openjepa::epps_pulley", mutates_args=())
def epps_pulley(z: Tensor, directions: Tensor, knots: int, limit: float, learn: bool) -> tuple[Tensor, Tensor]:
    """T, meaned over V and K, and its gradient by `z` (empty unless `learn`).

    z (V, N, D) and directions (K, D) share one floating type; N is the same on every rank.
    An opaque operator: `torch.compile` keeps it whole, and it computes in the type it is given under autocast.
    """
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        return _blocks(z.detach(), directions, knots, limit, learn)


@epps_pulley.register_fake
def _(z: Tensor, directions: Tensor, knots: int, limit: float, learn: bool) -> tuple[Tensor, Tensor]:
    return z.new_empty(()), torch.empty_like(z, memory_format=torch.contiguous_format) if learn else z.new_empty(0)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _scale(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple:
    return ctx.saved_tensors[0] * grad, None, None, None, None


epps_pulley.register_autograd(_scale, setup_context=_keep)


def _blocks(z: Tensor, directions: Tensor, knots: int, limit: float, learn: bool) -> tuple[Tensor, Tensor]:
    """Share the directions out over threads, each with its own workspace, and add up what they find."""
    part = partial(_part, z, knots=knots, limit=limit, share=1.0 / (directions.shape[0] * z.shape[0]), learn=learn)
    if z.device.type != "cpu" or dist.is_distributed() or torch.get_num_threads() == 1:
        return part(directions)
    # Parallel operations meet a barrier each, and wait long there when other processes hold a core, as a data loader's
    # workers do. So every operation runs on one thread, and threads run different directions.
    threads = min(8, torch.get_num_threads(), -(-z[..., 0].numel() * directions.shape[0] // (1 << 17)))
    with _one_thread_per_operation():
        if threads == 1:
            return part(directions)
        shares = directions.split(-(-directions.shape[0] // threads))
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(part, shares))
        return sum((value for value, _ in found[1:]), found[0][0]), sum((grad for _, grad in found[1:]), found[0][1])


def _part(
    z: Tensor, directions: Tensor, *, knots: int, limit: float, share: float, learn: bool
) -> tuple[Tensor, Tensor]:
    """Project a chunk of directions at a time, then run through the chunk in blocks of the cache's size."""
    views, samples, dim = z.shape
    slices, flat = directions.shape[0], z.reshape(-1, dim)  # (VN, D)
    chunk, rows = _sizes(views, samples, slices, z.device)
    t, weights, phi = (c.to(z) for c in knots_and_weights(knots, limit))
    expand = _expansion(knots).to(z)  # (near far, 2T)
    work = _Workspace(z, knots, rows, samples)
    total = z.new_zeros(())
    grad = torch.zeros_like(flat, memory_format=torch.contiguous_format) if learn else z.new_empty(0)
    pull = 2.0 * dist.world_size() * share * torch.cat([weights * t] * 2)  # DDP averages over ranks: see dist
    for some in directions.split(chunk):
        theta = (limit / (knots - 1) * some) @ flat.t()  # (k, VN)
        for angle in theta.view(-1, samples).split(rows):  # (R, N), one row per direction and view
            near, far = work.harmonics(angle)
            means = dist.all_mean(_sums(near, far) @ expand / samples)  # (R, 2T)
            off = means - torch.cat([phi, torch.zeros_like(phi)])
            total += (off.square() @ torch.cat([weights, weights])).sum()
            if learn:
                cos_off, sin_off = (pull * off).chunk(2, dim=1)
                mix = torch.cat([sin_off, -cos_off], dim=1) @ expand.t()  # d cos = -t sin, d sin = t cos
                work.mix(mix.view(-1, near.shape[0], far.shape[0]), near, far, out=angle)
        if learn:
            grad.addmm_(theta.t(), some)
    return total * (samples * dist.world_size() * share), grad.view_as(z) if learn else grad


@contextmanager
def _one_thread_per_operation() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sizes(views: int, samples: int, slices: int, device: torch.device) -> tuple[int, int]:
    """How many directions to project at once, and how many rows of samples to work on at once.

    On the CPU 64k numbers per list are enough to hide the cost of an operation and few enough for the cache. On an
    accelerator, and between processes (one reduction per block), a block is a whole chunk.
    """
    chunk = max(1, min(slices, (1 << 21) // (views * samples)))
    if device.type != "cpu" or dist.is_distributed():
        return chunk, chunk * views
    return chunk, max(1, min(chunk * views, (1 << 16) // samples))


def _sums(near: Tensor, far: Tensor) -> Tensor:
    """Sum over samples of every product near far: (near, R, N), (far, R, N) -> (R, near far).

    In stretches of at most 512 samples where N allows it: shorter float32 sums round less.
    """
    rows, samples = near.shape[1:]
    parts = next((p for p in range(-(-samples // 512), samples // 64 + 1) if samples % p == 0), 1)
    shape = (rows * parts, samples // parts)
    products = torch.bmm(near.reshape(-1, *shape).transpose(0, 1), far.reshape(-1, *shape).permute(1, 2, 0))
    return products.view(rows, parts, -1).sum(1)


@lru_cache(maxsize=8)
def _expansion(knots: int) -> Tensor:
    """The constant matrix (near far, 2T) from stored products to cos(j theta), sin(j theta), j < T; float64."""
    far_count = _far_count(knots)
    expand = torch.zeros(NEAR, 2 * far_count + 1, 2, knots, dtype=torch.float64)
    for j in range(knots):
        b = (j + 2) // STRIDE
        a = j - STRIDE * b
        sign = 1.0 if a >= 0 else -1.0
        near = [(0, 1.0)] if a == 0 else [(2 * abs(a) - 1, 1.0), (2 * abs(a), sign * (2.0 if abs(a) == 2 else 1.0))]
        far = [(0, 1.0)] if b == 0 else [(2 * b - 1, 1.0), (2 * b, 2.0 if b == 2 else 1.0)]
        for p, (i, u) in enumerate(near):  # p, q: 0 for a cosine, 1 for a sine
            for q, (k, v) in enumerate(far):
                expand[i, k, (p + q) % 2, j] = -u * v if p and q else u * v
    return expand.view(-1, 2 * knots)


def _far_count(knots: int) -> int:
    """How many multiples of 5 reach the last harmonic, knots - 1, within 2."""
    return (knots - 3 + STRIDE - 1) // STRIDE if knots > 3 else 0


class _Workspace:
    """Preallocated lists of harmonics, (list, R, N), reused by every block.

    near = 1, cos 1, sin 1, cos 2, sin 2 / 2;   far = 1, cos 5, sin 5, cos 10, sin 10 / 2, cos 15, sin 15 ...

    Doubling uses cos 2a = 1 - 2 sin(a)^2 and the rest are rotations. A Chebyshev recurrence would be shorter, but a
    cosine near 1 hardly knows its angle, and j steps of it lose j^2 roundings.
    """

    def __init__(self, like: Tensor, knots: int, rows: int, samples: int) -> None:
        self.far_count = _far_count(knots)
        self.near = like.new_empty(NEAR, rows, samples)
        self.far = like.new_empty(2 * self.far_count + 1, rows, samples)
        self.mixed = like.new_empty(rows, NEAR, samples)
        self.near[0] = 1.0
        self.far[0] = 1.0

    def harmonics(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """The near and far lists of angle (R, N)."""
        rows = angle.shape[0]
        near, far = self.near[:, :rows], self.far[:, :rows]
        one, cos1, sin1, cos2, sin2 = near
        torch.cos(angle, out=cos1)
        torch.sin(angle, out=sin1)
        torch.addcmul(one, sin1, sin1, value=-2.0, out=cos2)
        torch.mul(sin1, cos1, out=sin2)  # sin 2 / 2
        if self.far_count > 0:
            cos4, sin4 = self.mixed.view(NEAR, -1, angle.shape[1])[:2, :rows]  # scratch: `mix` comes later
            torch.addcmul(one, sin2, sin2, value=-8.0, out=cos4)
            torch.mul(sin2, cos2, out=sin4)  # sin 4 / 4
            _rotate(cos4, sin4, 4.0, cos1, sin1, out=far[1:3])
        if self.far_count > 1:
            torch.addcmul(one, far[2], far[2], value=-2.0, out=far[3])
            torch.mul(far[1], far[2], out=far[4])  # sin 10 / 2
        for b in range(2, self.far_count):
            _rotate(far[2 * b - 1], far[2 * b], 2.0 if b == 2 else 1.0, far[1], far[2], out=far[2 * b + 1 : 2 * b + 3])
        return near, far

    def mix(self, weights: Tensor, near: Tensor, far: Tensor, out: Tensor) -> None:
        """out (R, N) = sum over near i, far k of weights (R, i, k) near_i far_k."""
        mixed = self.mixed[: out.shape[0]]
        torch.bmm(weights, far.transpose(0, 1), out=mixed)  # (R, near, N)
        torch.mul(near[1], mixed[:, 1], out=out).add_(mixed[:, 0])
        for i in range(2, NEAR):
            out.addcmul_(near[i], mixed[:, i])


def _rotate(cos_a: Tensor, sin_a: Tensor, scale: float, cos_b: Tensor, sin_b: Tensor, *, out: Tensor) -> None:
    """out = cos(a + b), sin(a + b), where `sin_a` holds sin(a) / scale."""
    torch.mul(cos_a, cos_b, out=out[0]).addcmul_(sin_a, sin_b, value=-scale)
    torch.mul(cos_a, sin_b, out=out[1]).addcmul_(sin_a, cos_b, value=scale)

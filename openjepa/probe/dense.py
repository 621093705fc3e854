"""Probes that answer for every pixel: which class it belongs to (mIoU), how far away it is (RMSE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.probe.intervals import Interval
from openjepa.probe.training import order, rate, steps_of

IGNORED = 255  # a class that is neither learned nor counted
FEWEST = 600  # steps
Head = Literal["linear", "small"]
HEADS: tuple[Head, ...] = ("linear", "small")


@dataclass(frozen=True)
class DenseResult:
    """One number over the pixels of the test pictures, with its 95 % interval over pictures (bootstrap).

    metric   "mIoU" or "RMSE"
    parts    of segmentation, IoU per class (None where the class does not occur); of depth, further measures
    """

    name: str
    metric: str
    value: float
    interval: Interval
    n: int
    parts: Mapping[str, float | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict, for a table."""
        low, high = self.interval
        return [
            {"name": f"{self.name} ({self.metric})", "value": self.value, "low": low, "high": high, "n": self.n,
             "pixels": dict(self.parts), "settings": dict(self.settings)}
        ]  # fmt: skip


class DenseHead(nn.Module):
    """Tokens (B, N, D) of a grid (rows, columns) -> maps (B, K, H, W) of any size.

    "linear"  batch norm without scale and shift, then one linear map per patch
    "small"   the same norm, then two 3x3 convolutions of `width` channels and one of 1x1: a patch may look around it

    The few values per patch are enlarged by bilinear interpolation, so a head has no more to say than its patches do.

    >>> DenseHead(8, 3, (2, 2), "small")(torch.randn(4, 4, 8), (16, 16)).shape
    torch.Size([4, 3, 16, 16])
    """

    def __init__(self, dim: int, outputs: int, grid: tuple[int, int], kind: Head = "linear", width: int = 128) -> None:
        super().__init__()
        if kind not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {kind!r}.")
        self.grid = grid
        self.norm = nn.BatchNorm2d(dim, affine=False)
        if kind == "linear":
            self.map: nn.Module = nn.Conv2d(dim, outputs, 1)
        else:
            self.map = nn.Sequential(
                nn.Conv2d(dim, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU(),
                nn.Conv2d(width, outputs, 1),
            )  # fmt: skip

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        rows, columns = self.grid
        if tokens.dim() != 3 or tokens.shape[1] != rows * columns:
            raise ValueError(
                f"tokens must be (B, {rows * columns}, D) for a grid {self.grid}, got {tuple(tokens.shape)}."
            )
        maps = tokens.transpose(1, 2).unflatten(2, self.grid)  # (B, D, rows, columns)
        return F.interpolate(self.map(self.norm(maps)), size, mode="bilinear", align_corners=False)


def segment(
    train: Tensor,
    train_masks: Tensor,
    test: Tensor,
    test_masks: Tensor,
    *,
    grid: tuple[int, int],
    head: Head = "linear",
    classes: Sequence[str] | None = None,
    lr: float = 3e-3,
    epochs: int | None = None,
    batch_size: int = 32,
    weight_decay: float = 1e-4,
    seed: int = 0,
) -> DenseResult:
    """mIoU of a head on frozen patch tokens, trained with the cross-entropy of every pixel.

        IoU_c = |predicted c and truly c| / |predicted c or truly c|, over all test pixels;  mIoU = mean over classes

    train, test   tokens (B, N, D), N = rows * columns of `grid`; of clips, hand in frames as pictures (`by_time`)
    masks         (B, H, W) int64 classes from 0; 255 is ignored. Classes that do not occur in the test masks and are
                  never predicted do not count in the mean
    classes       their names; by default numbers up to the greatest in the masks
    head          "linear" or "small", see `DenseHead`

    AdamW, a tenth of the steps warm-up, a cosine to zero; at least 600 steps. Source: the linear and the light
    segmentation heads of frozen evaluations (DINOv2, arXiv 2304.07193), at the masks' own resolution.

    >>> z = torch.randn(40, 4, 6).sign(); masks = (z[..., 0] > 0).long().view(-1, 2, 2)
    >>> found = segment(z[:30], masks[:30], z[30:], masks[30:], grid=(2, 2), epochs=60, batch_size=10, lr=3e-2)
    >>> found.metric, found.value > 0.9
    ('mIoU', True)
    """
    _check(train, train_masks)
    _check(test, test_masks)
    known = torch.cat([m[m != IGNORED].unique() for m in (train_masks, test_masks)]).unique()
    if len(known) < 2:
        raise ValueError(f"masks must hold at least two classes, got {known.tolist()}. Check the files.")
    count = len(classes) if classes is not None else int(known.max()) + 1
    if int(known.min()) < 0 or int(known.max()) >= count:
        raise ValueError(f"masks must hold classes 0..{count - 1} and 255, got {int(known.min())}..{int(known.max())}.")

    def loss(out: Tensor, masks: Tensor) -> Tensor:
        return F.cross_entropy(out, masks, ignore_index=IGNORED)

    model = _made(train, count, grid, head, seed)
    epochs = epochs or _epochs(len(train), batch_size)
    _minimise(model, train, train_masks.long(), loss, lr, weight_decay, epochs, batch_size, seed)
    tables = torch.cat([
        _confusion(model(z, (masks.shape[1], masks.shape[2])).argmax(1), masks, count)
        for z, masks in _batches(model, test, test_masks, batch_size)
    ])  # (B, classes, classes)  # fmt: skip
    names = list(classes) if classes is not None else [str(i) for i in range(count)]
    per_class = iou(tables.sum(0))
    parts = {name: None if v != v else v for name, v in zip(names, per_class.tolist(), strict=True)}
    ends = _bootstrap(tables, lambda t: iou(t).nanmean(-1), seed)
    settings = _settings(train, grid, head, lr, epochs, batch_size, seed)
    return DenseResult(
        f"segmentation, {head} head", "mIoU", float(per_class.nanmean()), ends, len(test), parts, settings
    )


def depth(
    train: Tensor,
    train_maps: Tensor,
    test: Tensor,
    test_maps: Tensor,
    *,
    grid: tuple[int, int],
    head: Head = "linear",
    lr: float = 3e-3,
    epochs: int | None = None,
    batch_size: int = 32,
    weight_decay: float = 1e-4,
    seed: int = 0,
) -> DenseResult:
    """Root mean square error of a head on frozen patch tokens that reads a number for every pixel: depth, height, flow.

        RMSE = sqrt(mean over test pixels of (prediction - truth)^2),  in the units of the maps

    maps  (B, H, W) floats; nan is neither learned nor counted. Trained on the L1 error of maps divided by their spread

    `parts` has what RMSE is worth: "rmse of the mean map" is what answering with the mean training map (one number per
    pixel) would get, and "delta 1.25", for positive maps, the share of pixels off by less than a quarter.

    >>> z = torch.randn(40, 4, 6); maps = z[..., 0].view(-1, 2, 2) + 3
    >>> found = depth(z[:30], maps[:30], z[30:], maps[30:], grid=(2, 2), epochs=60, batch_size=10, lr=3e-2)
    >>> found.value < 0.3 < found.parts["rmse of the mean map"]
    True
    """
    _check(train, train_maps)
    _check(test, test_maps)
    maps, truth = train_maps.float(), test_maps.float()
    known = maps.isfinite()
    if not bool(known.any()) or not bool(truth.isfinite().any()):
        raise ValueError("maps must hold some finite values, got none. Check the files.")
    mean, std = maps[known].mean(), maps[known].std().clamp_min(1e-12)

    def loss(out: Tensor, target: Tensor) -> Tensor:
        good = target.isfinite()
        return (out[:, 0] - target.nan_to_num())[good].abs().mean()

    model = _made(train, 1, grid, head, seed)
    epochs = epochs or _epochs(len(train), batch_size)
    _minimise(model, train, (maps - mean) / std, loss, lr, weight_decay, epochs, batch_size, seed)
    prediction = torch.cat([
        model(z, (target.shape[1], target.shape[2]))[:, 0] * std + mean
        for z, target in _batches(model, test, truth, batch_size)
    ])  # fmt: skip
    error = _sums(prediction - truth)
    parts: dict[str, float | None] = {"rmse of the mean map": _rmse(_sums(maps.nanmean(0) - truth).sum(0))}
    positive = truth[truth.isfinite()]
    if bool((positive > 0).all()):
        found = prediction[truth.isfinite()].clamp_min(1e-6)
        parts["delta 1.25"] = float((torch.maximum(found / positive, positive / found) < 1.25).double().mean())
    ends = _bootstrap(error, lambda t: (t[..., 0] / t[..., 1]).sqrt(), seed)
    settings = _settings(train, grid, head, lr, epochs, batch_size, seed)
    return DenseResult(f"depth, {head} head", "RMSE", _rmse(error.sum(0)), ends, len(test), parts, settings)


def iou(table: Tensor) -> Tensor:
    """IoU per class from confusion counts (..., true, predicted); nan where a class neither occurs nor is predicted.

    >>> iou(torch.tensor([[3.0, 1.0], [0.0, 4.0]]))
    tensor([0.7500, 0.8000])
    """
    hit = table.diagonal(dim1=-2, dim2=-1)
    return hit / (table.sum(-1) + table.sum(-2) - hit)


def _confusion(found: Tensor, masks: Tensor, classes: int) -> Tensor:
    """Counts (B, true, predicted) per picture, ignored pixels left out."""
    known = masks != IGNORED
    which = torch.arange(len(masks), device=masks.device)[:, None, None].expand_as(masks)
    flat = (which * classes + masks) * classes + found
    counts = torch.bincount(flat[known], minlength=len(masks) * classes * classes)
    return counts.view(-1, classes, classes).double().cpu()


def _sums(error: Tensor) -> Tensor:
    """(B, 2): the sum of squares and the number of finite pixels per picture."""
    known = error.isfinite()
    squares = error.nan_to_num().square().double().flatten(1).sum(1)
    return torch.stack([squares, known.flatten(1).sum(1).double()], 1).cpu()


def _rmse(sums: Tensor) -> float:
    return float((sums[0] / sums[1]).sqrt())


def _bootstrap(parts: Tensor, measure: Any, seed: int, resamples: int = 1000) -> Interval:
    """Interval of a measure of sums over pictures, by drawing pictures again."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(resamples, len(parts), dtype=torch.float64)  # how often each picture is drawn
    drawn = torch.randint(len(parts), (resamples, len(parts)), generator=generator)
    weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    totals = (weights @ parts.flatten(1)).unflatten(1, parts.shape[1:])
    found = measure(totals)
    ends = torch.nanquantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Interval(*ends.tolist())


def _check(tokens: Tensor, maps: Tensor) -> None:
    if tokens.dim() != 3 or maps.dim() != 3 or len(tokens) != len(maps):
        raise ValueError(
            f"tokens must be (B, N, D) with maps (B, H, W), got {tuple(tokens.shape)} and {tuple(maps.shape)}."
        )
    if not bool(tokens.isfinite().all()):
        raise ValueError("features must be finite, got nan or inf. The run has diverged: probe an earlier checkpoint.")


def _made(tokens: Tensor, outputs: int, grid: tuple[int, int], head: Head, seed: int) -> DenseHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DenseHead(tokens.shape[-1], outputs, grid, head).to(tokens.device)


def _epochs(n: int, batch_size: int) -> int:
    return max(20, -(-FEWEST // steps_of(n, batch_size, 1)))


def _settings(
    train: Tensor, grid: tuple[int, int], head: str, lr: float, epochs: int, batch_size: int, seed: int
) -> dict[str, Any]:
    return {
        "head": head, "grid": list(grid), "trained_on": len(train), "features": train.shape[-1], "lr": lr,
        "epochs": epochs, "batch_size": batch_size, "seed": seed, "interval": "test pictures",
    }  # fmt: skip


def _minimise(
    model: DenseHead,
    tokens: Tensor,
    maps: Tensor,
    loss: Any,
    lr: float,
    decay: float,
    epochs: int,
    batch: int,
    seed: int,
) -> None:
    solver = torch.optim.AdamW(model.map.parameters(), lr=lr, weight_decay=decay)
    total = steps_of(len(tokens), batch, epochs)
    size = (maps.shape[1], maps.shape[2])
    model.train()
    for step, rows in enumerate(order(len(tokens), batch, epochs, seed)):
        for group in solver.param_groups:
            group["lr"] = lr * rate(step, total)
        rows = rows.to(tokens.device)
        found = loss(model(tokens[rows].float(), size), maps[rows].to(tokens.device))
        solver.zero_grad(set_to_none=True)
        found.backward()
        solver.step()
    model.eval()


def _batches(model: DenseHead, tokens: Tensor, maps: Tensor, batch_size: int) -> Any:
    """Pairs of tokens and maps, on the tokens' device, without gradient."""
    with torch.no_grad():
        for z, target in zip(tokens.split(batch_size), maps.split(batch_size), strict=True):
            yield z.float(), target.to(tokens.device)

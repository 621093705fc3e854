"""Where things are, as a map of cells: a small head on feature maps, measured by average precision."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.probe.training import order


class LocationHead(nn.Module):
    """Feature maps (B, D, h, w) -> a logit for each of `cells` x `cells` cells, (B, cells, cells).

    Maps are averaged down to the cells, then two 3x3 convolutions with a ReLU between them.

    >>> LocationHead(16, cells=8)(torch.zeros(2, 16, 16, 16)).shape
    torch.Size([2, 8, 8])
    """

    def __init__(self, dim: int, *, cells: int = 8, width: int = 32) -> None:
        super().__init__()
        self.cells = cells
        self.conv1 = nn.Conv2d(dim, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[-2:] != (self.cells, self.cells):
            maps = F.adaptive_avg_pool2d(maps, self.cells)
        return self.conv2(F.relu(self.conv1(maps)))[:, 0]


def fit_locations(
    maps: Tensor, cells: Tensor, *, epochs: int = 20, batch_size: int = 640, lr: float = 1e-3, seed: int = 0
) -> LocationHead:
    """A `LocationHead` trained on frozen maps (N, D, h, w) to say which cells (N, S, S) in {0, 1} hold something.

    Cross-entropy of each cell on its own, Adam, one rate throughout, as in eb_jepa's video example.
    """
    if len(maps) != len(cells) or cells.shape[1] != cells.shape[2]:
        raise ValueError(f"cells must be ({len(maps)}, S, S) like the maps, got {tuple(cells.shape)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = LocationHead(maps.shape[1], cells=cells.shape[1])
    head = head.to(maps.device)
    solver = torch.optim.Adam(head.parameters(), lr=lr)
    for rows in order(len(maps), batch_size, epochs, seed):
        rows = rows.to(maps.device)
        loss = F.binary_cross_entropy_with_logits(head(maps[rows].float()), cells[rows].float())
        solver.zero_grad(set_to_none=True)
        loss.backward()
        solver.step()
    return head.eval()


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under precision against recall, as the sum over thresholds of (recall step) x (precision there).

        AP = sum over k of (R_k - R_{k-1}) P_k,  k over the distinct scores from high to low

    scores  (..., N), labels (..., N) in {0, 1};  returns (...), nan where nothing is positive. Ties count together.
    The same number as scikit-learn's average_precision_score: no interpolation.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 0, 1, 0]))
    tensor(0.8333, dtype=torch.float64)
    """
    order = scores.argsort(-1, descending=True)
    s, y = scores.gather(-1, order), labels.gather(-1, order).double()
    hits = y.cumsum(-1)
    precision = hits / torch.arange(1, s.shape[-1] + 1, device=s.device)
    last = torch.ones_like(s, dtype=torch.bool)
    last[..., :-1] = s[..., :-1] != s[..., 1:]  # the end of each run of equal scores: a threshold
    # within a run of ties the precision is that of its end: carry it back
    place = torch.arange(s.shape[-1], device=s.device).expand_as(s)
    ends = torch.where(last, place, s.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return (y * precision.gather(-1, ends)).sum(-1) / hits[..., -1]


def batches_of_clips(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` clips, in order; eb_jepa averages its precision over these.

    >>> list(batches_of_clips(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(i, min(i + size, count)) for i in range(0, count, size))

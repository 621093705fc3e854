"""Does the encoder look at the picture, or at something trivial that comes with it? Three measurements, no training.

`border_share` splices the frame of one picture around another and asks whose features come out. `trivial_r2` asks how
much of the features a straight line through colour and contrast explains. `content_share` asks how much of the patch
tokens depends on the picture at all, and not on the position alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Encode = Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, D) pooled features

BORDER = 1 / 8  # frame width as a share of the side: 44 % of the area


@torch.no_grad()
def border_share(encode: Encode, pictures: Tensor, z: Tensor) -> Tensor:
    """Whose features does a hybrid of two pictures have: the frame's (1) or the interior's (0)?

    hybrid i = interior of picture i, outer frame (an eighth of the side) of picture j = i + B/2

        share = sum_i |h_i - z_i|^2 / (sum_i |h_i - z_i|^2 + sum_i |h_i - z_j|^2)

    An encoder that averages all pixels gives 0.38, one that ignores the frame 0, one that sees only the frame 1.

    pictures  (B, C, H, W), B even or the last one is dropped
    z         (B, D) their features, from the same `encode`
    returns   (); nan where the features of different pictures do not differ, because then there is no answer

    >>> x = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> frame = lambda p: p[:, 0, 0, :]; inside = lambda p: p[:, 0, 8, 4:12]
    >>> border_share(frame, x, frame(x)).item(), border_share(inside, x, inside(x)).item()
    (1.0, 0.0)
    """
    b = len(pictures) // 2 * 2
    z = z[:b].float()
    own, other = z, z.roll(-b // 2, 0)
    h = encode(splice(pictures[:b], pictures[:b].roll(-b // 2, 0))).float()
    to_inside, to_frame = (h - own).square().sum(), (h - other).square().sum()
    apart = (own - other).square().sum()
    return torch.where(apart > 1e-9 * z.square().sum(), to_inside / (to_inside + to_frame), torch.nan)


def splice(interior: Tensor, frame: Tensor) -> Tensor:
    """The interior of one batch of pictures inside the outer frame of another, (B, C, H, W) each."""
    h, w = interior.shape[-2:]
    dy, dx = max(1, round(h * BORDER)), max(1, round(w * BORDER))
    out = frame.clone()
    out[..., dy : h - dy, dx : w - dx] = interior[..., dy : h - dy, dx : w - dx]
    return out


@torch.no_grad()
def trivial_r2(pictures: Tensor, z: Tensor, *, ridge: float = 1e-3) -> Tensor:
    """The share of the features' variance that colour and contrast explain, on held-out pictures.

    Per picture: mean and standard deviation of each channel, their squares and a constant; ridge regression onto z,
    fitted on the even pictures, measured on the odd ones. 1 is a colour histogram; a random encoder is near it too, so
    what counts is that training brings it down.

    pictures  (B, C, H, W);  z  (B, D)
    returns   (), at most 1; below 0 when the fit carries nothing over; nan where the features do not vary

    >>> x = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.rand(64, 1, 1, 1)
    >>> round(trivial_r2(x, x.mean((2, 3))).item(), 2)
    1.0
    """
    flat = pictures.float().flatten(2)
    stats = torch.cat([flat.mean(2), flat.std(2)], dim=1)  # (B, 2C)
    stats = (stats - stats.mean(0)) / stats.std(0).clamp_min(1e-6)
    a = torch.cat([stats, stats.square(), torch.ones_like(stats[:, :1])], dim=1).double()  # (B, 4C + 1)
    y = z.double()
    fit, test = slice(0, None, 2), slice(1, None, 2)
    gram = a[fit].T @ a[fit] + ridge * len(a[fit]) * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    weights = torch.linalg.solve(gram, a[fit].T @ (y[fit] - y[fit].mean(0)))
    error = (y[test] - y[fit].mean(0) - a[test] @ weights).square().sum()
    spread = (y[test] - y[test].mean(0)).square().sum()
    return torch.where(spread > 1e-9 * y.square().sum(), 1 - error / spread, torch.nan).float()


@torch.no_grad()
def content_share(tokens: Tensor) -> Tensor:
    """The share of the tokens' variance that depends on the picture, the rest being a function of position alone.

        1 - (variance of the per-position mean) / (variance of all tokens), corrected for the finite number of pictures

    A masked method can collapse to tokens that only say where they are: every picture then has the same set of tokens,
    although the tokens of one picture differ. This number goes to 0 there.

    tokens   (B, N, D) -> ()

    >>> position = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    >>> content_share(position.expand(16, -1, -1)).abs().item() < 1e-5
    True
    """
    t = tokens.float()
    b = t.shape[0]
    centred = t - t.mean((0, 1))
    whole = centred.square().mean()
    within = (t - t.mean(0)).square().mean() * b / max(1, b - 1)  # about the mean of its position, over pictures
    return torch.where(whole > 1e-12 * t.square().mean(), within / whole, torch.nan).clamp(max=1.0)

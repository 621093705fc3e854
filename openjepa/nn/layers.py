"""The small modules that every network here is built from: transformer block, drop path, rank-synced batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core import dist
from openjepa.nn.position import Rotation, rotate


class MLP(nn.Module):
    """fc2(gelu(fc1(x))) with the exact (erf) GELU; (..., D) -> (..., D).

    >>> MLP(8, 32)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention: proj(softmax(q k^T / sqrt(D / heads)) v), q, k, v from one Linear with bias.

    The 3 * D outputs of `qkv` are read as (3, heads, D / heads), in the order q, k, v. With `rotation` (rotary
    positions) q and k are turned before the product. (B, N, D) -> (B, N, D).

    >>> Attention(8, heads=2)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"width must be a multiple of heads, got width {dim} and {heads} heads. Change one of them."
            )
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, each (B, heads, N, D / heads) as views of one tensor."""
        b, n, d = x.shape
        # unbinding axis 2 before the transpose lets backward stack the three gradients straight into place
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, N, D / heads)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        q, k, v = self.split(x)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(x.shape))  # (B, N, D)


class DropPath(nn.Module):
    """Stochastic depth: while training, a sample's branch is dropped with probability p, else scaled by 1 / (1 - p).

    Huang et al. 2016, arXiv 1603.09382. One draw per sample from torch's default generator, as with `nn.Dropout`.

    >>> DropPath(0.5).eval()(torch.ones(2, 3)).sum().item()
    6.0
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {p}. Values up to 0.3 are usual.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)


class Block(nn.Module):
    """Pre-norm transformer block: x += attn(norm1(x)); x += mlp(norm2(x)); layer norms with eps 1e-6.

    >>> Block(8, heads=2)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, round(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), rotation))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over every axis but 1, with statistics of the joined batch when several processes train.

    y = (x - mean) / sqrt(var + eps) * weight + bias; (N, C), (N, C, L) or (N, C, H, W). State names, running statistics
    (momentum 0.1, unbiased variance) and single-process numbers are those of `torch.nn.BatchNorm1d`. Processes may hold
    batches of different sizes. Gradients flow through the reduction, so they equal those of the joined batch when
    gradients are summed over processes. Unlike `torch.nn.SyncBatchNorm` it also runs on a CPU, and it looks for
    processes when called, not when built.

    >>> BatchNorm(4)(torch.randn(8, 4, 5, 5)).shape
    torch.Size([8, 4, 5, 5])
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        super().__init__(features, eps=eps, momentum=momentum, affine=affine)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"batch norm input must be (N, {self.num_features}, ...), got {tuple(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or dist.world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [a for a in range(input.dim()) if a != 1]
        mean, var, count = _joined_moments(input.float(), axes)
        self._update_running(mean.detach(), (var * count / (count - 1).clamp(min=1)).detach())
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = self.bias - mean * scale if self.affine else -mean * scale
        # one multiply-add: only the input itself is kept for backward
        return torch.addcmul(shift.view(shape), input.float(), scale.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)


def _joined_moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and count over `axes` and all processes, each (C,) or (); differentiable.

    Two reductions, mean first: the one-pass form E[x^2] - E[x]^2 loses all digits when the mean is large.
    """
    count = x.new_tensor([x.numel() / x.shape[1]])
    joined = dist.all_sum(torch.cat([x.sum(axes), count]))
    mean, total = joined[:-1] / joined[-1], joined[-1].detach()
    shape = [1, -1] + [1] * (x.dim() - 2)
    var = dist.all_sum((x - mean.view(shape)).square().sum(axes)) / total
    return mean, var, total


def init_transformer(module: nn.Module) -> None:
    """Weights of Linear, Conv2d and free tokens from a normal (std 0.02) cut at two units; biases 0, norms identity.

    Without the depth rescale 1/sqrt(2 l): published I-JEPA runs had none, since a second initialisation undid it.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.LayerNorm):
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)

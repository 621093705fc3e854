"""What was encoded lately, kept for a predictor that learns more slowly than the encoder it follows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.dist import gather


class Replay(nn.Module):
    """The last `size` windows of latents (T, D) and actions (T - 1, A), the oldest overwritten first.

    Its buffers are saved with the model, so that a resumed run draws what the uninterrupted one would have drawn. With
    several processes each keeps the windows of all.

    >>> replay = Replay(3, steps=2, dim=4, action=1)
    >>> replay.put(torch.ones(2, 2, 4), torch.ones(2, 1, 1))
    >>> z, action = replay.draw(5, torch.Generator().manual_seed(0))
    >>> z.shape, action.shape, bool((z == 1).all())
    (torch.Size([5, 2, 4]), torch.Size([5, 1, 1]), True)
    """

    z: Tensor
    action: Tensor
    count: Tensor

    def __init__(self, size: int, *, steps: int, dim: int, action: int):
        super().__init__()
        self.register_buffer("z", torch.zeros(size, steps, dim))
        self.register_buffer("action", torch.zeros(size, steps - 1, action))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # windows put so far

    @torch.no_grad()
    def put(self, z: Tensor, action: Tensor) -> None:
        """Windows of a batch, (B, T, D) and (B, T - 1, A); of more than `size` the last ones stay."""
        z, action = gather(z.detach().float()), gather(action.detach().float())
        size = len(self.z)
        at = (self.count + torch.arange(len(z), device=z.device)[-size:]) % size
        self.z[at], self.action[at] = z[-size:], action[-size:]
        self.count += len(z)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n` windows at random, with replacement, from those that were put."""
        numbers = torch.randint(2**62, (n,), generator=generator).to(self.z.device)
        rows = numbers % self.count.clamp_max(len(self.z))
        return self.z[rows], self.action[rows]

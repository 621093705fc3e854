"""Physical variables as a linear probe can read them: an angle as its cosine and its sine, and back again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from openjepa.probe.ridge import Ridge, ridge

WIDEST = 2048  # tokens with more numbers than this in all are averaged before they are read


@dataclass(frozen=True)
class Variables:
    """P physical variables by name. Those called theta... or ...angle are angles in radians.

    >>> v = Variables(("x", "theta"))
    >>> v.target_names, v.targets(torch.tensor([[2.0, 0.0]])).tolist()
    (('x', 'cos theta', 'sin theta'), [[2.0, 1.0, 0.0]])
    >>> v.difference(torch.tensor([2.0, 3.1]), torch.tensor([1.0, -3.1]))  # the short way round the circle
    tensor([ 1.0000, -0.0832])
    """

    names: tuple[str, ...]

    @cached_property
    def angles(self) -> list[int]:
        return [i for i, name in enumerate(self.names) if name.startswith("theta") or name.endswith("angle")]

    @cached_property
    def plain(self) -> list[int]:
        return [i for i in range(len(self.names)) if i not in self.angles]

    @property
    def target_names(self) -> tuple[str, ...]:
        """Of the columns of `targets`."""
        turns = tuple(f"{way} {self.names[i]}" for way in ("cos", "sin") for i in self.angles)
        return tuple(self.names[i] for i in self.plain) + turns

    def targets(self, state: Tensor) -> Tensor:
        """(..., P) -> (..., K): the plain ones, then all cosines, then all sines."""
        turned = state[..., self.angles]
        return torch.cat([state[..., self.plain], turned.cos(), turned.sin()], -1)

    def values(self, targets: Tensor) -> Tensor:
        """The other way, (..., K) -> (..., P); cosine and sine need not lie on the circle."""
        n, a = len(self.plain), len(self.angles)
        out = targets.new_empty((*targets.shape[:-1], len(self.names)))
        out[..., self.plain] = targets[..., :n]
        out[..., self.angles] = torch.atan2(targets[..., n + a :], targets[..., n : n + a])
        return out

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """a - b, (..., P); of angles the short way round, in [-pi, pi)."""
        apart = a - b
        turned = apart[..., self.angles]
        apart[..., self.angles] = torch.remainder(turned + torch.pi, 2 * torch.pi) - torch.pi
        return apart

    def spread(self, state: Tensor) -> Tensor:
        """Root mean square distance of states (N, P) from their mean; of angles from their mean direction."""
        middle = self.values(self.targets(state).mean(0))
        return self.difference(state, middle).square().mean(0).sqrt()


@dataclass(frozen=True)
class Readout:
    """Variables as a ridge regression reads them off z; fitted once, on frames of training episodes."""

    variables: Variables
    map: Ridge
    scale: Tensor  # (K,)
    spread: Tensor  # (P,) of the variables over the frames it was fitted on

    def targets(self, z: Tensor) -> Tensor:
        """(..., D) or (..., N, D) tokens, as they were fitted -> (..., K)."""
        return self.map(z.float()).double() * self.scale

    def __call__(self, z: Tensor) -> Tensor:
        """(..., P), in the variables' own units."""
        return self.variables.values(self.targets(z))


def fit_readout(z: Tensor, state: Tensor, variables: Variables) -> Readout:
    """Ridge regression from z (N, D), see `flat`, to the targets of states (N, P); the penalty is chosen on them too.

    Raises `ValueError` for a variable that never varies: leave it out, see `varying`.
    """
    still = [name for name, moves in zip(variables.names, varying(state), strict=True) if not moves]
    if still:
        raise ValueError(f"variables must vary over the frames, got {', '.join(still)} that do not. Leave them out.")
    targets = variables.targets(state.double())
    scale = targets.std(0).clamp_min(1e-12)
    return Readout(variables, ridge(z.float(), (targets / scale).float()), scale, variables.spread(state.double()))


def varying(state: Tensor) -> list[bool]:
    """Which of the P variables vary over frames (N, P) by more than rounding.

    >>> varying(torch.tensor([[1.0, 2.0], [1.0, 3.0]]))
    [False, True]
    """
    x = state.double()
    return (x.std(0) > 1e-7 * x.abs().mean(0).clamp_min(1e-30)).tolist()


def flat(z: Tensor) -> Tensor:
    """Latents as a linear map takes them: (F, D) as they are; tokens (F, N, D) side by side, averaged where many.

    >>> flat(torch.zeros(5, 4, 8)).shape, flat(torch.zeros(5, 64, 192)).shape
    (torch.Size([5, 32]), torch.Size([5, 192]))
    """
    if z.dim() == 2:
        return z
    return z.flatten(1) if z[0].numel() <= WIDEST else z.mean(1)

"""Teachers: networks that follow another one and never see a gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def ema_(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place, tensor by tensor in one fused call.

    teacher, student  parameters (and floating buffers) in the same order
    momentum          in [0, 1]; 1 keeps the teacher, 0 copies the student

    Raises `ValueError` when the two do not pair up: a teacher that silently stays behind is the worst kind of bug.

    >>> t, s = [torch.zeros(2)], [torch.ones(2)]
    >>> ema_(t, s, 0.75); t
    [tensor([0.2500, 0.2500])]
    """
    t, s = list(teacher), list(student)
    if len(t) != len(s) or any(a.shape != b.shape for a, b in zip(t, s, strict=True)):
        raise ValueError(f"teacher and student must have the same tensors, got {len(t)} and {len(s)} or other shapes.")
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}.")
    torch._foreach_lerp_(t, s, 1.0 - momentum)

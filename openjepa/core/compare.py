"""How far a prediction is from its target: one home for each comparison."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def smooth_l1(prediction: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Mean of 0.5 e^2 / beta where |e| < beta, else |e| - 0.5 beta; e = prediction - target.

    prediction, target  (..., D)
    returns             ()

    Scale    mean over every element, features too. The target is used as given: detach it first if it must not learn.
    Source   I-JEPA's loss (beta 1), arXiv 2301.08243.

    >>> import torch
    >>> smooth_l1(torch.tensor([0.5, 3.0]), torch.zeros(2))
    tensor(1.3125)
    """
    return F.smooth_l1_loss(prediction.float(), target.float(), beta=beta)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of (prediction - target)^2 over every element.

    >>> import torch
    >>> mse(torch.tensor([1.0, 3.0]), torch.zeros(2))
    tensor(5.)
    """
    return F.mse_loss(prediction.float(), target.float())


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |prediction - target| over every element.

    >>> import torch
    >>> l1(torch.tensor([1.0, -3.0]), torch.zeros(2))
    tensor(2.)
    """
    return F.l1_loss(prediction.float(), target.float())


def centre(z: Tensor) -> Tensor:
    """The mean view of each sample, (V, B, D) -> (1, B, D): what every view is drawn towards in LeJEPA."""
    return z.mean(dim=0, keepdim=True)


def whiten_tokens(z: Tensor) -> Tensor:
    """Each token to zero mean and unit variance over its features: LayerNorm without weights, in float32.

    Applied to the teacher's tokens before they become targets; it takes away the freedom to lower the loss by
    shrinking the target.

    >>> import torch
    >>> whiten_tokens(torch.tensor([[1.0, 3.0]]))
    tensor([[-1.0000,  1.0000]])
    """
    return F.layer_norm(z.float(), z.shape[-1:])

"""AdamW in groups, and its rate and decay as functions of the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from openjepa.core.schedule import cosine, hold_then_fall, linear, stage, warm_up
from openjepa.train.run import OptimConfig


def make_optimizer(module: nn.Module, cfg: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters of `module`, each in exactly one of four named groups.

    The groups are encoder or rest, times decay or no decay. Biases and one-dimensional weights (norms, scales) do not
    decay. Empty groups are left out. Frozen parameters, such as a teacher's, are in none.

    Raises `ValueError` when nothing is trainable.

    >>> net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 1, bias=False)})
    >>> [(g["name"], len(g["params"])) for g in make_optimizer(net, OptimConfig()).param_groups]
    [('encoder', 1), ('encoder/no_decay', 1), ('rest', 1)]
    """
    groups = param_groups(module)
    if not groups:
        raise ValueError("method must have trainable parameters, got none. Check requires_grad of its modules.")
    devices = {p.device.type for g in groups for p in g["params"]}
    plain = all(type(p) is nn.Parameter for g in groups for p in g["params"])  # sharded tensors: let torch choose
    fused = True if plain and devices <= {"cpu", "cuda"} else None
    optimizer = torch.optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=fused)
    set_rates(optimizer, cfg, 0, 1)
    return optimizer


def param_groups(module: nn.Module) -> list[dict]:
    groups: dict[str, list[nn.Parameter]] = {}
    for name, p in module.named_parameters():
        if p.requires_grad:
            part = "encoder" if name.split(".")[0] == "encoder" else "rest"
            groups.setdefault(part if decays(name, p) else f"{part}/no_decay", []).append(p)
    return [{"name": name, "params": groups[name]} for name in sorted(groups)]


def decays(name: str, p: Tensor) -> bool:
    return p.ndim > 1 and not name.endswith("bias")


def set_rates(
    optimizer: torch.optim.Optimizer, cfg: OptimConfig, step: int, total: int, stages: Sequence[float] = ()
) -> tuple[float, float]:
    """Write the rate and the decay of `step` into every group; returns both."""
    lr, decay = learning_rate(cfg, step, total, stages), weight_decay(cfg, step, total)
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = 0.0 if group["name"].endswith("/no_decay") else decay
    return lr, decay


def learning_rate(cfg: OptimConfig, step: int, total: int, stages: Sequence[float] = ()) -> float:
    """The rate of update number `step` (from 0) of `total`; the schedule runs once in each of the method's `stages`.

    >>> cfg = OptimConfig(lr=1.0, warmup=4, start_factor=0.5, final_factor=0.0)
    >>> [round(learning_rate(cfg, s, 12), 3) for s in (0, 2, 4, 8, 12)]
    [0.5, 0.75, 1.0, 0.5, 0.0]
    >>> [round(learning_rate(cfg, s, 24, [0.5]), 3) for s in (4, 8, 12, 14, 20)]
    [1.0, 0.5, 0.5, 0.75, 0.5]
    """
    begin, after = stage(step, total, stages)
    step, total = step - begin, after - begin
    rise = cfg.warmup * total if cfg.warmup < 1 else min(cfg.warmup, total)
    if step < rise:
        return cfg.lr * warm_up(step, rise, cfg.start_factor)
    end = total * cfg.stretch
    progress = (step - rise) / max(1.0, end - rise)
    if cfg.schedule == "cosine":
        return cosine(cfg.lr, cfg.lr * cfg.final_factor, progress)
    if cfg.schedule == "linear":
        return linear(cfg.lr, cfg.lr * cfg.final_factor, progress)
    if cfg.schedule == "wsd":  # its last share counts from the whole run, warm-up included
        return hold_then_fall(cfg.lr, cfg.lr * cfg.final_factor, step / end, cfg.cooldown)
    return cfg.lr


def weight_decay(cfg: OptimConfig, step: int, total: int) -> float:
    end = cfg.weight_decay if cfg.weight_decay_end is None else cfg.weight_decay_end
    return cosine(cfg.weight_decay, end, step / (total * cfg.stretch))

"""The networks of the Moving-MNIST benchmark, their losses, and a loop that stops at a budget and goes on from a file.

`Rollout` encodes every frame to a map of 8 x 8 cells and predicts the next map from the last two, again and again. The
same networks learn in two ways: `"latent"`, the JEPA: predictions are compared with the encodings of the true frames
through which the gradient flows, and variance and covariance keep the cells spread out; `"pixels"`: predictions are
decoded and compared with the true frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.compare import mse
from openjepa.core.spread import covariance, variance
from openjepa.nn import BatchNorm
from openjepa.nn.conv import BasicBlock, conv
from openjepa.train.optim import make_optimizer, set_rates
from openjepa.train.run import OptimConfig

CONTEXT = 2  # frames that a prediction begins with, as in the published protocol


class Frames(nn.Module):
    """Frames (B, 1, 64, 64) in 0..1 -> maps (B, D, 8, 8). A cell sees 41 x 41 pixels, so that what it says is said of
    what is there: one that sees the whole frame may speak of what never changes in a clip, which is easy to predict."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        w = width
        self.net = nn.Sequential(
            conv(1, w // 4, 5, 2), BatchNorm(w // 4), nn.ReLU(), BasicBlock(w // 4, w // 2, 2),
            BasicBlock(w // 2, w, 2), nn.Conv2d(w, dim, 1),
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames.contiguous(memory_format=torch.channels_last))


class Step(nn.Module):
    """The map of the next frame from those of the last two, (B, D, 8, 8) each: the last one and a learned change.

    It begins as the copy of the last one. No norm over the batch: predictions fed back have other statistics than
    encodings, and those of one step would be wrong for the next.
    """

    def __init__(self, dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(CONTEXT * dim, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.leave = nn.Conv2d(width, dim, 1)
        for last in (self.leave, *(block[3] for block in self.blocks)):
            nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        x = self.enter(torch.cat([before, last], 1))
        for block in self.blocks:
            x = x + block(x)
        return last + self.leave(F.relu(x))


class Pictures(nn.Module):
    """Maps (B, D, 8, 8) -> logits of frames (B, 1, 64, 64). No norm over the batch, for the reason of `Step`."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 64, 1), nn.PixelShuffle(8),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        return self.net(maps)


class Rollout(nn.Module):
    """Encoder, predictor, and for the pixel objective a decoder; see the head of this file.

    steps    predictions fed back in training, from each of the first `starts` pairs of frames
    std, cov weights of the variance hinge and of the mean squared off-diagonal covariance over cells and frames; the
             published ones are 10 and 100
    """

    def __init__(
        self, objective: str, *, dim: int = 64, width: int = 96, blocks: int = 2, steps: int = 7, starts: int = 2,
        std: float = 10.0, cov: float = 100.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if objective not in ("latent", "pixels"):
            raise ValueError(f"objective must be latent or pixels, got {objective!r}.")
        self.objective, self.steps, self.starts, self.dim = objective, steps, starts, dim
        self.std, self.cov = (
            std,
            cov / (dim - 1),
        )  # core.spread.covariance divides by D, the published code by D (D - 1)
        self.encoder, self.predictor = Frames(dim, width), Step(dim, width, blocks)
        self.decoder = Pictures(dim, width) if objective == "pixels" else None

    def encode(self, clips: Tensor) -> Tensor:
        """(B, T, 1, 64, 64) -> (B, T, D, 8, 8)."""
        return self.encoder(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])

    def futures(self, z: Tensor, steps: int, starts: int) -> list[Tensor]:
        """Maps imagined from every pair of frames (t, t + 1), t < starts, in parallel.

        Entry k, (B, n, D, 8, 8), is k + 1 steps ahead: of frame t + 2 + k for t = 0 .. n - 1, as long as that exists.
        """
        before, last = z[:, :starts], z[:, 1 : starts + 1]
        found = []
        for k in range(steps):
            room = min(starts, z.shape[1] - CONTEXT - k)
            before, last = before[:, :room], last[:, :room]
            after = self.predictor(before.flatten(0, 1), last.flatten(0, 1)).unflatten(0, last.shape[:2])
            found.append(after)
            before, last = last, after
        return found

    def futures_side_by_side(self, z: Tensor, steps: int) -> list[Tensor]:
        """The same maps, entry for entry, as the published code imagines them.

        Every pass predicts all frames from the two before them as the last pass has them (the first two stay true), so
        what is k + 1 steps ahead comes from two maps that are both k steps ahead, where `futures` feeds a prediction
        back as soon as it has it. Nothing is known of later frames in either.
        """
        before, found = z, []
        for k in range(steps):
            pairs = before[:, :-2], before[:, 1:-1]
            after = self.predictor(*(x.flatten(0, 1) for x in pairs)).unflatten(0, pairs[0].shape[:2])
            found.append(after[:, k:])
            before = torch.cat([z[:, :CONTEXT], after], 1)
        return found

    def seen_again(self, future: Tensor) -> Tensor:
        """Imagined maps (B, n, D, 8, 8) as the encoder would see them: what was learned on pixels is drawn and encoded
        again, since nothing asks its imagined maps to be encodings; of the latent objective, as they are."""
        if self.decoder is None:
            return future
        return self.encode(self.decoder(future.flatten(0, 1)).sigmoid().unflatten(0, future.shape[:2]))

    def losses(self, clips: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.encode(clips)
        futures = self.futures(z, min(self.steps, clips.shape[1] - CONTEXT), self.starts)
        if self.decoder is not None:
            seen = F.binary_cross_entropy_with_logits(self.decoder(z.flatten(0, 1)), clips.flatten(0, 1))
            told = [self.drawn(f, clips, k) for k, f in enumerate(futures)]
            predict = torch.stack(told).mean()
            return seen + predict, {"predict": predict.detach(), "reconstruct": seen.detach()}
        predict = torch.stack([mse(f, z[:, CONTEXT + k :][:, : f.shape[1]]) for k, f in enumerate(futures)]).mean()
        # Each cell's own mean over the batch goes first: where a cell lies can be read off the padding and never
        # changes, so a code of that would satisfy both terms for ever.
        cells = (z - z.mean((0, 1))).movedim(2, -1).flatten(0, -2)  # (B T 64, D)
        spread, apart = variance(cells), covariance(cells)
        terms = {"predict": predict.detach(), "variance": spread.detach(), "covariance": apart.detach()}
        return predict + self.std * spread + self.cov * apart, terms

    def drawn(self, future: Tensor, clips: Tensor, k: int) -> Tensor:
        assert self.decoder is not None
        true = clips[:, CONTEXT + k :][:, : future.shape[1]]
        return F.binary_cross_entropy_with_logits(self.decoder(future.flatten(0, 1)), true.flatten(0, 1))


Draw = Callable[[int], Tensor]  # step -> clips (B, T, 1, 64, 64) in 0..1, a function of the step alone


def train(model: Rollout, draw: Draw, *, minutes: float, lr: float, file: Path, device: str, seed: int) -> dict:
    """Train until `minutes` of processor time (wall time on a GPU) are used; goes on from `file` where it exists.

    AdamW, five per cent of the budget warm-up, then a cosine to zero: the rate is a function of the time used.
    """
    clock = time.process_time if device == "cpu" else time.monotonic
    rates = OptimConfig(lr=lr, weight_decay=1e-4, warmup=0.05)
    solver = make_optimizer(model, rates)
    done = {"step": 0, "minutes": 0.0, "curve": []}
    if file.exists():
        kept = torch.load(file, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        solver.load_state_dict(kept["solver"])
        done = kept["done"]
    model.train()
    begin, saved = clock() - 60 * done["minutes"], clock()
    step = done["step"]
    while (used := (clock() - begin) / 60) < minutes:
        set_rates(solver, rates, int(10_000 * used / minutes), 10_000)
        loss, terms = model.losses(draw(step).to(device))
        solver.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        solver.step()
        step += 1
        if step % 50 == 0 or step == 1:
            row = {"step": step, "minutes": round(used, 3), "loss": float(loss.detach())}
            done["curve"].append(row | {k: float(v) for k, v in terms.items()})
            print("   ", {k: round(v, 4) for k, v in done["curve"][-1].items()}, flush=True)
        if clock() - saved > 120:
            keep(file, model, solver, done | {"step": step, "minutes": (clock() - begin) / 60})
            saved = clock()
    done |= {"step": step, "minutes": (clock() - begin) / 60}
    keep(file, model, solver, done)
    model.eval()
    return done


def keep(file: Path, model: nn.Module, solver: torch.optim.Optimizer, done: dict) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    torch.save({"model": model.state_dict(), "solver": solver.state_dict(), "done": done}, part)
    part.replace(file)

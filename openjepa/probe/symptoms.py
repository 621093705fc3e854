"""The rules behind the verdict: what each disease looks like in the rows of metrics.jsonl, and what to change.

Each rule is a function of the facts, each limit stands in one table with its reason. A rule must hold at two looks in a
row before it speaks: one odd look is no disease.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Literal, NamedTuple

Name = Literal[
    "healthy",
    "collapsing",
    "collapsed",
    "dimensionally collapsed",
    "diverging",
    "learning shortcuts",
    "too early to say",
]
Row = Mapping[str, Any]
START = "start/"  # prefix under which an observer reports what it measured before the first step


class Limit(NamedTuple):
    value: float
    why: str


LIMITS: dict[str, Limit] = {
    "looks": Limit(4, "with fewer looks than this only a loss that is not a number says anything"),
    "input": Limit(0.02, "standard deviation of normalised pictures; about 1 by construction, 0 when all are alike"),
    "noise": Limit(0.1, "correlation of neighbouring pixels; above 0.4 in pictures of things, 0 in noise"),
    "collapsed": Limit(0.25, "spread against the random start; healthy runs stay above 0.3, and most rise above 1"),
    "collapsing": Limit(0.5, "spread against the random start, while it is still falling"),
    "no_spread": Limit(1e-3, "spread at which float16 features of different pictures are the same numbers"),
    "projected": Limit(0.1, "standard deviation of projected features, which SIGReg draws to 1"),
    "projecting": Limit(0.4, "the same, while it is still falling"),
    "falling": Limit(0.98, "a look against the one before: below this it still falls"),
    "rising": Limit(1.1, "a look against the one before: above this it is still on its way up"),
    "rank": Limit(0.3, "rank above the noise floor against the start; healthy runs stay above 0.5"),
    "projected_rank": Limit(2.0, "rank of the projected features: one direction; healthy runs stay above 5"),
    "weights": Limit(1.5, "size of the weights against the start; a few hundred healthy steps change it by 5 %"),
    "step": Limit(0.1, "learning rate over size of the weights: AdamW then rewrites a weight in ten steps"),
    "weights_alone": Limit(8.0, "the same without knowing the rate: more than long healthy training does"),
    "loss": Limit(2.0, "loss against its lowest, both smoothed, while the features gain nothing"),
    "border": Limit(
        0.7, "share of the features owed to the outer frame; 0.38 for an average of all pixels, up to 0.5 seen"
    ),
    "trivial": Limit(0.9, "variance that colour and contrast explain; no alarm, since a random encoder is there too"),
    "unlearnt": Limit(0.95, "the same against the start: an encoder that turns away from the frame is on its way"),
}


class Facts:
    """The rows, read for the rules: the looks, what a number was at the start, and what it is at the last two looks."""

    def __init__(self, history: Sequence[Row]) -> None:
        self.rows = [row for row in history if "step" in row]
        self.looks = with_start([row for row in self.rows if "health/spread" in row])
        self.last = self.looks[-1] if self.looks else {}

    def start(self, key: str) -> float:
        """`key` at the first look that has it, nan without one."""
        return next((float(row[key]) for row in self.looks if key in row), math.nan)

    def now(self, key: str) -> float:
        """`key` at the last look."""
        return float(self.last.get(key, math.nan))

    def high(self, key: str) -> float:
        """The lesser of the last two looks: what `key` was at least, twice in a row."""
        return min(self.pair(key), default=math.nan)

    def low(self, key: str) -> float:
        """The greater of the last two looks: what `key` was at most, twice in a row."""
        return max(self.pair(key), default=math.nan)

    def pair(self, key: str) -> list[float]:
        values = [float(row.get(key, math.nan)) for row in self.looks[-2:]]
        return values if len(values) == 2 and not any(math.isnan(v) for v in values) else [math.nan]

    def change(self, key: str) -> float:
        """The greater of the last two looks over the start: what `key` fell to, twice in a row."""
        return self.low(key) / self.start(key) if self.start(key) > 0 else math.nan

    def falling(self, key: str) -> bool:
        """Each of the last three looks below the one before."""
        values = [float(row.get(key, math.nan)) for row in self.looks[-3:]]
        return len(values) == 3 and all(b < LIMITS["falling"].value * a for a, b in pairwise(values))

    def rising(self, key: str) -> bool:
        """The last look clearly above the one before."""
        values = self.pair(key)
        return len(values) == 2 and values[1] > LIMITS["rising"].value * values[0]

    def losses(self) -> list[float]:
        """The loss, median of five rows: one odd batch is no news."""
        values = [float(row["loss"]) for row in self.rows if "loss" in row]
        return [median(values[max(0, i - 4) : i + 1]) for i in range(len(values))]


def with_start(looks: Sequence[Row]) -> list[Row]:
    """The looks, with a row for step 0 in front when the first of them carries what was measured before training."""
    if not looks or looks[0]["step"] == 0:
        return list(looks)
    start = {key.removeprefix(START): value for key, value in looks[0].items() if key.startswith(START)}
    return [{"step": 0, **start}, *looks] if start else list(looks)


Finding = tuple[list[str], list[str]]  # evidence, advice
Rule = Callable[[Facts], Finding | None]


def _limit(name: str) -> float:
    return LIMITS[name].value


def not_a_number(f: Facts) -> Finding | None:
    bad = [row for row in f.rows if not all(math.isfinite(row.get(k, 0.0)) for k in ("loss", "health/std"))]
    if not bad:
        return None
    return [f"The loss or the features are not finite at step {bad[0]['step']}."], [*SLOWER, FULL_PRECISION]


def rewritten(f: Facts) -> Finding | None:
    growth = f.high("health/weight_rms") / f.start("health/weight_rms")
    rate = max((row.get("lr", 0.0) for row in f.rows), default=0.0)
    share = rate / f.start("health/weight_rms")
    fast = growth > _limit("weights") and share > _limit("step")
    if not fast and not growth > _limit("weights_alone"):
        return None
    evidence = [f"The weights of the encoder are {growth:.1f} times as large as at the start."]
    if fast:
        evidence.append(f"At a rate of {rate:.2g} a step changes a weight by {share:.0%} of its usual size.")
    return evidence, SLOWER


def rising(f: Facts) -> Finding | None:
    losses = f.losses()
    if len(losses) < 10:
        return None
    lowest, late = min(losses), min(losses[-3:])
    gains = f.now("health/spread") > 1.1 * f.start("health/spread")
    if gains or not (late > _limit("loss") * lowest and late > losses[0]):
        return None
    evidence = [f"The loss is {late:.3g}: it was {losses[0]:.3g} at the start and {lowest:.3g} at its lowest."]
    return evidence, SLOWER


def collapsed(f: Facts) -> Finding | None:
    evidence = []
    if f.low("health/spread") < _limit("no_spread") or f.change("health/spread") < _limit("collapsed"):
        evidence.append(
            _fell(f, "health/spread", "Spread of the features", "all pictures look the same to the encoder")
        )
    if f.low("health/projected_std") < _limit("projected") and not f.rising("health/projected_std"):
        evidence.append(_projected(f, "and it does not grow"))
    return ([*evidence, *_supporting(f)], _against_collapse(f)) if evidence else None


def collapsing(f: Facts) -> Finding | None:
    evidence = []
    if f.change("health/spread") < _limit("collapsing") and f.falling("health/spread"):
        evidence.append(_fell(f, "health/spread", "Spread of the features", "and it is still falling"))
    if f.low("health/projected_std") < _limit("projecting") and f.falling("health/projected_std"):
        evidence.append(_projected(f, "and it is falling"))
    return ([*evidence, *_supporting(f)], _against_collapse(f)) if evidence else None


def few_directions(f: Facts) -> Finding | None:
    projected = f.low("health/projected_rank") < _limit("projected_rank")
    if not projected and not f.change("health/rank") < _limit("rank"):
        return None
    evidence = [
        f"The features use {f.now('health/rank'):.1f} directions, {f.start('health/rank'):.1f} at the random start.",
        f"Their spread is {f.now('health/spread'):.2f}, so this is not a collapse to a point.",
    ]
    if projected:
        evidence.append(f"The projected features use {f.now('health/projected_rank'):.1f}.")
    top = f.now("health/top_share")
    return [*evidence, f"The first direction carries {top:.0%} of the variance."], _against_few(f)


def at_the_border(f: Facts) -> Finding | None:
    share, start = f.high("health/border_share"), f.start("health/border_share")
    if not (share > _limit("border") and share > _limit("unlearnt") * start):
        return None
    evidence = [
        f"With the frame of another picture around it, a picture gets {share:.0%} of the other's features "
        f"({start:.0%} at the random start): the encoder looks at the border.",
    ]
    return evidence, [
        "Look at the pictures: a frame, a time stamp or a watermark says which picture it is. Crop it away.",
        "Draw smaller crops (`method.global_views.scale` or `method.crop.scale`): the border is then rarely in view.",
    ]


def from_noise(f: Facts) -> Finding | None:
    correlation = f.low("health/input_correlation")
    if not correlation < _limit("noise"):
        return None
    evidence = [
        f"Neighbouring pixels hardly go together (correlation {correlation:.2f}): the pictures are noise.",
        "A crop of noise can be told from other noise, so the loss falls, and nothing is learnt.",
    ]
    return evidence, ["Look at the pictures with `openjepa data check`: their content does not reach the model."]


SLOWER = [
    "Lower `optim.lr` to a third; a tenth if the alarm came within the warm-up.",
    "Lengthen `optim.warmup`, and set `optim.clip=1`.",
]
FULL_PRECISION = "Try `precision=fp32` once, to see whether half precision is the cause."


def _fell(f: Facts, key: str, name: str, meaning: str) -> str:
    return f"{name} is {f.now(key):.2g}, {f.start(key):.2g} at the random start: {meaning}."


def _projected(f: Facts, meaning: str) -> str:
    std = f.now("health/projected_std")
    return f"Standard deviation of the projected features is {std:.2g}, {meaning}: it should be 1."


def _supporting(f: Facts) -> list[str]:
    """What else the rows say about a collapse."""
    out = []
    if f.now("health/input_std") < _limit("input"):
        out.append(f"The pictures themselves hardly differ (standard deviation {f.now('health/input_std'):.2g}).")
    losses = f.losses()
    if len(losses) > 5 and 0 < losses[-1] < 0.5 * losses[0]:
        out.append(f"The loss fell by {1 - losses[-1] / losses[0]:.0%} all the same: a constant is easy to predict.")
    if f.now("health/knn") < f.start("health/knn"):
        out.append(f"kNN accuracy is {f.now('health/knn'):.0%}, {f.start('health/knn'):.0%} at the random start.")
    return out


def _against_collapse(f: Facts) -> list[str]:
    if f.now("health/input_std") < _limit("input"):
        return ["Check the data with `openjepa data check`: the pictures are all alike."]
    if "health/windows" in f.last:
        return [
            "Raise the weight of what keeps the features apart (variance, covariance or SIGReg; `openjepa train METHOD "
            "--help` names it), or slow the teacher.",
            "Lower `optim.lr` to a third, and lengthen `optim.warmup`.",
        ]
    if "health/sigreg" in f.last:
        return ["Raise `method.lam`: SIGReg is what keeps the features apart.", "Lower `optim.lr` to a third."]
    return [
        "Raise `method.ema`, to [0.996, 1.0] for example: a teacher that follows at once collapses with the encoder.",
        "Lower `optim.lr` to a third, and lengthen `optim.warmup`.",
        "Or set `method.sigreg` above 0, to 0.01 for example: it keeps the pooled context apart.",
    ]


def _against_few(f: Facts) -> list[str]:
    if "health/windows" in f.last:
        return [
            "Raise the weight of what spreads the features over directions (covariance or SIGReg).",
            "Or there is no more to see: a state of P variables lies on P dimensions, whatever the width of z.",
        ]
    if "health/sigreg" in f.last:
        return [
            "Raise `method.lam`, and `batch_size` if it is below 64: few pictures make few directions.",
            "Widen the projector (`method.projector_hidden`).",
        ]
    return ["Raise `method.ema` and lower `optim.lr`.", "Raise `batch_size` if it is below 64."]


RULES: tuple[tuple[Name, Rule], ...] = (  # the gravest first
    ("diverging", not_a_number),
    ("diverging", rewritten),
    ("learning shortcuts", from_noise),  # before the collapse that it may end in: this names the cause
    ("collapsed", collapsed),
    ("collapsing", collapsing),
    ("learning shortcuts", at_the_border),
    ("dimensionally collapsed", few_directions),
    ("diverging", rising),
)

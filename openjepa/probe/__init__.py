"""Looking: what frozen features are worth, and whether a run is healthy. `PROBES` is the table of probes.

Every probe is called the same way, `PROBES[name](train, test, seed=0)`, and gives a `ProbeResult`.
"""

from __future__ import annotations

from collections.abc import Callable

from openjepa.probe.attentive import attentive, attentive_deep
from openjepa.probe.baselines import pixels, settle, untrained
from openjepa.probe.features import Features, Labelled, features
from openjepa.probe.fewshot import fewshot
from openjepa.probe.finetune import finetune
from openjepa.probe.intervals import Interval, bootstrap, paired, t_interval, wilson
from openjepa.probe.knn import knn
from openjepa.probe.linear import linear
from openjepa.probe.online import OnlineProbe
from openjepa.probe.regress import RegressResult, regress
from openjepa.probe.result import ProbeResult

PROBES: dict[str, Callable[..., ProbeResult]] = {
    "linear": linear,
    "knn": knn,
    "fewshot": fewshot,
    "attentive": attentive,
    "attentive_deep": attentive_deep,
    "finetune": finetune,
}

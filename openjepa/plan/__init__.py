"""Acting: planners as functions of a cost, and an evaluation that can be believed. `PLANNERS` is the table of planners.

To add one: a file with a config and a function, and one line in `PLANNERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from openjepa.config import Config, nearest, parse
from openjepa.plan.base import Bounds, Cost, Plan, SearchConfig, pick, shift
from openjepa.plan.candidates import Structured
from openjepa.plan.categorical import CategoricalConfig, categorical
from openjepa.plan.cem import CEMConfig, cem
from openjepa.plan.gradient import GradientConfig, gradient
from openjepa.plan.icem import ICEMConfig, icem
from openjepa.plan.mixed import MixedConfig, mixed
from openjepa.plan.mppi import MPPIConfig, mppi
from openjepa.plan.shooting import ShootingConfig, shooting


class Planner(NamedTuple):
    """`plan(cost, bounds, cfg, generator, *, init=None, batch=None) -> Plan`, and the class of its `cfg`."""

    plan: Callable[..., Plan]
    config: type[Config]


PLANNERS: dict[str, Planner] = {
    "shooting": Planner(shooting, ShootingConfig),
    "cem": Planner(cem, CEMConfig),
    "icem": Planner(icem, ICEMConfig),
    "mppi": Planner(mppi, MPPIConfig),
    "gradient": Planner(gradient, GradientConfig),
    "mixed": Planner(mixed, MixedConfig),
    "categorical": Planner(categorical, CategoricalConfig),
}

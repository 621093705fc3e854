"""Acting: planners as functions of a cost, and an evaluation that can be believed. `PLANNERS` is the table of planners.

To add one: a file with a config and a function, and one line in `PLANNERS`. The planners are here at once; the names in
`_HOMES` (costs, agents, receding horizon, protocols) are looked up when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from openjepa.config import Config
from openjepa.lazy import lookup
from openjepa.plan.base import Bounds, Cost, Plan, SearchConfig, pick, shift
from openjepa.plan.candidates import Structured
from openjepa.plan.categorical import CategoricalConfig, categorical
from openjepa.plan.cem import CEMConfig, cem
from openjepa.plan.gradient import GradientConfig, gradient
from openjepa.plan.icem import ICEMConfig, icem
from openjepa.plan.mixed import MixedConfig, mixed
from openjepa.plan.mppi import MPPIConfig, mppi
from openjepa.plan.shooting import ShootingConfig, shooting

if TYPE_CHECKING:
    from openjepa.plan.agent import LatentAgent, Scales, SimulatorAgent
    from openjepa.plan.cost import CostConfig, Disagreement, Effort, LatentGoal, Learned, ModelCost, StateGoal
    from openjepa.plan.evaluate import Result, tune
    from openjepa.plan.film import save_film
    from openjepa.plan.protocol import Manifest, Protocol, draw_pairs, load_protocol, planner_config, protocols
    from openjepa.plan.receding import MPC, Drive, drive
    from openjepa.plan.simulator import Simulator, WorldGoal
    from openjepa.plan.whole import run_protocol


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

_HOMES = {
    **dict.fromkeys(("LatentAgent", "Scales", "SimulatorAgent"), "agent"),
    **dict.fromkeys(
        ("CostConfig", "Disagreement", "Effort", "LatentGoal", "Learned", "ModelCost", "StateGoal"), "cost"
    ),
    **dict.fromkeys(("Result", "tune"), "evaluate"),
    "save_film": "film",
    **dict.fromkeys(("Manifest", "Protocol", "draw_pairs", "load_protocol", "planner_config", "protocols"), "protocol"),
    **dict.fromkeys(("MPC", "Drive", "drive"), "receding"),
    **dict.fromkeys(("Simulator", "WorldGoal"), "simulator"),
    "run_protocol": "whole",
}

__getattr__ = lookup(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})

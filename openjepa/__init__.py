"""Joint-embedding predictive architectures: train them, see whether they are healthy, measure what they are worth.

    import openjepa

    run = openjepa.train("lejepa", data="photos/", out="runs/a")
    run.probe(data="labelled/")
    z = run.embed("photos/")

The public names are below. Each is fetched from its room when it is first used, so `import openjepa` and
`openjepa --help` take no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from openjepa.lazy import lookup

if TYPE_CHECKING:
    from openjepa.app.agent import JEPAAgent as JEPAAgent
    from openjepa.app.agent import JEPAConfig as JEPAConfig
    from openjepa.app.runs import Run as Run
    from openjepa.app.verbs import collect as collect
    from openjepa.app.verbs import compare as compare
    from openjepa.app.verbs import data_check as data_check
    from openjepa.app.verbs import demo as demo
    from openjepa.app.verbs import embed as embed
    from openjepa.app.verbs import export as export
    from openjepa.app.verbs import info as info
    from openjepa.app.verbs import list_names as list
    from openjepa.app.verbs import look as look
    from openjepa.app.verbs import plan as plan
    from openjepa.app.verbs import probe as probe
    from openjepa.app.verbs import train as train
    from openjepa.config import Config as Config
    from openjepa.config import View as View
    from openjepa.data.config import DataConfig as DataConfig
    from openjepa.data.episodes.config import EpisodeConfig as EpisodeConfig
    from openjepa.interop import load as load
    from openjepa.methods import METHODS as METHODS
    from openjepa.methods import Method as Method
    from openjepa.nn import ENCODERS as ENCODERS
    from openjepa.nn import EncoderConfig as EncoderConfig
    from openjepa.presets import PRESETS as PRESETS
    from openjepa.train.run import RunConfig as RunConfig

__version__ = "0.1.0"

_HOMES = {  # public name -> where it lives
    "train": "openjepa.app.verbs:train",
    "probe": "openjepa.app.verbs:probe",
    "embed": "openjepa.app.verbs:embed",
    "look": "openjepa.app.verbs:look",
    "compare": "openjepa.app.verbs:compare",
    "export": "openjepa.app.verbs:export",
    "collect": "openjepa.app.verbs:collect",
    "plan": "openjepa.app.verbs:plan",
    "data_check": "openjepa.app.verbs:data_check",
    "list": "openjepa.app.verbs:list_names",
    "info": "openjepa.app.verbs:info",
    "demo": "openjepa.app.verbs:demo",
    "Run": "openjepa.app.runs:Run",
    "load": "openjepa.interop:load",
    "Config": "openjepa.config:Config",
    "View": "openjepa.config:View",
    "RunConfig": "openjepa.train.run:RunConfig",
    "DataConfig": "openjepa.data.config:DataConfig",
    "EpisodeConfig": "openjepa.data.episodes.config:EpisodeConfig",
    "EncoderConfig": "openjepa.nn:EncoderConfig",
    "Method": "openjepa.methods:Method",
    "METHODS": "openjepa.methods:METHODS",
    "ENCODERS": "openjepa.nn:ENCODERS",
    "PRESETS": "openjepa.presets:PRESETS",
    "JEPAAgent": "openjepa.app.agent:JEPAAgent",
    "JEPAConfig": "openjepa.app.agent:JEPAConfig",
}
__all__ = ["__version__", *_HOMES]


_fetch = __getattr__ = lookup(__name__, _HOMES)


def __dir__() -> Iterable[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """A package that shares its name with a verb: `openjepa.train` is the room, `openjepa.train(...)` the verb."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _fetch(self.__name__.rpartition(".")[2])(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(_fetch(self.__name__.rpartition(".")[2]))


class _House(ModuleType):
    """This package. Python hangs every room into it on import; rooms that share a name with a verb become callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and type(value) is ModuleType:
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _House

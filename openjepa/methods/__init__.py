"""Objectives, one file each. To add one: a file with a config and a class, and one line in `METHODS`."""

from openjepa.methods.base import Method, total
from openjepa.methods.dino_wm import DinoWM, DinoWMConfig
from openjepa.methods.future import Future, FutureConfig
from openjepa.methods.ijepa import IJEPA, IJEPAConfig
from openjepa.methods.lejepa import LeJEPA, LeJEPAConfig
from openjepa.methods.lewm import LeWM, LeWMConfig
from openjepa.methods.masked import MaskedConfig, MaskedJEPA
from openjepa.methods.pldm import PLDM, PLDMConfig
from openjepa.methods.state import StateConfig, StateJEPA
from openjepa.methods.vjepa import VJEPA, VJEPAConfig
from openjepa.methods.vjepa2_ac import VJEPA2AC, VJEPA2ACConfig
from openjepa.methods.vjepa21 import VJEPA21, VJEPA21Config

METHODS: dict[str, type[Method]] = {
    "dino_wm": DinoWM,
    "future": Future,
    "ijepa": IJEPA,
    "lejepa": LeJEPA,
    "lewm": LeWM,
    "masked": MaskedJEPA,
    "pldm": PLDM,
    "state": StateJEPA,
    "vjepa": VJEPA,
    "vjepa21": VJEPA21,
    "vjepa2_ac": VJEPA2AC,
}

"""Objectives, one file each. To add one: a file with a config and a class, and one line in `METHODS`."""

from openjepa.methods.base import Method, total
from openjepa.methods.dino_wm import DinoWM, DinoWMConfig
from openjepa.methods.ijepa import IJEPA, IJEPAConfig
from openjepa.methods.lejepa import LeJEPA, LeJEPAConfig
from openjepa.methods.lewm import LeWM, LeWMConfig
from openjepa.methods.masked import MaskedConfig, MaskedJEPA
from openjepa.methods.pldm import PLDM, PLDMConfig
from openjepa.methods.state import StateConfig, StateJEPA
from openjepa.methods.vjepa2_ac import VJEPA2AC, VJEPA2ACConfig

METHODS: dict[str, type[Method]] = {
    "dino_wm": DinoWM,
    "ijepa": IJEPA,
    "lejepa": LeJEPA,
    "lewm": LeWM,
    "masked": MaskedJEPA,
    "pldm": PLDM,
    "state": StateJEPA,
    "vjepa2_ac": VJEPA2AC,
}

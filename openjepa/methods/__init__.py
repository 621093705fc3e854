"""Objectives, one file each. To add one: a file with a config and a class, and one line in `METHODS`."""

from openjepa.methods.base import Method, total
from openjepa.methods.ijepa import IJEPA, IJEPAConfig
from openjepa.methods.lejepa import LeJEPA, LeJEPAConfig
from openjepa.methods.masked import MaskedConfig, MaskedJEPA
from openjepa.methods.pldm import PLDM, PLDMConfig
from openjepa.methods.state import StateConfig, StateJEPA

METHODS: dict[str, type[Method]] = {
    "ijepa": IJEPA,
    "lejepa": LeJEPA,
    "masked": MaskedJEPA,
    "pldm": PLDM,
    "state": StateJEPA,
}

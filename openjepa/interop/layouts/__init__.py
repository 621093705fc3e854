"""Other people's checkpoints, opened by content. `LAYOUTS` is the table of families; add one with one line here."""

from __future__ import annotations

from openjepa.interop.layouts import (
    classifiers,
    hf_ijepa,
    hf_vjepa2,
    ijepa,
    lewm,
    vjepa,
    vjepa2,
    vjepa2_ac,
    vjepa21,
)
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        ijepa.LAYOUT,
        vjepa.LAYOUT,
        vjepa2.LAYOUT,
        vjepa21.LAYOUT,
        vjepa2_ac.LAYOUT,
        classifiers.V1,
        classifiers.V2,
        hf_ijepa.LAYOUT,
        hf_vjepa2.LAYOUT,
        lewm.LAYOUT,
    )
}

"""Tables of positions from other sizes: found by comparing, interpolated, everything else untouched."""

from __future__ import annotations

import pytest
import torch

from openjepa.nn import build_clip_encoder, build_encoder
from openjepa.nn.position import resize
from openjepa.nn.position3d import resize_3d
from openjepa.nn.refit import grid_of, refit


def encoder(size: int, frames: int, **changes: object) -> torch.nn.Module:
    return build_clip_encoder({"name": "vit_micro/4", "depth": 1, **changes}, size=size, frames=frames)


@pytest.mark.parametrize(("size", "frames"), [(16, 4), (24, 8), (8, 32), (32, 2)])
def test_clips(size: int, frames: int) -> None:
    """8 x 32 and 32 x 2 both have 64 tokens: the table itself tells which grid it is of."""
    old, new = encoder(size, frames), encoder(16, 16)
    found = refit(old.state_dict(), new)
    new.load_state_dict(found, strict=True)
    assert grid_of(old.pos_embed, clips=True) == old.grid
    assert torch.equal(new.pos_embed, resize_3d(old.pos_embed, old.grid, new.grid))
    assert all(torch.equal(found[k], v) for k, v in old.state_dict().items() if k != "pos_embed")


def test_pictures_and_rotary_positions() -> None:
    old, new = (build_encoder("vit_micro/4", size=size) for size in (16, 24))
    found = refit(old.state_dict(), new)
    assert torch.equal(found["pos_embed"], resize(old.pos_embed, (4, 4), (6, 6)))
    turned = encoder(16, 4, pos="rope")
    assert refit(turned.state_dict(), encoder(24, 8, pos="rope")).keys() == turned.state_dict().keys()


def test_what_is_no_such_table_stays_and_is_refused_later() -> None:
    old, new = encoder(16, 4), encoder(16, 16)
    state = old.state_dict() | {"pos_embed": torch.randn(old.pos_embed.shape)}
    assert refit(state, new)["pos_embed"] is state["pos_embed"]
    with pytest.raises(RuntimeError, match="size mismatch"):
        new.load_state_dict(refit(state, new), strict=True)

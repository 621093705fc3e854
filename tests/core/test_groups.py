"""Which variables are what, and which of them a mask hides how often."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.groups import feature_mask, mask_table, parse_groups
from openjepa.core.types import Clock


@pytest.mark.parametrize(
    ("names", "positions", "velocities"),
    [
        ("x y vx vy", "x y", "vx vy"),
        ("x1 y1 vx1 vy1 x2 y2 vx2 vy2", "x1 y1 x2 y2", "vx1 vy1 vx2 vy2"),
        ("ball_x ball_y ball_vx ball_vy", "ball_x ball_y", "ball_vx ball_vy"),
        ("cos_theta sin_theta theta_dot", "cos_theta sin_theta", "theta_dot"),
        ("cos sin omega", "cos sin", "omega"),
        ("angle angular_velocity", "angle", "angular_velocity"),
        ("cart_position cart_velocity pole_angle pole_angular_velocity", "cart_position pole_angle",
         "cart_velocity pole_angular_velocity"),
        ("q1 q2 dq1 dq2", "q1 q2", "dq1 dq2"),
        ("x v", "x", "v"),
        ("dot_x dot_y wall_x door_y", "dot_x dot_y wall_x door_y", ""),
        ("Position Velocity", "Position", "Velocity"),
        ("mass temperature energy variance", "", ""),
    ],
)  # fmt: skip
def test_names(names: str, positions: str, velocities: str) -> None:
    found = parse_groups(names.split())
    wanted = {"positions": positions.split(), "velocities": velocities.split()}
    assert {g: [names.split()[i] for i in found.get(g, ())] for g in wanted} == wanted


def test_table() -> None:
    groups = {"positions": (0, 1), "velocities": (2, 3)}
    table = mask_table(("positions", "velocities", "two", "one", "all"), 4, groups)
    assert table.number.tolist() == [1, 1, 6, 4, 1] and table.first.tolist() == [0, 1, 2, 8, 12]
    assert table.hidden.sum(1).tolist() == [2, 2, *[2] * 6, *[1] * 4, 4]
    assert len({tuple(row.tolist()) for row in table.hidden[2:8]}) == 6


@pytest.mark.parametrize("kinds", [("velocities",), ("speeds",), ()])
def test_unknown_kinds_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="masking must name"):
        mask_table(kinds, 2, {"positions": (0, 1)})


def test_kinds_are_equally_likely_and_so_are_masks_within_one() -> None:
    table = mask_table(("positions", "one"), 4, {"positions": (0, 1)})
    hidden = feature_mask(table, (20000,), clock=Clock(step=5), share=0.5)
    count = hidden.sum(1)
    assert (count == 0).float().mean() == pytest.approx(0.5, abs=0.015)
    assert (count == 2).float().mean() == pytest.approx(0.25, abs=0.015)
    singles = hidden[count == 1].float().mean(0)
    assert torch.allclose(singles, torch.full((4,), 0.25), atol=0.025)
    assert hidden[count == 2][:, :2].all()


def test_masks_depend_on_the_step_and_are_shared_out_over_processes() -> None:
    table = mask_table(("one", "two"), 5, {})
    whole = feature_mask(table, (8, 3), clock=Clock(step=1))
    assert whole.shape == (8, 3, 5)
    assert not torch.equal(whole, feature_mask(table, (8, 3), clock=Clock(step=2)))
    halves = [feature_mask(table, (4, 3), clock=Clock(step=1, rank=r, world=2)) for r in (0, 1)]
    assert torch.equal(torch.cat(halves), whole)
    assert not feature_mask(table, (9,), clock=Clock(), share=0.0).any()

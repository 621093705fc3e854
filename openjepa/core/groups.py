"""Named groups of state variables, and masks that hide them: positions, velocities, pairs, single ones, all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from openjepa.core.types import Clock

_VELOCITY = re.compile(
    r"(?:^|_)v(?:[xyz]?\d*|el\w*)(?:_|$)|vel|speed|omega|momentum|dot\d*$|(?:^|_)rate"
    r"|(?:^|_)d(?:[xyz]|theta|phi|psi|q)|(?:^|_)w[xyz]?\d*(?:_|$)"
)
_POSITION = re.compile(
    r"(?:^|_)[xyz]\d*(?:_|$)|pos|angle|theta|phi|psi|(?:^|_)q[xyz]?\d*(?:_|$)|^(?:cos|sin)|height|distance|radius"
)


def parse_groups(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Which variables are positions and which are velocities, judged by their names; others are in neither group.

    Velocities: vx, vy1, ball_vx, v, dx, dtheta, angular_velocity, speed, omega, w, theta_dot ... Positions: x, y2,
    ball_x, pos, angle, theta, cos, sin, q1 ... Upper and lower case are alike; a group without a member is left out.
    Give the groups in the config where names say something else.

    >>> parse_groups(["x", "y", "vx", "vy", "mass"])
    {'positions': (0, 1), 'velocities': (2, 3)}
    >>> parse_groups(["cos_angle", "sin_angle", "angular_velocity"])
    {'positions': (0, 1), 'velocities': (2,)}
    """
    low = [name.lower() for name in names]
    velocity = tuple(i for i, name in enumerate(low) if _VELOCITY.search(name))
    position = tuple(i for i, name in enumerate(low) if i not in velocity and _POSITION.search(name))
    return {name: found for name, found in (("positions", position), ("velocities", velocity)) if found}


class MaskTable(NamedTuple):
    """All masks that may be drawn, kind after kind."""

    hidden: Tensor  # (M, S) bool, True where a variable is hidden
    first: Tensor  # (kinds,) row of the first mask of a kind
    number: Tensor  # (kinds,) masks of a kind


def mask_table(kinds: Sequence[str], size: int, groups: Mapping[str, Sequence[int]]) -> MaskTable:
    """The masks of each kind, for observations of `size` variables.

    kinds   "one" hides any single variable, "two" any two, "all" every one; other names stand for a group of `groups`

    >>> table = mask_table(["positions", "one"], 3, {"positions": [0, 1]})
    >>> table.hidden.int().tolist(), table.number.tolist()
    ([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [1, 3])
    """
    rows: list[list[tuple[int, ...]]] = []
    for kind in kinds:
        if kind == "one":
            rows.append([(i,) for i in range(size)])
        elif kind == "two":
            rows.append(list(combinations(range(size), 2)))
        elif kind == "all":
            rows.append([tuple(range(size))])
        elif kind in groups:
            rows.append([tuple(groups[kind])])
        else:
            rows.append([])
        if not rows[-1]:
            raise ValueError(
                f"masking must name kinds that {size} variables have (one, two, all, {', '.join(groups) or 'no group'})"
                f", got {kind!r}. Name the variables, or give method.groups."
            )
    if not rows:
        raise ValueError("masking must name at least one kind, got none. Set mask_share=0 to hide nothing.")
    hidden = torch.zeros(sum(map(len, rows)), size, dtype=torch.bool)
    for i, members in enumerate(m for kind_rows in rows for m in kind_rows):
        hidden[i, list(members)] = True
    number = torch.tensor([len(r) for r in rows])
    return MaskTable(hidden, number.cumsum(0) - number, number)


def feature_mask(table: MaskTable, shape: Sequence[int], *, clock: Clock, share: float = 1.0) -> Tensor:
    """Which variables to hide: a share of the observations gets a mask, of a kind drawn first and then within it.

    table    from `mask_table`;  shape  (B, ...) of the observations, the batch first
    share    probability that anything is hidden at all
    returns  (B, ..., S) bool, on the CPU; rows of one draw for the joined batch of all processes

    >>> table = mask_table(["all"], 2, {})
    >>> feature_mask(table, (3,), clock=Clock()).all().item()
    True
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}.")
    hide, kind, which = clock.uniform("features", shape[0], *shape[1:], 3).unbind(-1)  # (B, ...) each
    kinds = (kind * len(table.number)).long()
    row = table.first[kinds] + (which * table.number[kinds]).long()
    return table.hidden[row] & (hide < share)[..., None]

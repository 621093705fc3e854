"""What keys and shapes say of a network: width, depth, MLP, patches, grid; and heads, where a table tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

from torch import Tensor

from openjepa.interop.files import State
from openjepa.interop.layouts.record import Asked, Found
from openjepa.nn.vit import Size

# width -> heads of the published networks; which one a file holds is not in its shapes
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
HEADS_V2 = {**HEADS, 1408: 22, 1664: 26}
LETTERS = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 24): "L",
    (1280, 32): "H",
    (1408, 40): "g",
    (1664, 48): "G",
}
DEPTHS = dict(LETTERS.keys())  # width -> blocks of the published networks


def shape_of(state: State, key: str, axes: int, found: Found) -> tuple[int, ...]:
    """The shape of a tensor that must be there with so many axes."""
    x = state.get(key)
    if not isinstance(x, Tensor) or x.dim() != axes:
        got = "none" if x is None else str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{found.path} must hold {key} with {axes} axes, got {got}. The file is not whole.")
    return tuple(x.shape)


def depth_of(state: State, blocks: str) -> int:
    """One more than the highest number of a block: `blocks` is the text in front of the number.

    >>> depth_of({"blocks.0.norm1.weight": None, "blocks.2.norm1.weight": None}, "blocks.")
    3
    """
    numbers = [int(m[1]) for k in state if (m := re.match(re.escape(blocks) + r"(\d+)\.", k))]
    return 1 + max(numbers, default=-1)


def heads_of(part: str, width: int, table: Mapping[int, int], asked: Asked, found: Found) -> int:
    """Heads as asked, else as published for this width; a `ValueError` where neither tells."""
    heads = asked.heads.get(part) or table.get(width) or (1 if asked.look else None)
    if heads is None:
        known = ", ".join(map(str, table))
        raise ValueError(
            f"heads of the {part} of {found.path} must be given for width {width}, which is none of the published ones "
            f"({known}): shapes do not tell them. Do load(path, heads={{{part!r}: N}})."
        )
    if width % heads:
        raise ValueError(f"heads of the {part} must divide its width {width}, got {heads}. Give another number.")
    return heads


def full_depth(part: str, depth: int, published: int | None, asked: Asked, found: Found) -> None:
    """A published width with fewer blocks than published is a truncated file, unless the user says that it is meant."""
    wanted = asked.depth.get(part, published)
    if wanted is not None and (depth < wanted or (part in asked.depth and depth != wanted)):
        raise ValueError(
            f"{found.path} must hold {wanted} blocks of the {part}, as published for its width, got {depth}. The file "
            f"is not whole; if it was trained so, do load(path, depth={{{part!r}: {depth}}})."
        )


def size_of(state: State, found: Found, asked: Asked, table: Mapping[int, int], axes: int) -> tuple[Size, list[int]]:
    """Width, depth, heads and MLP ratio of a Meta transformer, and the other axes of its patch projection."""
    width, *patch = shape_of(state, "patch_embed.proj.weight", axes, found)
    depth = depth_of(state, "blocks.")
    if depth == 0:
        raise ValueError(f"{found.path} must hold blocks of a transformer, got none. The file is not whole.")
    full_depth("encoder", depth, DEPTHS.get(width), asked, found)
    hidden, _ = shape_of(state, "blocks.0.mlp.fc1.weight", 2, found)
    return Size(width, depth, heads_of("encoder", width, table, asked, found), hidden / width), patch


def square(tokens: int, found: Found, what: str) -> int:
    """The side of a square of tokens."""
    side = isqrt(tokens)
    if tokens <= 0 or side * side != tokens:
        raise ValueError(f"{found.path} must hold {what} for a square of patches, got {tokens} tokens. Give frames=.")
    return side


def words(shape: Size, patch: int) -> str:
    """The published name of a size, else its numbers.

    >>> words(Size(1024, 24, 16), 16), words(Size(48, 2, 4), 8)
    ('ViT-L/16', 'width 48, depth 2, patches of 8')
    """
    letter = LETTERS.get((shape.width, shape.depth))
    if letter:
        return f"ViT-{letter}/{patch}"
    return f"width {shape.width}, depth {shape.depth}, patches of {patch}"


def without(state: State, keys: tuple[str, ...]) -> State:
    return {k: v for k, v in state.items() if k not in keys}


def both_alike(found: Found, one: str, other: str) -> None:
    """Two encoders of one file must have the same tensors in the same shapes."""
    a, b = found.entries[one], found.entries[other]
    odd = sorted(k for k in {*a, *b} if k not in a or k not in b or _shape(a[k]) != _shape(b[k]))
    if odd:
        rest = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise ValueError(
            f"{found.path} must hold {one} and {other} with the same tensors, got a difference in {', '.join(odd[:5])}"
            f"{rest}. The file is not whole, or two files were mixed."
        )


def _shape(x: object) -> tuple[int, ...] | None:
    return tuple(x.shape) if isinstance(x, Tensor) else None


def choose(found: Found, asked: Asked, targets: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """The entry to take, its name ("teacher" or "encoder"), and the other encoder's entry if there is one."""
    target = next((t for t in targets if t in found.entries), None)
    online = next((e for e in ("encoder", "") if e in found.entries), None)
    if asked.weights == "teacher" and target is None:
        raise ValueError(f"{found.path} must hold {' or '.join(targets)}, got none. Use weights='auto'.")
    if asked.weights == "encoder" and online is None:
        raise ValueError(
            f"{found.path} must hold an online encoder, got {', '.join(found.entries)}. Use weights='auto'."
        )
    if target is not None and online is not None:
        both_alike(found, target, online)
    if target is not None and asked.weights != "encoder":
        return target, "teacher", [online] if online is not None else []
    if online is None:
        raise ValueError(f"{found.path} must hold an encoder, got {', '.join(found.entries) or 'no tensors'}.")
    return online, "encoder", [target] if target is not None else []

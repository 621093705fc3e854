"""From what lies in a file to networks that hold it: find the family, account for every tensor, say what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from openjepa.interop.files import State
from openjepa.interop.layouts.reading import read_found
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.told import exported_by_us

SHOWN = 5  # keys of each kind that a message lists
HINTS = (  # what is sometimes taken for one of our families: a pattern of keys or entries -> what to say
    (r".*blocks\.\d+\.ls1\.gamma", "It looks like DINOv2: use the encoder hf/NAME or timm/NAME."),
    (r".*decoder_(embed|blocks|pred).*", "It looks like MAE or VideoMAE: use transformers for it."),
    (r"(vision_model|text_model|visual|logit_scale).*", "It looks like CLIP: use the encoder hf/NAME."),
    (r"layer[1-4]\.\d+\.(conv|bn)\d\..*", "It looks like a ResNet: use the encoder timm/NAME."),
    (r".*(word_embeddings|embed_tokens|lm_head).*", "It looks like a language model."),
    (r"(bert|vit)\..*", "It looks like another model of transformers: use the encoder hf/NAME."),
    (r"(cls_token|head\.weight)", "It looks like a ViT with a class token of timm: use the encoder timm/NAME."),
)


def open_layout(
    path: Path, asked: Asked, layouts: Mapping[str, Layout], family: str | None = None
) -> tuple[Layout, Opened, dict[str, nn.Module]]:
    """The family, what it says of the file, and its networks with the file's weights; or one sentence, `ValueError`.

    With `asked.look` everything is checked alike, but the networks stay without weights: no memory is taken for them.
    """
    found = read_found(path)
    if found.doubled:
        raise ValueError(
            f"{path} must hold every tensor once, got doubled keys: {some(found.doubled)}. Save it unwrapped."
        )
    layout = recognise(found, layouts, family)
    opened = exported_by_us(layout.read(found, asked), found, asked)
    _unused(found, opened, layout)
    built = {name: built_part(part, name, layout, opened, found, asked.look) for name, part in opened.parts.items()}
    return layout, opened, built


def recognise(found: Found, layouts: Mapping[str, Layout], family: str | None) -> Layout:
    """The one family that a file fits, or the one the user names."""
    if family is not None:
        if family not in layouts:
            raise ValueError(f"family must be one of {', '.join(layouts)}, got {family!r}.")
        return layouts[family]
    fitting = [layout for layout in layouts.values() if layout.fits(found)]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        names = " or ".join(repr(layout.name) for layout in fitting)
        raise ValueError(f"{found.path} must be of one family, got one that may be {names}. Name it with family=.")
    if _two_generations(found):
        raise ValueError(
            f"{found.path} must tell V-JEPA from V-JEPA 2, got an encoder with a table of positions and no predictor, "
            "which may be in use (V-JEPA) or stale (V-JEPA 2). Name it with family='V-JEPA' or family='V-JEPA 2'."
        )
    raise ValueError(stranger(found, layouts))


def _two_generations(found: Found) -> bool:
    state = found.main()
    patch = state.get("patch_embed.proj.weight")
    return (
        isinstance(patch, Tensor)
        and patch.dim() == 5
        and "pos_embed" in state
        and "norm.weight" in state
        and ("blocks.0.attn.qkv.weight" in state and not found.has("predictor", "predictor_embed.weight"))
    )


def stranger(found: Found, layouts: Mapping[str, Layout]) -> str:
    """What to say of a file that fits no family: what it is nearest to, what that wants and what is odd."""
    keys = [k for state in found.entries.values() for k in state]
    what = (
        f"{len(keys)} tensors such as {some(keys, 3)}" if keys else f"no tensors but {some(found.plain) or 'nothing'}"
    )
    kind = found.config.get("model_type") or found.config.get("_target_")
    what = f"a {kind!r} model of transformers with {what}" if "model_type" in found.config else what
    near = nearest_layout(found, layouts)
    text = f"{found.path} must be a checkpoint of a known family, got {what}."
    if near is not None:
        layout, share = near
        lost = [
            k for k in layout.needs if not any(key.removeprefix("vjepa2.").removeprefix("ijepa.") == k for key in keys)
        ]
        odd = [k for k in keys if not any(re.fullmatch(p, k) for p in layout.keys)]
        text += f" The nearest is {layout.name} ({share:.0%} of the keys)"
        text += f"; missing: {some(lost)}" if lost else ""
        text += f"; extra: {some(odd)}" if odd else ""
        text += "" if lost or odd else f"; its shapes are of another network: {_first_shape(found)}"
        text += "."
    hint = next((say for pattern, say in HINTS if any(re.fullmatch(pattern, k) for k in keys)), None)
    hint = hint or (None if near else f"Known families: {', '.join(layouts)}.")
    return f"{text} {hint}" if hint else text


def _first_shape(found: Found) -> str:
    """The first projection's shape, or that of the first tensor, in words."""
    tensors = {k: x for state in found.entries.values() for k, x in state.items() if isinstance(x, Tensor)}
    key = next((k for k in tensors if k.endswith("patch_embed.proj.weight")), next(iter(tensors), ""))
    return f"{key} {tuple(tensors[key].shape)}" if tensors else "no tensors"


def nearest_layout(found: Found, layouts: Mapping[str, Layout]) -> tuple[Layout, float] | None:
    """The family whose patterns match most keys, if they match more than a third."""
    keys = [k for state in found.entries.values() for k in state]
    if not keys:
        return None
    marks = [(layout, sum(any(re.fullmatch(p, k) for p in layout.keys) for k in keys)) for layout in layouts.values()]
    # of equals the one with fewer of its own keys missing
    layout, hits = max(marks, key=lambda m: (m[1], sum(need in keys for need in m[0].needs) / len(m[0].needs)))
    return (layout, hits / len(keys)) if 3 * hits > len(keys) else None


def built_part(part: Part, name: str, layout: Layout, opened: Opened, found: Found, look: bool = False) -> nn.Module:
    """The network of a part with the file's tensors, in float32 and in evaluation mode; with `look` without them."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = part.make()
    own = network.state_dict()
    problems = account(own, part.state, part.names)
    if problems:
        label = f"{name} ({part.entry})" if part.entry not in ("", name) else name
        raise ValueError(
            f"{found.path} must be a whole {layout.name} checkpoint ({opened.size}), got in its {label}: "
            f"{'; '.join(problems)}. The nearest known layout is {layout.name}: the file is damaged, or of another one."
        )
    bad = [part.names(k) for k, x in part.state.items() if not bool(x.isfinite().all())]
    if bad:
        raise ValueError(
            f"{found.path} must hold finite numbers, got nan or inf in {some(bad)}. Copy or download it again."
        )
    if look:
        return network
    state = {k: x.to(own[k].dtype, copy=True).contiguous() for k, x in part.state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def account(own: Mapping[str, Tensor], state: State, names: object = str) -> list[str]:
    """Every tensor of a network against every tensor of a file, in words; empty when they fit.

    >>> account({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3), "c": torch.zeros(1)})
    ['missing: b', 'extra: c', 'other shape: a (3,) for (2,)']
    """
    say = names if callable(names) else str
    tensors = {k: x for k, x in state.items() if isinstance(x, Tensor)}
    kinds = {
        "missing": [say(k) for k in own if k not in state],
        "extra": [say(k) for k in state if k not in own],
        "other shape": [
            f"{say(k)} {tuple(tensors[k].shape)} for {tuple(x.shape)}"
            for k, x in own.items()
            if k in tensors and tensors[k].shape != x.shape
        ],
        "other type": [
            f"{say(k)} {tensors[k].dtype if k in tensors else type(state[k]).__name__}"
            for k, x in own.items()
            if k in state and (k not in tensors or tensors[k].is_floating_point() != x.is_floating_point())
        ],
    }
    return [f"{what}: {some(keys)}" for what, keys in kinds.items() if keys]


def _unused(found: Found, opened: Opened, layout: Layout) -> None:
    """Groups of tensors that nobody asked for: an optimiser is none, another network is."""
    used = {part.entry for part in opened.parts.values()} | set(opened.also)
    left = [e or "loose tensors" for e in found.entries if e not in used]
    if left:
        raise ValueError(
            f"{found.path} must hold the parts of {layout.name}, got {', '.join(left)} beside them, which it does not "
            "have. Save the parts that belong together."
        )


def some(names: Sequence[str], most: int = SHOWN) -> str:
    """At most so many names, then how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

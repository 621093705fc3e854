"""The attentive classifiers of V-JEPA and V-JEPA 2 as Meta's evaluations save them."""

from __future__ import annotations

from openjepa.interop.files import State
from openjepa.interop.layouts.record import Asked, Found, Layout, Opened, Part
from openjepa.interop.layouts.shapes import HEADS, depth_of, heads_of, shape_of
from openjepa.interop.preprocess import ClipPreprocess
from openjepa.nn.attentive import PublishedClassifier

UNUSED = tuple(f"pooler.cross_attention_block.xattn.proj.{kind}" for kind in ("weight", "bias"))
_CROSS = r"pooler\.cross_attention_block\.(norm1|norm2|xattn\.q|xattn\.kv|xattn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_SELF = r"pooler\.blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"


def _entry(found: Found) -> str:
    """The group that holds a classifier: of several trained side by side the first, as published."""
    return next((e for e in ("classifier", "classifiers[0]", "") if found.has(e, "pooler.query_tokens")), "")


def _fits_1(found: Found) -> bool:
    state = found.entries.get(_entry(found), {})
    return "pooler.query_tokens" in state and "linear.weight" in state and depth_of(state, "pooler.blocks.") == 0


def _fits_2(found: Found) -> bool:
    state = found.entries.get(_entry(found), {})
    return "pooler.query_tokens" in state and "linear.weight" in state and depth_of(state, "pooler.blocks.") > 0


def _read_1(found: Found, asked: Asked) -> Opened:
    """Its output projection is in the file but was never applied: the released weights were trained without."""
    return _read(found, asked, HEADS, "an output projection that the published classifier never applies")


def _read_2(found: Found, asked: Asked) -> Opened:
    return _read(found, asked, dict.fromkeys((384, 768, 1024, 1280, 1408, 1664), 16), "not applied")


def _read(found: Found, asked: Asked, heads: dict[int, int], why: str) -> Opened:
    entry = _entry(found)
    state: State = {k: v for k, v in found.group(entry).items() if k not in UNUSED}
    classes, width = shape_of(state, "linear.weight", 2, found)
    count = heads_of("classifier", width, heads, asked, found)
    blocks = depth_of(state, "pooler.blocks.")
    more = [e for e in found.entries if e.startswith("classifiers[") and e != entry]
    notes = (f"{1 + len(more)} classifiers were trained side by side: this is the first",) if more else ()
    ignored = {k: why for k in UNUSED if k in found.entries[entry]}
    make = lambda: PublishedClassifier(width, classes, heads=count, blocks=blocks)  # noqa: E731
    return Opened(
        {"classifier": Part(entry, make, state)},
        ClipPreprocess(size=asked.size or 224),
        f"{classes} classes on {width} features, {count} heads, {blocks} blocks and a query",
        ignored=ignored,
        also=more,
        notes=notes,
    )


_NEEDS = ("pooler.query_tokens", "pooler.cross_attention_block.xattn.kv.weight", "linear.weight")
V1 = Layout(
    name="V-JEPA classifier",
    licence="CC BY-NC 4.0 (non-commercial)",
    source="Bardes et al. 2024, arXiv 2404.08471; github.com/facebookresearch/jepa",
    fits=_fits_1,
    read=_read_1,
    keys=(_CROSS, r"pooler\.query_tokens", r"linear\.(weight|bias)"),
    needs=_NEEDS,
)
V2 = Layout(
    name="V-JEPA 2 classifier",
    licence="MIT",
    source="Assran et al. 2025, arXiv 2506.09985; github.com/facebookresearch/vjepa2",
    fits=_fits_2,
    read=_read_2,
    keys=(_CROSS, _SELF, r"pooler\.query_tokens", r"linear\.(weight|bias)"),
    needs=_NEEDS,
)

"""The pictures of a report: rows of small images inside the page, as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from openjepa.app.sections import missing, section

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from openjepa.app.report import Neighbours


def pictures(
    shown: Tensor | None,
    maps: Tensor | None,
    masks: tuple[Tensor, Tensor] | None,
    views: Sequence[Tensor],
    folder: str,
) -> str:
    """Pictures with their feature maps, masks or views below, one column per picture."""
    if shown is None:
        return section("What it sees", missing("No pictures were given.", f"openjepa look {folder}"))
    out = [_strip("Picture", shown)]
    if maps is not None:
        out.append(_strip("Features: three main components as colour", maps))
    if masks is not None:
        out += [_strip("Context: all the encoder is given", masks[0]), _strip("Targets: blocks to predict", masks[1])]
    for group in views:
        out += [_strip(f"View {i + 1}, {v.shape[-1]} px", v) for i, v in enumerate(group)]
    lead = "Pictures that the features describe alike have the same colour. Objects should stand out from their ground."
    return section("What it sees", f'<p class="lead">{lead}</p>{"".join(out)}')


def neighbours(found: Neighbours | None, folder: str) -> str:
    """Rows of a query and the pictures nearest to it."""
    if found is None:
        return section("Nearest neighbours", missing("No neighbours were given.", f"openjepa look {folder}"))
    rows = []
    for q in range(len(found.queries)):
        own = found.query_labels[q] if found.query_labels else None
        cells = [_picture(found.queries[q], f"query: {own}" if own is not None else "query", "")]
        for j in range(found.found.shape[1]):
            label = found.found_labels[q][j] if found.found_labels else None
            tone = "" if own is None or label is None else "same" if label == own else "other"
            name = f"{label}, " if label is not None else ""
            cells.append(_picture(found.found[q, j], f"{name}{float(found.similarity[q, j]):.2f}", tone))
        rows.append(_cells("", cells))
    lead = "Cosine of frozen features after removing their mean. Labels, where there are any, were not used to train."
    return section("Nearest neighbours", f'<p class="lead">{lead}</p>{"".join(rows)}')


def _strip(label: str, images: Tensor) -> str:
    return _cells(label, [_picture(image, "", "") for image in images])


def strip(label: str, images: np.ndarray, captions: Sequence[str]) -> str:
    """A row of (n, 3, H, W) uint8 pictures, each with its caption."""
    import torch

    shown = zip(images, captions, strict=True)
    return _cells(label, [_picture(torch.from_numpy(image), caption, "") for image, caption in shown])


def _cells(label: str, cells: Sequence[str]) -> str:
    return f'<div class="strip" style="--n:{len(cells)}"><div class="label">{escape(label)}</div>{"".join(cells)}</div>'


def _picture(image: Tensor, caption: str, tone: str) -> str:
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    name = escape(caption or "picture", quote=True)
    return f'<figure class="{tone}"><img alt="{name}" src="{png(image)}">{text}</figure>'


def png(image: Tensor) -> str:
    """A (3, H, W) uint8 picture as a data address. Small pictures are enlarged, whole pixels only."""
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()
    picture = Image.fromarray(array)
    times = max(1, 96 // max(picture.size))
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()

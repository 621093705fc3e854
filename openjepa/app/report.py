"""One run as one HTML file: verdict, curves, pictures, probes, settings. Opens anywhere, asks the network for nothing.

`read_run` gathers what a run folder holds; whoever has the model adds pictures (`dataclasses.replace`), and `report`
writes the page. A part that is missing says so, and names the command that makes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from openjepa.app import gallery, scores, sections, world_report
from openjepa.app.world_report import WorldParts
from openjepa.config import read_yaml
from openjepa.probe.verdict import Verdict, verdict

if TYPE_CHECKING:
    from openjepa.app.clip_looking import ClipParts


@dataclass(frozen=True)
class Neighbours:
    """Query pictures and what lies nearest to them. Names of classes are optional; pictures are uint8 RGB.

    queries (Q, 3, H, W); found (Q, k, 3, H, W); similarity (Q, k); labels: one name per query, k names per row
    """

    queries: Tensor
    found: Tensor
    similarity: Tensor
    query_labels: Sequence[str] | None = None
    found_labels: Sequence[Sequence[str]] | None = None


@dataclass(frozen=True)
class ReportInputs:
    """Everything a page shows. Only `title` and `history` are needed; `verdict=None` is computed from the history.

    title         of the page, such as the name of the run
    history       rows of metrics.jsonl
    config, env   as saved in config.yaml and env.json
    verdict       what `openjepa.probe.verdict.verdict` says of the history
    folder        the run folder, for the commands that the page names
    pictures      (n, 3, H, W) uint8: what the rows below belong to
    feature_maps  (n, 3, H, W) uint8: `openjepa.probe.pictures.pca_maps`
    masks         two (n, 3, H, W) uint8: `openjepa.probe.pictures.mask_overlay` (masked methods)
    views         (V, n, 3, h, w) uint8, one entry per kind of view (methods that compare views)
    neighbours    nearest pictures of some queries
    probes        name of a file in eval/ -> its content
    files         (name, bytes) of the run folder
    clips         films of a run on clips: `openjepa.app.clip_looking.with_clips`
    world         what is known of a world model: `openjepa.app.world_report.read_world`; None for a run on pictures
    beside        other runs to show next to this one: verdicts and the main curves
    """

    title: str
    history: Sequence[Mapping[str, float]]
    config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    folder: str = "RUN"
    pictures: Tensor | None = None
    feature_maps: Tensor | None = None
    masks: tuple[Tensor, Tensor] | None = None
    views: Sequence[Tensor] = ()
    neighbours: Neighbours | None = None
    probes: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[tuple[str, int]] = ()
    clips: ClipParts | None = None
    world: WorldParts | None = None
    beside: Sequence[ReportInputs] = ()

    @property
    def judged(self) -> Verdict:
        return self.verdict or verdict(self.history)


def report(out: str | Path, inputs: ReportInputs) -> Path:
    """Write the page whole, or not at all, and return its path.

    >>> import tempfile
    >>> path = report(Path(tempfile.mkdtemp()) / "r.html", ReportInputs("empty", history=[]))
    >>> "<script" in path.read_text(), "http" in path.read_text()
    (False, False)
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(page(inputs), encoding="utf-8")
    os.replace(part, out)
    return out


def page(inputs: ReportInputs) -> str:
    """The page as text."""
    body = [
        sections.header(inputs.title, inputs.config, inputs.env, inputs.history),
        sections.verdicts([(run.title, run.judged) for run in (inputs, *inputs.beside)]),
        sections.cards(inputs.history),
        sections.beside([(run.title, run.history) for run in (inputs, *inputs.beside)]) if inputs.beside else "",
        sections.learning(inputs.history),
        sections.health(inputs.history),
        sections.spectrum(inputs.history),
        *(worth(inputs) if inputs.world is None else worlds(inputs.world, inputs.folder)),
        sections.settings(inputs.config, inputs.env, inputs.files),
        sections.footer(inputs.env),
    ]
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(inputs.title)}</title><style>{css}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def worth(inputs: ReportInputs) -> tuple[str, ...]:
    """Of a run on pictures or clips: what it sees, and what its features are worth."""
    if inputs.clips is not None:
        from openjepa.app.clip_looking import clips_near, clips_seen

        seen = (clips_seen(inputs.clips, inputs.folder), clips_near(inputs.clips, inputs.folder))
        return (*seen, scores.probes(inputs.probes, inputs.folder))
    return (
        gallery.pictures(inputs.pictures, inputs.feature_maps, inputs.masks, inputs.views, inputs.folder),
        gallery.neighbours(inputs.neighbours, inputs.folder),
        scores.probes(inputs.probes, inputs.folder),
    )


def worlds(parts: WorldParts, folder: str) -> tuple[str, ...]:
    """Of a world model: what it imagines, and what it reaches."""
    return world_report.imagines(parts, folder), world_report.reaches(parts, folder)


def read_run(folder: str | Path) -> ReportInputs:
    """What the files of a run folder give: all but the pictures. Missing files leave their part empty.

    Raises `ValueError` when there is no such folder, or when it holds neither metrics.jsonl nor config.yaml.
    """
    folder = Path(folder)
    if not (folder / "metrics.jsonl").exists() and not (folder / "config.yaml").exists():
        raise ValueError(f"run must be a folder with metrics.jsonl or config.yaml, got {folder}. Check the path.")
    config = read_yaml(folder / "config.yaml") if (folder / "config.yaml").exists() else {}
    env = _json(folder / "env.json") if (folder / "env.json").exists() else {}
    probes = {p.stem: _json(p) for p in sorted((folder / "eval").glob("*.json"))}
    files = [(str(p.relative_to(folder)), p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()]
    history = read_metrics(folder / "metrics.jsonl")
    return ReportInputs(
        folder.resolve().name, history, config, env, folder=str(folder), probes=probes, files=files
    )  # fmt: skip


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl, in order of step; a half-written last line is left out, and a step that was
    repeated after a resume counts once, with its latest row.
    """
    path = Path(path)
    rows: dict[float, dict[str, float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                continue  # the run was killed while writing
            raise ValueError(f"{path} must hold one JSON object per line, line {number} is not one.") from None
        rows[row.get("step", number)] = row
    return [rows[step] for step in sorted(rows)]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise ValueError(f"{path} must be a JSON file, got: {e}.") from None

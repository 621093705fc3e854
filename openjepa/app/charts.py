"""Line charts as inline SVG: numbers in, a string of markup out. No script, no font, no network.

Colours are CSS variables (`--s1` ... `--s6`, `--ink`, `--muted`, `--line`) that the page around the chart defines, so
one chart serves the light and the dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 216
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
COLOURS = 6


@dataclass(frozen=True)
class Series:
    """One line: its name and its points. Points that are not finite (or not positive on a log axis) leave a gap.

    `colour` is 1 ... 6, by default the place in the chart; `dashed` marks a reference, such as a floor.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int | None = None
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis shows. `log` is base ten; `low` and `high` widen the range, they never cut data off."""

    label: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None


def chart(series: Sequence[Series], *, title: str, x: Axis = Axis("step"), y: Axis = Axis()) -> str:
    """A figure with a title, one SVG chart and its legend; an empty string when there is nothing to draw.

    >>> svg = chart([Series("loss", [0, 1, 2], [3.0, 2.0, 1.5])], title="Loss")
    >>> svg.startswith("<figure"), svg.count("<path"), "Loss" in svg
    (True, 1, True)
    >>> chart([Series("loss", [0], [float("nan")])], title="Loss")
    ''
    """
    drawn = [(s, _segments(s, x, y)) for s in series]
    points = [p for _, segments in drawn for segment in segments for p in segment]
    if not points:
        return ""
    xs = _scale([p[0] for p in points], x, LEFT, WIDTH - RIGHT)
    ys = _scale([p[1] for p in points], y, HEIGHT - BOTTOM, TOP)
    body = [_grid(xs, ys, x, y)]
    for i, (s, segments) in enumerate(drawn):
        body.append(_line(s, segments, xs, ys, s.colour or i % COLOURS + 1))
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">{"".join(body)}</svg>'
    )
    legend = _legend(series) if len(series) > 1 else ""
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{svg}{legend}</figure>'


def spark(values: Sequence[float], *, colour: int = 1) -> str:
    """A line without axes, for a card: 120 x 28, or an empty string with fewer than two finite values."""
    pairs = [(float(i), float(v)) for i, v in enumerate(values) if _finite(v)]
    if len(pairs) < 2:
        return ""
    low, high = min(v for _, v in pairs), max(v for _, v in pairs)
    span = high - low or 1.0
    last = pairs[-1][0] or 1.0
    path = " ".join(f"{2 + 116 * i / last:.1f},{25 - 22 * (v - low) / span:.1f}" for i, v in pairs)
    return (
        f'<svg class="spark" viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline points="{path}" vector-effect="non-scaling-stroke" style="stroke:var(--s{colour})"/></svg>'
    )


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside [low, high].

    >>> ticks(0, 10)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def short(value: float) -> str:
    """A number as an axis or a table shows it: few digits, k and M for large ones.

    >>> [short(v) for v in (0, 0.25, 1234.0, 20000, 3.4e6, 0.00012, 12.5)]
    ['0', '0.25', '1,234', '20k', '3.4M', '1.2e-4', '12.5']
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e9 or size < 1e-3:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def _finite(v: float) -> bool:
    return isinstance(v, int | float) and math.isfinite(v)


def _segments(s: Series, x: Axis, y: Axis) -> list[list[tuple[float, float]]]:
    """Runs of drawable points, in axis coordinates (logarithms where the axis is one)."""
    out: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(s.x, s.y, strict=True):
        good = _finite(a) and _finite(b) and not (x.log and a <= 0) and not (y.log and b <= 0)
        if good:
            out[-1].append((math.log10(a) if x.log else float(a), math.log10(b) if y.log else float(b)))
        elif out[-1]:
            out.append([])
    return [segment for segment in out if segment]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, v: float) -> float:
        return self.start + (self.end - self.start) * (v - self.low) / (self.high - self.low)


def _scale(values: Sequence[float], axis: Axis, start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    for bound in (axis.low, axis.high):
        if bound is not None and not (axis.log and bound <= 0):
            v = math.log10(bound) if axis.log else bound
            low, high = min(low, v), max(high, v)
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = 0.5 if axis.log else abs(high) * 0.5 or 1.0
        low, high = low - pad, high + pad
    elif start > end:  # a little air above and below the lines
        low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    return _Scale(low, high, start, end)


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, math.ceil((high - low) / 5))
    marks = [(float(d), short(10.0**d)) for d in decades if low <= d <= high and d % every == 0]
    if len(marks) < 3 and high - low < 2:  # 1, 2 and 5 times a power of ten; closer still, round numbers
        marks = [(d + math.log10(m), short(m * 10.0**d)) for d in decades for m in (1, 2, 5)]
        marks = [m for m in marks if low <= m[0] <= high]
    if len(marks) < 3 and high - low < 1:
        marks = [(math.log10(v), short(v)) for v in ticks(10.0**low, 10.0**high, count=4) if v > 0]
    return marks


def _marks(scale: _Scale, axis: Axis, count: int) -> list[tuple[float, str]]:
    if axis.log:
        return _log_ticks(scale.low, scale.high)
    return [(v, short(v)) for v in ticks(scale.low, scale.high, count=count)]


def _grid(xs: _Scale, ys: _Scale, x: Axis, y: Axis) -> str:
    out = []
    for v, text in _marks(ys, y, 6):
        p = ys(v)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{p:.1f}" y2="{p:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{p + 3.5:.1f}" text-anchor="end">{text}</text>')
    for v, text in _marks(xs, x, 5):
        p = xs(v)
        out.append(f'<line class="grid" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{p:.1f}" x2="{p:.1f}"/>')
        out.append(f'<text class="tick" x="{p:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x.label)}</text>')
    if y.label:
        half = (TOP + HEIGHT - BOTTOM) / 2
        turn = f'transform="rotate(-90 11 {half})"'
        out.append(f'<text class="axis" x="11" y="{half}" text-anchor="middle" {turn}>{escape(y.label)}</text>')
    return "".join(out)


def _line(s: Series, segments: list[list[tuple[float, float]]], xs: _Scale, ys: _Scale, colour: int) -> str:
    out = []
    dash = ' stroke-dasharray="5 4"' if s.dashed else ""
    for segment in segments:
        at = [(xs(a), ys(b)) for a, b in segment]
        d = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
        out.append(f'<path d="{d}" style="stroke:var(--s{colour})"{dash}><title>{escape(s.name)}</title></path>')
        if s.dots or len(at) == 1:
            out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.2" style="fill:var(--s{colour})"/>' for a, b in at]
    return "".join(out)


def _legend(series: Sequence[Series]) -> str:
    keys = []
    for i, s in enumerate(series):
        rule = f"2px {'dashed' if s.dashed else 'solid'} var(--s{s.colour or i % COLOURS + 1})"
        keys.append(f'<li><i style="border-top:{rule}"></i>{escape(s.name)}</li>')
    return f'<ul class="legend">{"".join(keys)}</ul>'

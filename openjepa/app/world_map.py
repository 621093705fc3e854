"""Points in two dimensions, coloured by a number: one inline SVG, no script."""

from __future__ import annotations

from html import escape

import numpy as np

WIDTH, HEIGHT, EDGE = 420, 300, 12
LOW, MIDDLE, HIGH = (37, 99, 235), (160, 160, 168), (228, 87, 46)  # blue, grey, orange: told apart by most eyes
SHADES = 12


def scatter(points: np.ndarray, values: np.ndarray, title: str) -> str:
    """points (M, 2), values (M,); both axes have one scale, so that a circle stays a circle.

    >>> svg = scatter(np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([0.0, 1.0]), "x")
    >>> svg.count("<g "), svg.count("<rect")
    (2, 2)
    """
    good = np.isfinite(points).all(1) & np.isfinite(values)
    points, values = points[good], values[good]
    if len(points) == 0:
        return ""
    middle = (points.max(0) + points.min(0)) / 2
    half = max(float(np.abs((points - middle) / [WIDTH / HEIGHT, 1]).max()), 1e-30)
    at = (points - middle) * [1, -1] / half * (HEIGHT / 2 - EDGE) + [WIDTH / 2, HEIGHT / 2]
    low, high = np.quantile(values, [0.02, 0.98])
    level = np.clip((values - low) / max(high - low, 1e-30), 0, 1)
    shade = np.minimum((level * SHADES).astype(int), SHADES - 1)
    groups = []
    for s in np.unique(shade):
        dots = "".join(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="3.4" height="3.4" rx="1"/>' for x, y in at[shade == s] - 1.7
        )
        groups.append(f'<g style="fill:{colour((s + 0.5) / SHADES)}">{dots}</g>')
    name = escape(title, quote=True)
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(groups)}</svg>'
    note = f'<p class="note">{low:.3g} to {high:.3g}</p>'
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{svg}{note}</figure>'


def colour(share: float) -> str:
    """
    >>> colour(0), colour(0.5), colour(1)
    ('rgb(37,99,235)', 'rgb(160,160,168)', 'rgb(228,87,46)')
    """
    a, b, t = (LOW, MIDDLE, 2 * share) if share < 0.5 else (MIDDLE, HIGH, 2 * share - 1)
    return "rgb({},{},{})".format(*(round(x + (y - x) * t) for x, y in zip(a, b, strict=True)))

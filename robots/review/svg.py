"""Plots as SVG text: pure functions from arrays to markup, for a page that must open without a network."""

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 760, 190
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 8, 30
HUGE = 1e300  # what is not below it is left out
POINTS = 1200  # of a line; more than the page has pixels


@dataclass(frozen=True)
class Series:
    """One curve, cloud of dots or row of bars in a plot.

    Args:
        name: in the legend; empty for none.
        x: [N].
        y: [N]; what is not finite is left out.
        kind: `line`, `dots`, `bars`, or `none` to make room only.
        style: class of the style sheet, `c0` to `c5`.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    kind: str = "line"
    style: str = "c0"


@dataclass(frozen=True)
class Rule:
    """A horizontal line at `y`, e.g. a limit."""

    y: float
    name: str


def plot(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    rules: Sequence[Rule] = (),
    cuts: Sequence[float] = (),
) -> str:
    """One plot with axes, legend, `rules`, and a thin vertical line at every one of `cuts`."""
    x_low, x_high = _range([each.x for each in series], 0.0)
    lasting = [np.array([rule.y for rule in rules if math.isfinite(rule.y)])]
    zero = [np.zeros(1)] if any(each.kind == "bars" for each in series) else []
    y_low, y_high = _range([*(each.y for each in series), *lasting, *zero], 0.06)

    def place_x(values: np.ndarray) -> np.ndarray:
        return LEFT + (values - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(values: np.ndarray) -> np.ndarray:
        return HEIGHT - BOTTOM - (values - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts += _grid(x_low, x_high, y_low, y_high, place_x, place_y)
    parts += [
        f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        for x in place_x(np.array(cuts, float))
    ]
    parts += [_rule(rule, float(place_y(np.array(rule.y)))) for rule in rules if math.isfinite(rule.y)]
    parts += [_draw(each, place_x, place_y) for each in series]
    parts.append(f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}">{escape(x_label)}</text>')
    parts.append(
        f'<text class="label" transform="translate(12 {HEIGHT / 2 - 10}) rotate(-90)">{escape(y_label)}</text>'
    )
    parts.append("</svg>")
    legend = "".join(f'<span class="key {each.style}">{escape(each.name)}</span>' for each in series if each.name)
    return f"<figure><figcaption>{escape(title)} {legend}</figcaption>{''.join(parts)}</figure>"


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS of [N], with the smallest and largest value of every stretch kept, so that no spike is lost."""
    if len(x) <= POINTS:
        return x, y
    edges = np.linspace(0, len(x), POINTS // 2 + 1).astype(int)
    kept = {
        int(start + pick(y[start:stop])) for start, stop in itertools.pairwise(edges) for pick in (np.argmin, np.argmax)
    }
    indices = np.array(sorted(kept))
    return x[indices], y[indices]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - raw))
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _range(values: Sequence[np.ndarray], margin: float) -> tuple[float, float]:
    known = np.concatenate([np.asarray(each, float).ravel() for each in values]) if values else np.zeros(0)
    known = known[np.abs(known) < HUGE]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        spread = max(abs(low) * 0.1, 0.5)
        low, high = low - spread, high + spread
    extra = margin * (high - low)
    return low - extra, high + extra


Place = Callable[[np.ndarray], np.ndarray]


def _grid(x_low: float, x_high: float, y_low: float, y_high: float, place_x: Place, place_y: Place) -> list[str]:
    parts = []
    for value in ticks(y_low, y_high):
        y = float(place_y(np.array(value)))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 5}" y="{y + 3:.1f}">{_number(value)}</text>')
    for value in ticks(x_low, x_high, 8):
        x = float(place_x(np.array(value)))
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 12}">{_number(value)}</text>')
    return parts


def _rule(rule: Rule, at: float) -> str:
    beside = at + (10 if at > HEIGHT / 3 else -3)
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="rule" x="{WIDTH - RIGHT - 4}" y="{beside:.1f}">{escape(rule.name)}</text>'
    )


def _draw(series: Series, place_x: Place, place_y: Place) -> str:
    finite = (np.abs(series.x) < HUGE) & (np.abs(series.y) < HUGE)  # false for NaN, too
    x, y = series.x[finite], series.y[finite]
    if series.kind == "line":
        x, y = thin(x, y)
    x, y, base = place_x(x), place_y(y), float(place_y(np.zeros(())))
    if series.kind == "bars":
        width = max(2.0, min(40.0, 0.7 * (WIDTH - LEFT - RIGHT) / max(len(x), 1)))
        bars = "".join(
            f'<rect x="{a - width / 2:.1f}" y="{min(b, base):.1f}" width="{width:.1f}" height="{abs(base - b):.1f}"/>'
            for a, b in zip(x, y, strict=True)
        )
        return f'<g class="bars {series.style}">{bars}</g>'
    if series.kind == "none":
        return ""
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    if series.kind == "dots":
        step = max(1, len(x) // POINTS)
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="1.3"/>' for a, b in zip(x[::step], y[::step], strict=True)
        )
        return f'<g class="dots {series.style}">{dots}</g>'
    return f'<polyline class="line {series.style}" points="{points}"/>'


def _number(value: float) -> str:
    return f"{value:.6g}"


def escape(text: object) -> str:
    """A text of a log as text of a page, whatever stands in it."""
    return html.escape(str(text))

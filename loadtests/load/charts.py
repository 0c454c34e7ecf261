"""Line charts as SVG, drawn by hand: one file, no script, no library."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 48, 40
NUM_TICKS = 5
COLORS = ("#4269d0", "#e8862e", "#d6453d", "#3a9d8f", "#8a63d2", "#c2478c", "#7a8a2e", "#7f6a5a", "#2b7fb8", "#9aa0a6")
LETTER = 6.3
"""Width of a letter of the legend, about."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line. Points lie by rising x; where there is None in place of one, the line has a gap."""

    name: str
    points: Sequence[Point | None]
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x_label: str
    series: Sequence[Series]
    has_log_x: bool = False
    y_max: float | None = None
    """None: as much as there is."""
    unit: str = ""
    """Of y, for the numbers shown under the mouse."""


@dataclass(frozen=True, slots=True)
class Frame:
    """From values to places in the picture."""

    x_low: float
    x_high: float
    y_high: float
    has_log_x: bool

    def x(self, value: float) -> float:
        low, high, at = self.x_low, self.x_high, value
        if self.has_log_x:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return LEFT + (at - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.y_high * (HEIGHT - TOP - BOTTOM)


def draw(chart: Chart) -> str:
    """Return the chart as an SVG element, "" when there is nothing to show."""
    points = [point for series in chart.series for point in series.points if point is not None]
    if not points:
        return ""
    frame = frame_of(points, chart)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(chart.title)}">']
    parts += y_axis(frame)
    parts += x_axis(frame, chart.x_label)
    for number, series in enumerate(chart.series):
        parts += line(series, color(number), frame, chart.unit)
    parts += legend([series.name for series in chart.series])
    return "".join([*parts, "</svg>"])


def color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def frame_of(points: list[Point], chart: Chart) -> Frame:
    lowest, highest = min(x for x, _ in points), max(x for x, _ in points)
    top = chart.y_max or nice(max(y for _, y in points) or 1.0)
    if chart.has_log_x:
        return Frame(lowest / 1.1, highest * 1.1, top, True)
    return Frame(min(lowest, 0.0), max(highest, lowest + 1), top, False)


def nice(value: float) -> float:
    """Return the next round number that is not below."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * power >= value * 0.9999)


def y_axis(frame: Frame) -> list[str]:
    parts = []
    for number in range(NUM_TICKS + 1):
        value = frame.y_high * number / NUM_TICKS
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    return parts


def x_axis(frame: Frame, label: str) -> list[str]:
    ticks = log_ticks(frame.x_low, frame.x_high) if frame.has_log_x else linear_ticks(frame.x_low, frame.x_high)
    y = HEIGHT - BOTTOM
    parts = []
    for value in ticks:
        x = frame.x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 17}" text-anchor="middle">{short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(label)}</text>')
    return parts


def linear_ticks(low: float, high: float) -> list[float]:
    step = nice((high - low) / NUM_TICKS)
    return [low + step * number for number in range(int((high - low) / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 of each power of ten; only the powers when that is too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
    if len(ticks) <= 2 * NUM_TICKS:
        return ticks
    return [10.0**power for power in powers if low <= 10.0**power <= high]


def line(series: Series, stroke: str, frame: Frame, unit: str) -> list[str]:
    path, dots, pen = [], [], "M"
    for point in series.points:
        if point is None:
            pen = "M"
            continue
        x, y = frame.x(point[0]), frame.y(min(point[1], frame.y_high))
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
        text = html.escape(f"{series.name}: {short(point[1])}{unit} at {short(point[0])}")
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{stroke}"><title>{text}</title></circle>')
    dash = ' stroke-dasharray="5 4"' if series.is_dashed else ""
    ends = 'stroke-width="2" stroke-linecap="round"'  # round: a point alone is still seen
    return [f'<path d="{"".join(path)}" fill="none" stroke="{stroke}" {ends}{dash}/>', *dots]


def legend(names: Sequence[str]) -> list[str]:
    parts, x, y = [], float(LEFT), 10
    for number, name in enumerate(names):
        length = 32 + LETTER * len(name)
        if x + length > WIDTH and x > LEFT:
            x, y = float(LEFT), y + 16
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="12" height="4" rx="2" fill="{color(number)}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="{y + 6}">{html.escape(name)}</text>')
        x += length
    return parts


def short(value: float) -> str:
    """Write a number as short as its size allows."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""Plots of a comparison as SVG: one dot per contender, with a line from the lowest to the highest repetition."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from loadtests.comparison.report import contenders, number
from loadtests.comparison.runs import BARE, Figure, Run, Spread, cpu_us_per_token, paired, tokens_per_s
from loadtests.comparison.targets import MANY, ONE, ttft_p50_s

WIDTH, ROW, LABELS, TOP, MARGIN = 860, 34, 300, 56, 60
"""In pixels."""
PLOTS: dict[str, tuple[str, Figure]] = {
    "tokens_per_s.svg": (f"tokens/s / bare, {MANY}: more is better", tokens_per_s(MANY)),
    "cpu_per_token.svg": (f"front-door CPU per token / bare, {MANY}: less is better", cpu_us_per_token(MANY)),
    "ttft_1.svg": (f"TTFT p50 / bare, {ONE}: less is better", ttft_p50_s(ONE)),
    "ttft_32.svg": (f"TTFT p50 / bare, {MANY}: less is better", ttft_p50_s(MANY)),
}


def plots(runs: Sequence[Run]) -> dict[str, str]:
    """Return each plot by its file's name; what has no figures has no plot."""
    found = {}
    for name, (title, figure) in PLOTS.items():
        rows = {each: paired(runs, each, figure) for each in contenders(runs) if each != BARE}
        if known := {each: spread for each, spread in rows.items() if spread is not None}:
            found[name] = to_svg(title, known)
    return found


def to_svg(title: str, rows: Mapping[str, Spread]) -> str:
    """Draw ratios on an axis from 0; a dashed line stands at 1."""
    largest = max(1.0, *(spread.highest for spread in rows.values()))
    height = TOP + ROW * len(rows) + 20

    def x_of(value: float) -> float:
        return LABELS + value / largest * (WIDTH - LABELS - MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="24" font-size="15">{escape(title)}</text>',
        f'<line x1="{x_of(0):.1f}" y1="{TOP - 14}" x2="{x_of(0):.1f}" y2="{height - 14}" stroke="#999"/>',
        f'<line x1="{x_of(1):.1f}" y1="{TOP - 14}" x2="{x_of(1):.1f}" y2="{height - 14}" stroke="#999" '
        'stroke-dasharray="4 3"/>',
    ]
    for index, (name, spread) in enumerate(rows.items()):
        parts += row_of(name, spread, TOP + ROW * index + ROW / 2, x_of)
    return "\n".join([*parts, "</svg>", ""])


def row_of(name: str, spread: Spread, y: float, x_of: Callable[[float], float]) -> list[str]:
    low, middle, high = (f"{x_of(value):.1f}" for value in (spread.lowest, spread.median, spread.highest))
    return [
        f'<text x="{LABELS - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>',
        f'<line x1="{low}" y1="{y}" x2="{high}" y2="{y}" stroke="#2864a0" stroke-width="3"/>',
        f'<circle cx="{middle}" cy="{y}" r="5" fill="#2864a0"/>',
        f'<text x="{x_of(spread.highest) + 10:.1f}" y="{y + 4}">{number(spread.median)}</text>',
    ]

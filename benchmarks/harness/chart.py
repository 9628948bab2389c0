"""Horizontal bars as SVG."""

from dataclasses import dataclass
from html import escape

WIDTH = 820
LABEL_WIDTH = 130
VALUE_WIDTH = 150
BAR_HEIGHT, BAR_STEP = 18, 26
TOP, BOTTOM = 62, 14
COLOURS = {"ours": "#1f6feb", "peer": "#8b949e", "ceiling": "#d0d7de"}


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    text: str
    kind: str


def bar_chart(title: str, subtitle: str, bars: list[Bar]) -> str:
    """A chart of bars in the given order, all from zero."""
    height = TOP + BAR_STEP * len(bars) + BOTTOM
    longest = max((bar.value for bar in bars), default=1.0)
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="14" y="26" font-size="16" font-weight="600" fill="#1f2328">{escape(title)}</text>',
        f'<text x="14" y="46" fill="#59636e">{escape(subtitle)}</text>',
    ]
    for number, bar in enumerate(bars):
        y = TOP + number * BAR_STEP
        width = max(1.0, room * bar.value / longest)
        weight = "600" if bar.kind == "ours" else "400"
        middle = y + BAR_HEIGHT - 4
        lines += [
            f'<text x="{LABEL_WIDTH - 8}" y="{middle}" text-anchor="end" font-weight="{weight}" '
            f'fill="#1f2328">{escape(bar.label)}</text>',
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="2" '
            f'fill="{COLOURS[bar.kind]}"/>',
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{middle}" fill="#59636e">{escape(bar.text)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"

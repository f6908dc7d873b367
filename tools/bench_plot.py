"""A log-log plot of a few lines as SVG text, without any library."""

from __future__ import annotations

from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 460, 80, 250, 40, 50
COLOURS = ("#0b6e4f", "#1f77b4", "#7b4fa3", "#d1495b", "#edae49", "#66717e", "#003d5b", "#8c564b")


def plot(title: str, lines: dict[str, dict[int, float]]) -> str:
    """``lines``: for each name seconds by size. Both axes are logarithmic."""
    sizes = [size for line in lines.values() for size in line]
    times = [seconds * 1e3 for line in lines.values() for seconds in line.values()]
    x0, x1 = floor(log10(min(sizes))), ceil(log10(max(sizes)))
    y0, y1 = floor(log10(min(times))), ceil(log10(max(times)))

    def x(size: float) -> float:
        return LEFT + (log10(size) - x0) / max(1, x1 - x0) * (WIDTH - LEFT - RIGHT)

    def y(milliseconds: float) -> float:
        span = HEIGHT - TOP - BOTTOM
        return HEIGHT - BOTTOM - (log10(milliseconds) - y0) / max(1, y1 - y0) * span

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for power in range(x0, x1 + 1):
        at = x(10**power)
        out.append(f'<path d="M{at:.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        label = f"{10**power:,}"
        out.append(
            f'<text x="{at:.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
        )
    for power in range(y0, y1 + 1):
        at = y(10**power)
        out.append(f'<path d="M{LEFT} {at:.0f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        label = f"{10**power:g} ms"
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.0f}" text-anchor="end">{label}</text>')
    out.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 10}" '
        'text-anchor="middle">layers in the store</text>'
    )
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = [(x(size), y(line[size] * 1e3)) for size in sorted(line)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        at = TOP + 16 + 20 * index
        out.append(f'<path d="M{WIDTH - RIGHT + 20} {at}h22" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="{WIDTH - RIGHT + 50}" y="{at + 4}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>\n"])

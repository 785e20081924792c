"""Small plots as SVG: axes, lines, bands and words, in colours for light and dark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

Point = tuple[float, float]

# A series is told by its colour, its marker and, where "dashed", its line.
_STYLE = """
  svg { font: 13px system-ui, sans-serif; }
  .paper { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; }
  .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; }
  .s0 { --c: #59636e; } .s1 { --c: #0757b8; } .s2 { --c: #b3400a; } .s3 { --c: #0b7a4b; }
  .line { fill: none; stroke: var(--c); stroke-width: 2; } .dashed { stroke-dasharray: 6 4; }
  .mark { fill: var(--c); stroke: none; } .said { fill: var(--c); } .band { fill: #f5d9a8; }
  .title { font-weight: 600; font-size: 14px; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; }
    .grid { stroke: #30363d; } .axis { stroke: #9198a1; } .band { fill: #4d3a12; }
    .s0 { --c: #9198a1; } .s1 { --c: #6cb6ff; } .s2 { --c: #ff9d5c; } .s3 { --c: #56d39b; }
  }
"""


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`; by their logarithm or not."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, here = (
            (math.log10(x) for x in (self.low, self.high, value))
            if self.is_log
            else (self.low, self.high, value)
        )
        return self.start + (self.end - self.start) * (here - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values along the scale."""
        if self.is_log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**n for n in range(first, last + 1)]
        step = 10 ** math.floor(math.log10(self.high - self.low))
        step = next(x for x in (step / 5, step / 2, step, 2 * step) if self.high / x <= 7.5)
        return [n * step for n in range(math.ceil(self.low / step), int(self.high / step) + 1)]


def up_to(highest: float) -> float:
    """A round value just above."""
    step = 10 ** math.floor(math.log10(highest)) if highest > 0 else 1
    return float(next(x * step for x in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if x * step >= highest))


@dataclass
class Panel:
    """One pair of axes and what is drawn between them."""

    title: str
    x: Scale
    y: Scale
    x_title: str
    drawn: list[str] = field(default_factory=list)

    def line(self, points: Sequence[Point], series: int, *, dashed: bool = False) -> None:
        """A series' line through points."""
        path = " ".join(f"{self.x.at(x):.1f},{self.y.at(y):.1f}" for x, y in points)
        kind = "line dashed" if dashed else "line"
        self.drawn.append(f'<polyline class="{kind} s{series}" points="{path}"/>')

    def marks(self, points: Sequence[Point], series: int) -> None:
        """A series' marker at each point."""
        for x, y in points:
            self.drawn.append(_mark(self.x.at(x), self.y.at(y), series))

    def band(self, first: float, last: float, words: str) -> None:
        """A stretch of the x axis, with its words along it."""
        left, right = self.x.at(first), self.x.at(last)
        top, height = self.y.end, self.y.start - self.y.end
        self.drawn.append(
            f'<rect class="band" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1):.1f}"'
            f' height="{height:.1f}"/>'
        )
        at = f"translate({(left + right) / 2 + 4:.1f} {self.y.start - 6:.1f}) rotate(-90)"
        self.drawn.append(f'<text class="soft" transform="{at}">{escape(words)}</text>')

    def words(self, x: float, y: float, said: str, series: int) -> None:
        """A series' words beside a point."""
        at = f'x="{self.x.at(x) + 8:.1f}" y="{self.y.at(y) + 4:.1f}"'
        self.drawn.append(f'<text class="said s{series}" {at}>{escape(said)}</text>')

    def svg(self, x_labels: Sequence[tuple[float, str]] = ()) -> Iterator[str]:
        """Its elements; `x_labels` stand where the x axis has no numbers."""
        left, right, bottom = self.x.start, self.x.end, self.y.start
        yield (
            f'<text class="ink title" x="{left:.0f}" y="{self.y.end - 14:.0f}">'
            f"{escape(self.title)}</text>"
        )
        for value in self.y.ticks():
            y = self.y.at(value)
            yield f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(left - 6, y + 4, f"{value:,g}", "end")
        yield from self.drawn
        yield f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        for value, said in x_labels or [(x, f"{x:,g}") for x in self.x.ticks()]:
            yield _text(self.x.at(value), bottom + 18, said, "middle")
        yield _text((left + right) / 2, bottom + 38, self.x_title, "middle")


def legend(names: Sequence[str], left: float, y: float, step: float) -> Iterator[str]:
    """Who is who, side by side: the first name is of series 0, and so on."""
    for series, name in enumerate(names):
        x = left + step * series
        yield _mark(x, y - 4, series)
        yield f'<text class="said s{series}" x="{x + 12:.0f}" y="{y:.0f}">{escape(name)}</text>'


def _text(x: float, y: float, said: str, anchor: str) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="soft" {at}>{escape(said)}</text>'


def _mark(x: float, y: float, series: int) -> str:
    """A square, a disc, a triangle or a diamond."""
    kind = f'class="mark s{series}"'
    if series == 1:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    corners = {
        0: ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        2: ((0, -5.5), (5, 4), (-5, 4)),
        3: ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
    }[series]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon {kind} points="{path}"/>'


def document(width: int, height: int, says: str, elements: Sequence[str]) -> str:
    """The file; `says` is what it shows, for who cannot see it."""
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(says)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *elements,
        "</svg>",
        "",
    ]
    return "\n".join(lines)

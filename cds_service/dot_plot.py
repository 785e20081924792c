"""A series of results as text: a row per value, placed beside the limits it was judged by."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from re import match
from typing import Any

from msgspec import Struct
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from cds_service.axes import value_axis
from cds_service.terminal_text import Line, by_reason, first_of

Json = Mapping[str, Any]

NARROWEST_PLOT = 14
WIDEST_TEXT = 24
MOST_DATES = 3


class Marks(Struct, frozen=True):
    """What a plot is drawn with."""

    used: str
    unused: str
    band: str
    before: str
    after: str
    axis: str

    def legend(self) -> str:
        """What each mark means, in one line."""
        return (
            f"{self.used} used  {self.unused} not used  {self.band * 2} within the limits  "
            f"{self.before} {self.after} off the axis"
        )


BLOCKS = Marks("●", "○", "░", "◀", "▶", "─")
ASCII = Marks("*", "o", ":", "<", ">", "-")


def dot_plot(series: Json, marks: Marks, most: int) -> Iterator[RenderableType]:
    """The newest `most` values, oldest first, under a heading that names the unit of the axis."""
    unit = series.get("unit", "")
    points = [_point(x, unit) for x in series.get("points", [])]
    older = max(0, len(points) - most)
    points = points[older:]
    limits = {x.limits for x in points if x.is_used}
    common = next(iter(limits)) if len(limits) == 1 else ""
    title = f"{series.get('title', '')} in {unit or 'no unit'}"
    yield Line(0, f"{title}, limits: {common}" if common else title, "bold")
    yield _rows(points, marks, common)
    unused = [x for x in series.get("points", [])[older:] if x.get("used") is False]
    for why, dates in by_reason(unused, "date").items():
        yield Line(0, f"not used, {why}: {first_of(dates, MOST_DATES)}", bullet=f"{marks.unused} ")
    if older:
        yield Line(0, f"{older} older not shown", "dim")


class _Point(Struct, frozen=True):
    """A value as sent, and its number on the axis, None without a place there."""

    date: str
    shown: str
    number: float | None
    low: float | None
    high: float | None
    limits: str
    is_used: bool


def _point(point: Json, unit: str) -> _Point:
    shown = f"{point.get('comparator', '')}{point.get('shown', '')}"
    number, low, high = (_number(point.get(x)) for x in ("value", "low", "high"))
    is_in_unit = shown.casefold().endswith(f" {unit}".casefold())
    if number is not None and not is_in_unit:
        shown = f"{shown} = {_short(number)}" if shown else _short(number)
    elif number is None and is_in_unit and (found := match(r"-?\d{1,15}(\.\d{1,15})? ", shown)):
        number = float(found[0])
    is_used = point.get("used") is not False
    return _Point(
        date=str(point.get("date", "")),
        shown=shown,
        number=number,
        low=low,
        high=high,
        limits=_limits(low, high, point.get("limit_from", "")) if is_used else "",
        is_used=is_used,
    )


def _number(value: object) -> float | None:
    """The value as a float; None for what is no number or too large for any axis."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _limits(low: float | None, high: float | None, source: str) -> str:
    if low is not None and high is not None:
        text = f"{_short(low)}-{_short(high)}"
    elif high is not None:
        text = f"up to {_short(high)}"
    elif low is not None:
        text = f"from {_short(low)}"
    else:
        return "none"
    return f"{text} ({source})" if source else text


class _Fitted(Struct, frozen=True):
    """Text drawn as wide as its column comes out."""

    draw: Callable[[int], str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.draw(max(options.max_width, 3)), no_wrap=True, overflow="crop")


def _rows(points: list[_Point], marks: Marks, common: str) -> Table:
    axis = _axis_of(points)
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(width=1)
    table.add_column(width=10, overflow="fold")
    table.add_column(max_width=WIDEST_TEXT, overflow="fold")
    table.add_column(ratio=1, width=NARROWEST_PLOT)  # with a ratio, the width is the least
    if not common and axis is not None:
        table.add_column(max_width=WIDEST_TEXT, overflow="fold", style="dim")
    if axis is not None:
        heading = [] if common else ["limits"]
        table.add_row("", "", "", _Fitted(partial(axis.ends, marks)), *heading)
    for x in points:
        mark = marks.used if x.is_used else marks.unused
        plot = "" if axis is None else _Fitted(partial(axis.row, marks, x))
        own = [] if common or axis is None else [Text(x.limits)]
        table.add_row(mark, Text(x.date), Text(x.shown), plot, *own)
    return table


class _Axis(Struct, frozen=True):
    """A linear axis; the outermost columns are for what lies beyond its ends."""

    first: float
    last: float

    def ends(self, marks: Marks, width: int) -> str:
        """The row that states the numbers at both ends."""
        first, last = f" {_short(self.first)} ", f" {_short(self.last)} "
        return first + marks.axis * (width - len(first) - len(last)) + last

    def row(self, marks: Marks, point: _Point, width: int) -> str:
        """The limits as a band, and the value, outside the band when outside the limits."""
        cells = [" "] * width
        start = 0 if point.low is None else self._column(point.low, width)
        end = width - 1 if point.high is None else self._column(point.high, width)
        if point.low is not None or point.high is not None:
            cells[start : end + 1] = marks.band * (end + 1 - start)
        if point.number is not None:
            column = self._column(point.number, width)
            if point.low is not None and point.number < point.low:
                column = max(0, min(column, start - 1))
            if point.high is not None and point.number > point.high:
                column = min(width - 1, max(column, end + 1))
            cells[column] = self._mark(point, marks)
        return "".join(cells)

    def _column(self, number: float, width: int) -> int:
        if number < self.first:
            return 0
        if number > self.last:
            return width - 1
        return 1 + round((number - self.first) / (self.last - self.first) * max(0, width - 3))

    def _mark(self, point: _Point, marks: Marks) -> str:
        assert point.number is not None
        if point.number < self.first:
            return marks.before
        if point.number > self.last:
            return marks.after
        return marks.used if point.is_used else marks.unused


def _axis_of(points: list[_Point]) -> _Axis | None:
    """The axis of all values and limits; None without a value."""
    values = [x.number for x in points if x.number is not None]
    lows = [x.low for x in points if x.low is not None]
    highs = [x.high for x in points if x.high is not None]
    ends = value_axis(values, lows, highs)
    return None if ends is None else _Axis(*ends)

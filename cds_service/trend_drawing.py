"""Draws a trend as SVG, once for a wide and once for a narrow place: geometry by attributes, looks
by the classes of static/trend.css.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from math import hypot
from typing import TypeVar

from markupsafe import Markup, escape
from msgspec import Struct

from cds_service.axes import Ends, day_ticks, value_axis, value_ticks
from cds_service.dates import as_text
from cds_service.results import short
from cds_service.trend import Bar, Lane, Panel, Point, Trend, as_precise
from cds_service.trend_limits import Held, day_of, held

V = TypeVar("V")

_TEXT = 12  # font size, in units of the viewBox, as in trend.css
_CHARACTER = 0.64 * _TEXT
_LINE = 15
_BEYOND_EDGE = 8  # from the right edge to the limits that are named there
_SHORTEST = 30  # days that an axis spans at least
_MOST_TITLES = 300  # points that bear their value as a tooltip
_MOST_OBSTACLES = 120  # points that labels keep clear of
_MOST_SAID = 8  # points that all bear their value
_DAY_BEFORE_ALL = 1
_CLOSE = 14  # between points whose labels could be taken for each other's
_MOST_TOLD_APART = 40  # points among which a line is led so that it meets no other
_REACH = 60  # from a point to the number of its reason that stands near already
# Where the number of a reason may stand that has no room beside its point, the nearest first.
_AROUND = sorted(
    (
        (dx, dy)
        for dy in range(-90, 91, _LINE)
        for dx in range(-72, 73, 12)
        if hypot(dx, dy) > 2 * _LINE
    ),
    key=lambda x: (hypot(*x), x[1]),
)


class Sheet(Struct, frozen=True):
    """The size of a drawing: its width, what it leaves for numbers at both sides, and the heights
    of the first panel and of those beneath.
    """

    name: str
    width: int
    left: int
    right: int
    first: int
    further: int


WIDE = Sheet("wide", 720, 46, 46, 190, 110)
NARROW = Sheet("narrow", 340, 44, 42, 170, 100)


class Span(Struct, frozen=True):
    """Numbers of an axis on units of the drawing."""

    first: float
    last: float
    start: float
    end: float

    def at(self, number: float) -> float:
        """The place of a number, at an end for what lies beyond it."""
        inside = min(max(number, self.first), self.last)
        share = (inside - self.first) / (self.last - self.first)
        return self.start + (self.end - self.start) * share


class Box(Struct, frozen=True):
    """A rectangle that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether both cover some of the same ground."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Where a line from another place should end: at its edge, not far from its middle."""
        middle = (self.left + self.right) / 2
        if self.top <= y <= self.bottom:
            return (self.left if x < middle else self.right), y
        return min(max(x, middle - 5), middle + 5), self.top if y < self.top else self.bottom

    def distance(self, x: float, y: float) -> float:
        """How far off another place is."""
        a, b = self.nearest(x, y)
        return hypot(x - a, y - b)


class Way(Struct, frozen=True):
    """A straight line from a point to the text that is said of it."""

    text: str
    x: float
    y: float
    to_x: float
    to_y: float

    def path(self) -> str:
        """As SVG has it."""
        return f"M{_n(self.x)} {_n(self.y)}L{_n(self.to_x)} {_n(self.to_y)}"

    def _side(self, x: float, y: float) -> float:
        return (self.to_x - self.x) * (y - self.y) - (self.to_y - self.y) * (x - self.x)

    def crosses(self, other: "Way") -> bool:
        """Whether it cuts another, which leads to another text."""
        return (
            self.text != other.text
            and self._side(other.x, other.y) * self._side(other.to_x, other.to_y) <= 0
            and other._side(self.x, self.y) * other._side(self.to_x, self.to_y) <= 0
        )

    def passes(self, x: float, y: float, within: float) -> bool:
        """Whether it comes so near to a place."""
        length = hypot(self.to_x - self.x, self.to_y - self.y)
        if not length:
            return False
        along = (self.to_x - self.x) * (x - self.x) + (self.to_y - self.y) * (y - self.y)
        return 0 < along < length**2 and abs(self._side(x, y)) < within * length


def reasons_of(trend: Trend) -> dict[str, list[tuple[Panel, Point]]]:
    """Why points were not used or have no place on the scale, in the order of their numbers, each
    with its points.
    """
    found: dict[str, list[tuple[Panel, Point]]] = {}
    for panel in trend.panels:
        for point in panel.points:
            if point.why:
                found.setdefault(point.why, []).append((panel, point))
    return found


def drawing(trend: Trend, sheet: Sheet, name: str) -> Markup:
    """The picture; `name` begins its ids."""
    return _Drawing(trend, sheet).svg(name)


def axis_of(panel: Panel, limits: Iterable[Held]) -> Ends | None:
    """The ends of a panel's scale, with room for the limits that held; None when no point has a
    place on one.
    """
    placed = [x.number for x in panel.points if x.moment is not None]
    numbers = [float(x) for x in placed if x is not None]
    each = [x for _, _, x in limits]
    lows = [float(x) for one in each for x in (one.low, *one.lines) if x is not None]
    highs = [float(x.high) for x in each if x.high is not None]
    return value_axis(numbers, lows, highs)


def days_of(trend: Trend) -> Ends:
    """The first and last day of the time axis: of everything that is dated, not before birth."""
    days = [trend.today]
    for panel in trend.panels:
        days += [x.moment.first for x in panel.points if x.moment is not None]
    for lane in trend.lanes:
        days += [x.first for x in lane.bars if x.first is not None]
    first = max(min(days), trend.born or _DAY_BEFORE_ALL)
    first = min(first, trend.today - _SHORTEST)
    span = trend.today - first
    return first - span * 0.03, trend.today + span * 0.03


def _is_dated(trend: Trend) -> bool:
    """Whether anything has a place in time."""
    return any(x.moment is not None for panel in trend.panels for x in panel.points) or any(
        (x.first, x.last) != (None, None) for lane in trend.lanes for x in lane.bars
    )


def description(trend: Trend) -> str:
    """What the picture shows, in a few sentences without text of the chart."""
    said = [_described(x) for x in trend.panels]
    for lane in trend.lanes:
        count = str(len(lane.bars)) if lane.bars else _nothing(lane)
        said.append(f"{lane.title}: {count}.")
    return " ".join(said)


def _described(panel: Panel) -> str:
    numbers = [x.number for x in panel.points if x.used and x.number is not None]
    dated = [x.moment for x in panel.points if x.moment is not None]
    if not panel.points:
        return f"{panel.title}: {_nothing(panel)}."
    unused = sum(not x.used for x in panel.points)
    said = f"{panel.title}: {_counted(len(panel.points), 'result')}"
    if dated:
        said += f" from {dated[0].text} to {dated[-1].text}"
    if numbers:
        said += f", {short(min(numbers))} to {short(max(numbers))} {panel.unit}".rstrip()
    return f"{said}; {unused} not used." if unused else f"{said}."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _nothing(part: Panel | Lane) -> str:
    return "none on file" if part.answered else "not known"


class _Drawing:
    """Puts one picture together, from the top down."""

    def __init__(self, trend: Trend, sheet: Sheet) -> None:
        self.trend = trend
        self.sheet = sheet
        first, last = days_of(trend)
        self.limits = [held(x, (first, last)) for x in trend.panels]
        self.days = Span(first, last, sheet.left, sheet.width - self._right())
        self.numbers = {why: n for n, why in enumerate(reasons_of(trend), 1)}
        self.y = 0.0
        self.parts: list[Markup] = []

    def svg(self, name: str) -> Markup:
        """All of it."""
        for number, panel in enumerate(self.trend.panels):
            height = self.sheet.further if number else self.sheet.first
            self._panel(panel, height, self.limits[number])
        self._dates()
        for lane in self.trend.lanes:
            self._lane(lane)
        self._grid()
        title, desc = f"{name}-{self.sheet.name}-title", f"{name}-{self.sheet.name}-desc"
        head = Markup(
            '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-labelledby="{}"'
            ' aria-describedby="{}" xmlns="http://www.w3.org/2000/svg">'
            '<title id="{}">{}</title><desc id="{}">{}</desc>'
        ).format(
            self.sheet.name,
            self.sheet.width,
            round(self.y + 4),
            title,
            desc,
            title,
            f"{self.trend.title}, as of {as_text(self.trend.today)}",
            desc,
            description(self.trend),
        )
        return head + Markup("\n").join(self.parts) + Markup("</svg>")

    def _right(self) -> float:
        """The room for the limits that are named at the right edge."""
        said = map(_at_end, self.trend.panels, self.limits)
        longest = max((len(text) for one in said for text in one), default=0)
        return max(self.sheet.right, _BEYOND_EDGE + longest * _CHARACTER)

    def _dates(self) -> None:
        """The time axis, where anything stands on it."""
        self.ticks: list[tuple[int, str]] = []
        if not _is_dated(self.trend):
            return
        self.y += 14
        plot = self.days.end - self.days.start
        first, last = round(self.days.first), round(self.days.last)
        self.ticks = day_ticks(first, last, int(plot / _CHARACTER))
        for day, text in self.ticks:
            self.parts.append(_text(self.days.at(day), self.y, text, "date", "middle"))
        self.bottom_of_panels = self.y - 12
        self.y += 4

    def _grid(self) -> None:
        """Lines at the dates, behind everything."""
        path = "".join(
            f"M{_n(self.days.at(x))} 24V{_n(self.bottom_of_panels)}" for x, _ in self.ticks
        )
        if path:
            self.parts.insert(0, _tag("path", "grid", d=path))

    # -- a panel -------------------------------------------------------------------------------

    def _panel(self, panel: Panel, height: int, limits: Sequence[Held]) -> None:
        heading = f"{panel.title}, {panel.unit}" if panel.unit else panel.title
        dated = [x for x in panel.points if x.moment is not None]
        if not dated:
            heading = f"{panel.title}: {'none dated' if panel.points else _nothing(panel)}"
        self.y += 14
        self.parts.append(_text(0, self.y, heading, "heading"))
        self.y += 10
        ends = axis_of(panel, limits)
        if ends is not None:
            _Plot(self, panel, ends, height, limits).draw()
            self.y += height
        if any(x.number is None for x in dated):
            self._strip([x for x in dated if x.number is None])
        self.y += 8

    def _strip(self, points: Sequence[Point]) -> None:
        """Beneath the scale, what has no place on it; neighbours share a label."""
        self.y += 18
        start, end = _n(self.days.start), _n(self.days.end)
        self.parts.append(_tag("path", "strip", d=f"M{start} {_n(self.y)}H{end}"))
        for point in points:
            self.parts.append(_mark(point, self.at(point), self.y, len(points)))
        for box, text in self._shared([(self.at(x), {self.numbers[x.why]}) for x in points]):
            middle = (box.left + box.right) / 2
            self.parts.append(_text(middle, self.y - 8, text, "reason", "middle"))
        self.y += 4

    def _shared(self, wanted: Iterable[tuple[float, set[int]]]) -> list[tuple[Box, str]]:
        """A label for each group of points whose own would lie over each other."""
        groups: list[tuple[float, float, set[int]]] = []
        for x, numbers in sorted(wanted, key=lambda x: x[0]):
            group = x, x, numbers
            while groups and self._around(*groups[-1])[0].meets(self._around(*group)[0]):
                first, _, others = groups.pop()
                group = first, x, others | group[2]
            groups.append(group)
        return [self._around(*x) for x in groups]

    def _around(self, first: float, last: float, numbers: set[int]) -> tuple[Box, str]:
        """The label of a group, clear of the numbers at the right edge."""
        text = f"({', '.join(map(str, sorted(numbers)))})"
        half = len(text) * _CHARACTER / 2
        middle = max(min((first + last) / 2, self.days.end - half), half)
        return _box(middle, self.y - 8, text), text

    def at(self, point: Point) -> float:
        """Where in time a point stands: in the middle of the days that its date can mean."""
        return self.days.at(day_of(point))

    # -- a lane --------------------------------------------------------------------------------

    def _lane(self, lane: Lane) -> None:
        self.y += 14
        dated = [x for x in lane.bars if x.first is not None or x.last is not None]
        said = lane.title if dated else f"{lane.title}: {_nothing(lane)}"
        if lane.bars and not dated:
            said = f"{lane.title}: none dated"
        self.parts.append(_text(0, self.y, said, "heading"))
        self.y += 6
        if dated:
            for bar in dated:
                self.parts += self._span(bar) if lane.is_drugs else self._moment(bar)
            self.y += 12

    def _span(self, bar: Bar) -> Iterator[Markup]:
        """A record of a drug, and behind it how long it may still act."""
        assert bar.last is not None
        is_open = bar.first is None
        start = self.days.at(self.days.first if bar.first is None else bar.first)
        end = max(self.days.at(bar.last), start + 3)
        if bar.acts_until is not None and (until := self.days.at(bar.acts_until)) > end:
            yield _rect("tail", end, self.y + 2.5, until - end, 5)
        yield _rect("bar open" if is_open else "bar", start, self.y, end - start, 10)

    def _moment(self, bar: Bar) -> Iterator[Markup]:
        """A problem on its day, or over the days that its date can mean."""
        assert bar.first is not None and bar.last is not None
        x, end, y = self.days.at(bar.first), self.days.at(bar.last), self.y + 5
        if end - x > 2:
            yield _tag(
                "path", "whisker", d=f"M{_n(x)} {_n(y - 4)}v8M{_n(x)} {_n(y)}H{_n(end)}m0 -4v8"
            )
        middle = (x + end) / 2
        kind = "moment unsure" if bar.remark else "moment"
        yield _tag("path", kind, d=f"M{_n(middle)} {_n(y - 6)}l6 6l-6 6l-6 -6z")


class _Plot:
    """The scale of one panel with all that stands on it."""

    def __init__(
        self, drawing: _Drawing, panel: Panel, ends: Ends, height: int, limits: Sequence[Held]
    ) -> None:
        self.parts = drawing.parts
        self.days = drawing.days
        self.at = drawing.at
        self.numbers = drawing.numbers
        self.sheet = drawing.sheet
        self.panel = panel
        self.ends = ends
        self.held = [(self.days.at(first), self.days.at(last), x) for first, last, x in limits]
        self.top, self.bottom = drawing.y, drawing.y + height
        self.values = Span(*ends, self.bottom, self.top)
        placed = [x for x in panel.points if x.moment is not None and x.number is not None]
        self.points = [(x, self.at(x), self._height(x)) for x in placed]
        self.taken: list[Box] = []
        self.called: list[tuple[str, Box]] = []
        self.ways: list[Way] = []

    def _height(self, point: Point) -> float:
        assert point.number is not None
        return self.values.at(float(point.number))

    def draw(self) -> None:
        """From the back to the front."""
        self._bands()
        self._scale()
        self._lines()
        used = [(x, y) for point, x, y in self.points if point.used]
        if 1 < len(used) <= _MOST_TITLES:
            path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in used)
            self.parts.append(_tag("path", "through", d=path))
        self.behind_points = len(self.parts)
        for point, x, y in self.points:
            self._point(point, x, y)
        self._labels()

    def _scale(self) -> None:
        for tick in value_ticks(self.ends, 6 if self.bottom - self.top > 150 else 4):
            y = self.values.at(tick)
            path = f"M{_n(self.days.start)} {_n(y)}H{_n(self.days.end)}"
            self.parts.append(_tag("path", "grid", d=path))
            shown = short(Decimal(f"{tick:.6g}"))
            self.parts.append(_text(self.days.start - 5, y + 4, shown, "tick", "end"))

    def _bands(self) -> None:
        """Where a value lies within the limits; open at the side that has none."""
        for start, end, (low, high) in _joined((a, b, (x.low, x.high)) for a, b, x in self.held):
            if low is None and high is None:
                continue
            top = self.top if high is None else self.values.at(float(high))
            bottom = self.bottom if low is None else self.values.at(float(low))
            self.parts.append(_rect("band", start, top, end - start, bottom - top))
            edges = [y for y, limit in ((top, high), (bottom, low)) if limit is not None]
            path = "".join(f"M{_n(start)} {_n(y)}H{_n(end)}" for y in edges)
            self.parts.append(_tag("path", "edge", d=path))

    def _lines(self) -> None:
        for number in range(len(self.panel.lines)):
            drawn = ((a, b, x.lines[number] if x.lines else None) for a, b, x in self.held)
            if path := self._stepped(_joined(drawn)):
                self.parts.append(_tag("path", f"line line-{number}", d=path))

    def _stepped(self, runs: Iterable[tuple[float, float, Decimal | None]]) -> str:
        path, last = "", None
        for start, end, limit in runs:
            if limit is not None:
                y = _n(self.values.at(float(limit)))
                path += f"{'V' + y if last is not None else 'M' + _n(start) + ' ' + y}H{_n(end)}"
            last = limit
        return path

    # -- points --------------------------------------------------------------------------------

    def _point(self, point: Point, x: float, y: float) -> None:
        assert point.moment is not None and point.number is not None
        if point.moment.is_partial:
            start, end = self.days.at(point.moment.first), self.days.at(point.moment.last)
            path = f"M{_n(start)} {_n(y - 3)}v6M{_n(start)} {_n(y)}H{_n(end)}m0 -3v6"
            self.parts.append(_tag("path", "whisker", d=path))
        if point.comparator:
            way = 1 if point.comparator.startswith("<") else -1
            path = f"M{_n(x)} {_n(y)}v{13 * way}m-3.5 {-4 * way}l3.5 {4 * way}l3.5 {-4 * way}"
            self.parts.append(_tag("path", "bound", d=path))
        self.parts.append(_mark(point, x, y, len(self.points), self._beyond(point)))

    def _beyond(self, point: Point) -> int:
        """1 for a value above the scale, -1 for one below, else 0."""
        assert point.number is not None
        return (float(point.number) > self.ends[1]) - (float(point.number) < self.ends[0])

    # -- labels --------------------------------------------------------------------------------

    def _labels(self) -> None:
        """Numbers of reasons first, then values that the scale does not show, then a few others;
        what finds no free place is in the table only.
        """
        if len(self.points) <= _MOST_OBSTACLES:
            self.taken += [Box(x - 4, y - 4, x + 4, y + 4) for _, x, y in self.points]
        self._limits()
        telling = [n for n, (x, _, _) in enumerate(self.points) if self._beyond(x)]
        for place in dict.fromkeys(
            (*self._to_explain(), *reversed(telling), *self._worth_saying())
        ):
            point = self.points[place][0]
            is_said = self._beyond(point) or not point.why
            self._label(place, self._value(point) if is_said else "")

    def _to_explain(self) -> list[int]:
        """The points that have a reason; of many with the same one, the newest."""
        found: dict[str, list[int]] = {}
        for place, (point, _, _) in enumerate(self.points):
            if point.why:
                found.setdefault(point.why, []).append(place)
        is_crowded = len(self.points) > _MOST_OBSTACLES
        return [x for places in found.values() for x in places[-_MOST_SAID if is_crowded else 0 :]]

    def _worth_saying(self) -> list[int]:
        """The newest, the lowest and the highest of the used points; all when there are few."""
        used = [n for n, (x, _, _) in enumerate(self.points) if x.used]
        if not used:
            return []
        heights = {n: self.points[n][2] for n in used}
        lowest, highest = max(used, key=heights.__getitem__), min(used, key=heights.__getitem__)
        return [used[-1], lowest, highest, *(used if len(used) <= _MOST_SAID else ())]

    def _value(self, point: Point) -> str:
        assert point.number is not None
        return f"{point.comparator}{short(point.number)}"

    def _label(self, place: int, value: str) -> None:
        point, x, y = self.points[place]
        number = f"({self.numbers[point.why]})" if point.why else ""
        text = " ".join(part for part in (value, number) if part)
        half = len(text) * _CHARACTER / 2
        middle = min(max(x, self.days.start + half), self.days.end - half)
        sides = (x + half + 8, x - half - 8)
        places = [(middle, y - 8), (middle, y + 16), *((at, y + 4) for at in sides)]
        places += [(at, base) for base in (y - 8, y + 16) for at in sides]
        is_mixed_up = bool(number) and self._is_close(place)
        if is_mixed_up or not self._put(text, places, "reason" if number else "value"):
            self._call_out(place, text)

    def _put(self, text: str, places: Iterable[tuple[float, float]], kind: str) -> bool:
        """Writes a text at the first place that is free; False when none is."""
        for at, base in places:
            if self._is_free(_box(at, base, text)):
                self._write(text, at, base, kind)
                return True
        return False

    def _write(self, text: str, at: float, base: float, kind: str) -> None:
        self.taken.append(_box(at, base, text))
        self.parts.append(_text(at, base, text, kind, "middle"))

    def _is_free(self, box: Box) -> bool:
        inside = box.left >= self.days.start - 3 and box.right <= self.days.end + 3
        inside = inside and box.top >= self.top - 4 and box.bottom <= self.bottom + 2
        return inside and not any(box.meets(other) for other in self.taken)

    def _is_close(self, place: int) -> bool:
        """Whether another point is so close that a label beside one may seem to be the other's."""
        _, x, y = self.points[place]
        return len(self.points) <= _MOST_OBSTACLES and any(
            abs(x - a) < _CLOSE and abs(y - b) < _CLOSE
            for n, (_, a, b) in enumerate(self.points)
            if n != place
        )

    def _call_out(self, place: int, text: str) -> None:
        """The number of a reason farther off, with a line that leads from the point to it; one that
        stands near already serves several points.
        """
        point, x, y = self.points[place]
        same = [box for said, box in self.called if said == text]
        if not point.why or (same and len(self.points) > _MOST_OBSTACLES):
            return
        near = [box for box in same if box.distance(x, y) <= _REACH]
        places = ((x + dx, y + 4 + dy) for dx, dy in _AROUND)
        free = {box: at for at in places if self._is_free(box := _box(*at, text))}
        ways = [Way(text, x, y, *box.nearest(x, y)) for box in (*near, *free)]
        if not ways:
            return
        best = min(range(len(ways)), key=lambda n: self._in_the_way(ways[n], place))
        box = [*near, *free][best]
        if box in free:
            self._write(text, *free[box], "reason")
            self.called.append((text, box))
        self.ways.append(ways[best])
        self.parts.insert(self.behind_points, _tag("path", "leader", d=ways[best].path()))

    def _in_the_way(self, way: Way, place: int) -> int:
        """How many other lines and points a line would meet, where they can be told apart."""
        if len(self.points) > _MOST_TOLD_APART:
            return 0
        others = (x for n, x in enumerate(self.points) if n != place)
        return sum(way.crosses(x) for x in self.ways) + sum(
            way.passes(x, y, 5) for _, x, y in others
        )

    def _limits(self) -> None:
        """At the right edge, the limits that hold there."""
        found = _at_end(self.panel, self.held)
        wanted = sorted((self.values.at(float(x)), text) for text, x in found.items())
        places = _apart([y for y, _ in wanted], self.bottom)
        for (y, text), place in zip(wanted, places, strict=True):
            start = self.days.end
            path = f"M{_n(start)} {_n(y)}L{_n(start + 6)} {_n(place)}"
            self.parts.append(_tag("path", "leader", d=path))
            self.parts.append(_text(start + _BEYOND_EDGE, place + 4, text, "limit"))


def _at_end(panel: Panel, limits: Sequence[Held]) -> dict[str, Decimal]:
    """The limits that hold at the end of an axis, by their text."""
    if not limits:
        return {}
    last = limits[-1][2]
    found = (x for x in (last.high, last.low, *last.lines) if x is not None)
    return {as_precise(x, panel.places): x for x in found}


def _joined(runs: Iterable[tuple[float, float, V]]) -> list[tuple[float, float, V]]:
    """The runs, neighbours with the same thing as one."""
    found: list[tuple[float, float, V]] = []
    for start, end, thing in runs:
        if found and found[-1][2] == thing:
            found[-1] = (found[-1][0], end, thing)
        else:
            found.append((start, end, thing))
    return found


def _apart(heights: Sequence[float], bottom: float) -> list[float]:
    """The heights, in order, moved until a line of text has room at each and none lies too low."""
    places = list(heights)
    for n in range(1, len(places)):
        places[n] = max(places[n], places[n - 1] + _LINE - 2)
    if places and places[-1] > bottom:
        places[-1] = bottom
        for n in range(len(places) - 2, -1, -1):
            places[n] = min(places[n], places[n + 1] - _LINE + 2)
    return places


def _box(middle: float, base: float, text: str) -> Box:
    half = len(text) * _CHARACTER / 2 + 2
    return Box(middle - half, base - _TEXT + 2, middle + half, base + 2)


def _mark(point: Point, x: float, y: float, many: int, beyond: int = 0) -> Markup:
    """A filled mark, or a hollow one for what is not used; a triangle for what lies beyond."""
    kind = "used" if point.used else "unused"
    radius = 4.0 if many <= _MOST_OBSTACLES else 2.0
    title = None
    if many <= _MOST_TITLES and point.moment is not None and point.number is not None:
        title = f"{point.moment.text}: {point.comparator}{short(point.number)}"
    if beyond:
        path = f"M{_n(x - 5)} {_n(y + 6 * beyond)}h10l-5 {-8 * beyond}z"
        return _tag("path", kind, title, d=path)
    return _tag("circle", kind, title, cx=x, cy=y, r=radius)


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return _tag("rect", kind, x=x, y=y, width=max(width, 0.0), height=max(height, 0.0))


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> Markup:
    place = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"'
    return Markup(f'<text class="{kind}" {place}>{escape(text)}</text>')


def _tag(name: str, kind: str, title: str | None = None, **attributes: float | str) -> Markup:
    said = "".join(
        f' {key}="{x if isinstance(x, str) else _n(x)}"' for key, x in attributes.items()
    )
    if title is None:
        return Markup(f'<{name} class="{kind}"{said}/>')
    return Markup(f'<{name} class="{kind}"{said}><title>{escape(title)}</title></{name}>')


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")

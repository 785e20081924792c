"""A trend as a figure of a page: both drawings, what their marks mean, the reasons, and the same
values as tables.
"""

from collections.abc import Iterator, Sequence

from markupsafe import Markup
from msgspec import Struct

from cds_service.dates import as_text
from cds_service.playground import shown
from cds_service.topic_pages import environment
from cds_service.trend import Lane, Panel, Point, Trend
from cds_service.trend_drawing import NARROW, WIDE, axis_of, days_of, drawing, reasons_of
from cds_service.trend_limits import Held, held

_TEMPLATES = environment("")
_MOST_LISTED = 6


class Reason(Struct, frozen=True):
    """Why points are not used, by its number in the drawing."""

    number: int
    text: str
    points: tuple[tuple[Panel, Point], ...]
    more: int


def svg(trend: Trend, name: str = "trend") -> Markup:
    """The figure, for a page that links static/trend.css; `name` begins its ids."""
    reasons = [*_reasons(trend)]
    html = _TEMPLATES.get_template("trend.html").render(
        trend=trend,
        name=name,
        day=as_text,
        shown=shown,
        drawings=[drawing(trend, sheet, name) for sheet in (WIDE, NARROW)],
        legend=[*_legend(trend)],
        notes=[x for panel in trend.panels for x in panel.notes],
        reasons=reasons,
        numbers={x.text: x.number for x in reasons},
        most_listed=_MOST_LISTED,
    )
    return Markup(html)


def _reasons(trend: Trend) -> Iterator[Reason]:
    for number, (text, points) in enumerate(reasons_of(trend).items(), 1):
        newest = points[-_MOST_LISTED:][::-1]
        yield Reason(number, text, tuple(newest), len(points) - len(newest))


def _legend(trend: Trend) -> Iterator[tuple[str, str]]:
    """What each kind of mark in this picture means, by the name of its sample."""
    drawn = [x for panel in trend.panels for x in panel.points if x.moment is not None]
    placed = [x for x in drawn if x.number is not None]
    limits = [held(x, days_of(trend)) for x in trend.panels]
    each = [x for one in limits for _, _, x in one]
    present = {
        "used": any(x.used for x in placed),
        "unused": any(not x.used for x in drawn),
        "beyond": any(map(_reaches_beyond, trend.panels, limits)),
        "strip": len(placed) < len(drawn),
        "bound": any(x.comparator for x in placed),
        "band": any((x.low, x.high) != (None, None) for x in each),
    }
    said = {
        "used": "result",
        "unused": "not used; the number leads to the reason below",
        "beyond": "beyond the scale",
        "strip": "has no place on the scale",
        "bound": "below or above this number",
        "band": "within the limits that applied",
    }
    yield from ((kind, said[kind]) for kind, here in present.items() if here)
    for panel, one in zip(trend.panels, limits, strict=True):
        for number, title in enumerate(panel.lines):
            if any(x.lines and x.lines[number] is not None for _, _, x in one):
                yield f"line-{number}", f"{panel.title}: {title}"
    if any(x.moment is not None and x.moment.is_partial for x in drawn) or any(
        not lane.is_drugs and x.first != x.last for lane in trend.lanes for x in lane.bars
    ):
        yield "whisker", "some day in this time"
    yield from _legend_of_lanes([x for x in trend.lanes if x.bars])


def _legend_of_lanes(lanes: Sequence[Lane]) -> Iterator[tuple[str, str]]:
    if any(lane.is_drugs for lane in lanes):
        yield "bar", "given"
    if any(x.acts_until is not None for lane in lanes for x in lane.bars):
        yield "tail", "may still act"
    if any(not lane.is_drugs for lane in lanes):
        yield "moment", "on record"
    if any(not lane.is_drugs and x.remark for lane in lanes for x in lane.bars):
        yield "unsure", "unconfirmed"


def _reaches_beyond(panel: Panel, limits: Sequence[Held]) -> bool:
    ends = axis_of(panel, limits)
    numbers = [x.number for x in panel.points if x.number is not None and x.moment is not None]
    return ends is not None and any(not ends[0] <= x <= ends[1] for x in numbers)

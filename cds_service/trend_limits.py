"""Which limits held when, along the time axis of a panel."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from cds_service.axes import Ends
from cds_service.trend import Limits, Panel, Point

Held = tuple[float, float, Limits]
_NONE = Limits()


def day_of(point: Point) -> float:
    """Where in time a dated point stands: in the middle of the days that its date can mean."""
    assert point.moment is not None
    return (point.moment.first + point.moment.last) / 2


def held(panel: Panel, ends: Ends) -> list[Held]:
    """The limits between the ends of an axis, from the first day to the last, without a gap; empty
    when no used point has a place.

    Those of a point hold up to the middle between it and its neighbour, but no further than the
    days on which other limits hold reach.
    """
    placed = [x for x in panel.points if x.used and x.moment is not None and x.number is not None]
    points = {min(max(day_of(x), ends[0]), ends[1]): x for x in placed}
    if not points:
        return []
    found: list[Held] = []
    nearest = _Nearest(panel, points)
    for first, last in pairwise(nearest.borders(ends)):
        limits = nearest.limits((first + last) / 2)
        if found and found[-1][2] == limits:
            found[-1] = (found[-1][0], last, limits)
        else:
            found.append((first, last, limits))
    return found


class _Nearest:
    """The points of a panel by their place, and of either kind of days."""

    def __init__(self, panel: Panel, points: dict[float, Point]) -> None:
        self._days = [(first - 0.5, last + 0.5) for first, last in panel.days]
        self._points = points
        self._all = sorted(points)
        self._of = {
            kind: [x for x in self._all if _is_inside(points[x]) is kind] for kind in (True, False)
        }

    def borders(self, ends: Ends) -> list[float]:
        """Where limits may change, with both ends."""
        found = {(a + b) / 2 for a, b in pairwise(self._all)}
        found |= {x for span in self._days for x in span}
        return [ends[0], *sorted(x for x in found if ends[0] < x < ends[1]), ends[1]]

    def limits(self, day: float) -> Limits:
        """Those of the nearest point of the same kind of days; without one, what the nearest would
        have been judged by outside.
        """
        at = _nearest(self._all, day)
        point = self._points[at]
        is_inside = self._covers(day)
        if self._covers(at) is not _is_inside(point):  # a date that may mean days of both kinds
            is_inside = _is_inside(point)
        if self._of[is_inside]:
            point = self._points[_nearest(self._of[is_inside], day)]
            return Limits(point.low, point.high, point.lines)
        return point.outside if not is_inside and point.outside is not None else _NONE

    def _covers(self, day: float) -> bool:
        return any(first <= day <= last for first, last in self._days)


def _is_inside(point: Point) -> bool:
    return point.outside is not None


def _nearest(places: Sequence[float], day: float) -> float:
    n = bisect_left(places, day)
    return min(places[max(n - 1, 0) : n + 1], key=lambda x: abs(x - day))

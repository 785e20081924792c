"""What the picture of a patient's results shows: points with the limits they were judged by, those
that were not used with the reason, and beneath them drugs and problems.

The content says which measures, drugs and problems (shared/trend.toml).
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from msgspec import Struct

from cds_service.content import Content, LanePlan, PanelPlan, TrendPlan
from cds_service.dates import Moment, as_text
from cds_service.entries import Drug, Problem
from cds_service.evidence import Rejected, Undecided
from cds_service.facts import Judged, Measured, PatientFacts, Result
from cds_service.quantity import Quantity, finite_number
from cds_service.results import MeasureOf, short

NO_LIMITS = "no limits to judge it by"
_LARGE = 6  # digits before the point from which on places after it say nothing
NO_UNIT = "no unit sent: it has no place on the scale, and only its own limits judge it"


class Limits(Struct, frozen=True):
    """What a number is judged by, in the unit of the panel: its limits, and the number of each line
    (None: there is none, or it would lie above the line before it).
    """

    low: Decimal | None = None
    high: Decimal | None = None
    lines: tuple[Decimal | None, ...] = ()


class Point(Struct, frozen=True):
    """A result. `number`, `low`, `high` and `lines` are in the unit of the panel (None: has no
    place there); `sent`, `limits` and `said_lines` are texts, in the unit that was sent. `outside`
    are the limits that it would have on another day, of a number from one of the panel's `days`.
    """

    reference: str
    moment: Moment | None
    sent: str
    number: Decimal | None = None
    comparator: str = ""
    low: Decimal | None = None
    high: Decimal | None = None
    limits: str = ""
    lines: tuple[Decimal | None, ...] = ()
    said_lines: tuple[str, ...] = ()
    outside: Limits | None = None
    used: bool = True
    why: str = ""


class Panel(Struct, frozen=True):
    """The results of a measure, oldest first; `places` are those of the laboratory's numbers (None:
    the unit is ours, and limits are as they are); `days` are spans, first and last day, on which
    other limits hold than else; `notes` say in words what is to be known of its limits; `answered`
    says whether the chart was asked for them.
    """

    measure: str
    title: str
    unit: str
    lines: tuple[str, ...]
    points: tuple[Point, ...]
    places: int | None
    days: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]
    answered: bool


class Bar(Struct, frozen=True):
    """A record of a drug, or a problem: the days it spans (None: not known), and the last on which
    it may still act. `title` is text of the chart, `kind` the title of the first of the lane's sets
    that it is in.
    """

    reference: str
    title: str
    kind: str
    dates: str
    first: int | None
    last: int | None
    acts_until: int | None = None
    remark: str = ""


class Lane(Struct, frozen=True):
    """Drugs, or problems, of one kind, oldest first."""

    title: str
    is_drugs: bool
    bars: tuple[Bar, ...]
    answered: bool


class Trend(Struct, frozen=True):
    """One picture: panels over one time axis, lanes beneath."""

    title: str
    today: int
    born: int | None
    panels: tuple[Panel, ...]
    lanes: tuple[Lane, ...]


def trends(patient: PatientFacts, content: Content) -> tuple[Trend, ...]:
    """The pictures that the content asks for; none when it asks for none.

    Asks the patient questions: whoever wants to explain what was asked before does so first.
    """
    if content.trend is None:
        return ()
    patient.trace.begin("trend")  # what is asked from here on is no topic's evidence
    return (_trend(patient, content, content.trend),)


def _trend(patient: PatientFacts, content: Content, plan: TrendPlan) -> Trend:
    return Trend(
        title=plan.title,
        today=patient.today,
        born=patient.born.first if patient.born is not None else None,
        panels=tuple(_panel(patient, content, x) for x in plan.panels),
        lanes=tuple(_lane(patient, x) for x in plan.lanes),
    )


# -- panels ------------------------------------------------------------------------------------


def _panel(patient: PatientFacts, content: Content, plan: PanelPlan) -> Panel:
    measure = content.measures[plan.measure]
    results = _Results(patient, content, plan)
    points = [*results.numbers()]
    points += [results.rejected(x) for x in patient.rejected(plan.measure)]
    return Panel(
        measure=plan.measure,
        title=measure.title,
        unit=results.unit,
        lines=tuple(x.title for x in plan.lines),
        points=tuple(sorted(points, key=_oldest_first)),
        places=results.places.get(results.unit),
        days=results.days,
        notes=(*results.notes_of_days(points), *results.not_drawn.values()),
        answered=bool(points) or patient.is_answered(measure.value_set),
    )


def _oldest_first(point: Point) -> tuple[int, int, str]:
    """Undated ones last."""
    moment = point.moment
    return (moment.first, moment.last, moment.clock) if moment is not None else (10**9, 0, "")


def _unit(measure: MeasureOf, numbers: Sequence[Measured]) -> tuple[str, Decimal]:
    """The unit of the axis, and how many of it are one of the measure's: the laboratory's when all
    numbers came in one, else the measure's.
    """
    sent = [x for x in numbers if x.has_unit]
    scales = {_times(x) for x in sent}
    if len(scales) == 1:
        return sent[0].unit_as_sent, scales.pop()
    return measure.unit, Decimal(1)


def _times(measured: Measured) -> Decimal:
    """How many of the unit that is shown are one of the measure's."""
    return measured.as_sent(Quantity(Decimal(1), measured.value.unit))


def _places(numbers: Iterable[Measured]) -> dict[str, int]:
    """By a laboratory's own unit, in how many decimal places its numbers and limits come at most;
    the measure's unit is none of them.
    """
    found: dict[str, int] = {}
    for x in numbers:
        if x.has_unit and _times(x) != 1:
            said = [short(x.as_sent(q)) for q in (x.value, x.low, x.high) if q is not None]
            most = max(len(text.partition(".")[2]) for text in said)
            found[x.unit_as_sent] = max(most, found.get(x.unit_as_sent, 0))
    return found


def as_precise(number: Decimal, places: int | None) -> str:
    """A limit in no more places than the laboratory's numbers have, but in two digits at least:
    what is converted is not more precise than it was. None for places leaves it as it is.
    """
    if places is None or number.adjusted() >= _LARGE:
        return short(number)
    return short(round(number, max(places, 1 - number.adjusted())))


class _Results:
    """The results of a measure as points of a panel; `not_drawn` says of lines why they are not."""

    def __init__(self, patient: PatientFacts, content: Content, plan: PanelPlan) -> None:
        self._patient = patient
        self._words = content.words
        self._plan = plan
        self._measure = content.measures[plan.measure]
        self._numbers = patient.measured(plan.measure)
        self._judged, self._as_defined = self._judge()
        self.unit, self._scale = _unit(self._measure, self._numbers)
        self.places = _places(self._numbers)
        self.days = tuple(self._days())
        self.not_drawn: dict[tuple[int, bool], str] = {}

    def _judge(self) -> tuple[Sequence[Judged], bool]:
        """The numbers as the content judges them, and whether it could: a definition that lacks
        data leaves the limits of report, age and sex.
        """
        if self._plan.judged_by is not None:
            try:
                return self._plan.judged_by(self._patient), True
            except Undecided:
                return self._patient.judged(self._plan.measure), False
        return self._patient.judged(self._plan.measure), True

    def _days(self) -> Iterator[tuple[int, int]]:
        """The spans on which other limits hold, those that meet as one."""
        if self._plan.days is None or not self._as_defined:
            return
        spans = sorted((x.first, x.last) for x in self._plan.days(self._patient))
        while spans:
            first, last = spans.pop(0)
            while spans and spans[0][0] <= last + 1:
                last = max(last, spans.pop(0)[1])
            yield first, last

    def numbers(self) -> Iterator[Point]:
        """The numbers that can be judged, and those for which there are no limits."""
        by_number = {id(x.measured): x for x in self._judged}
        for number in self._numbers:
            found = by_number.get(id(number))
            yield self._unjudged(number) if found is None else self._point(found)

    def _unjudged(self, number: Measured) -> Point:
        return Point(
            reference=number.result.reference,
            moment=number.moment,
            sent=_sent(number.result),
            number=self._placed(number, number.value),
            comparator=number.value.comparator,
            used=False,
            why=NO_LIMITS,
        )

    def _point(self, judged: Judged) -> Point:
        measured, source = judged.measured, judged.limit_from
        aside = self._patient.asides.get(measured.result.reference, "")
        why = self._words.set_aside.get(aside, "")
        limits, lines = self._between(judged), self._lines(judged)
        outside = self._outside(judged)
        placed = self._limits(judged, lines)
        if not why:
            self._note(judged, lines, placed, is_inside=outside is not None)
        return Point(
            reference=measured.result.reference,
            moment=judged.moment,
            sent=_sent(measured.result),
            number=self._placed(measured, judged.value),
            comparator=judged.value.comparator,
            low=placed.low,
            high=placed.high,
            limits=f"{limits} ({self._words.limit_from.get(source, source)})" if limits else "",
            lines=placed.lines,
            said_lines=tuple(self._said(measured, x) for x in lines),
            outside=outside,
            used=not why,
            why=why or ("" if measured.has_unit else NO_UNIT),
        )

    def _placed(self, measured: Measured, quantity: Quantity | None) -> Decimal | None:
        """Where on the axis a number of a result lies; None without a unit."""
        if quantity is None or not measured.has_unit:
            return None
        return quantity.value * self._scale

    def _lines(self, judged: Judged) -> list[Quantity | None]:
        if not self._as_defined:
            return []
        return [x.limit(self._patient, judged) for x in self._plan.lines]

    def _limits(self, judged: Judged, lines: Sequence[Quantity | None]) -> Limits:
        """All of a number's limits on the axis, without lines that would lie above the one before
        them.
        """
        found: list[Decimal | None] = []
        for number in (self._placed(judged.measured, x) for x in lines):
            before = min((x for x in found if x is not None), default=number)
            is_above = number is not None and before is not None and number > before
            found.append(None if is_above else number)
        low, high = (self._placed(judged.measured, x) for x in (judged.low, judged.high))
        return Limits(low, high, tuple(found))

    def _outside(self, judged: Judged) -> Limits | None:
        """What a number of the `days` would be judged by on another day; None for any other."""
        if self._plan.outside is None or not self._as_defined:
            return None
        other: Judged | None = self._plan.outside(self._patient, judged)
        return None if other is None else self._limits(other, self._lines(other))

    # -- in words ------------------------------------------------------------------------------

    def _said(self, measured: Measured, limit: Quantity | None) -> str:
        """A limit in the unit that was sent, "" for none."""
        if limit is None:
            return ""
        return as_precise(measured.as_sent(limit), self.places.get(measured.unit_as_sent))

    def _between(self, judged: Judged) -> str:
        low, high = (self._said(judged.measured, x) for x in (judged.low, judged.high))
        if low and high:
            return f"{low} to {high}"
        return f"from {low}" if low else f"up to {high}" if high else ""

    def _note(
        self, judged: Judged, lines: Sequence[Quantity | None], placed: Limits, *, is_inside: bool
    ) -> None:
        """Notes which lines are not drawn, and why; once for numbers of the `days` and once for all
        others.
        """
        measured = judged.measured
        for n, (line, limit) in enumerate(zip(self._plan.lines, lines, strict=False)):
            before = lines[n - 1] if n else None
            is_left_out = limit is not None and measured.has_unit and placed.lines[n] is None
            if limit is None or before is None or not is_left_out:
                continue
            unit = measured.unit_as_sent
            said, other = (self._said(measured, x) for x in (limit, before))
            text = f"“{line.title} {said} {unit}” is not drawn where it would lie above "
            text += f"“{self._plan.lines[n - 1].title} {other} {unit}”."
            if is_inside and line.note:
                text += f" {line.note}"
            self.not_drawn.setdefault((n, is_inside), f"{self._measure.title}: {text}")

    def notes_of_days(self, points: Iterable[Point]) -> Iterator[str]:
        """Which limits held on which days, where a number was judged by them."""
        inside = [x for x in points if x.outside is not None and x.moment is not None]
        for first, last in self.days:
            held = {
                x.limits
                for x in inside
                if x.moment is not None and x.moment.first <= last and first <= x.moment.last
            }
            until = f" to {as_text(last)}" if last < self._patient.today else ""
            for limits in sorted(held):
                yield f"{self._measure.title}: {limits} from {as_text(first)}{until}."

    def rejected(self, rejected: Rejected) -> Point:
        """A result that could not be used; somebody else's without its value."""
        result: Result = rejected.entry
        amount = result.resource.value_quantity
        number, measure = None, self._measure
        if amount is not None and not rejected.foreign:
            value = finite_number(amount.value)
            factor = measure.units.factor(measure.unit, amount.code, amount.unit)
            if value is not None and factor is not None and value > 0:
                number = value * factor * self._scale
        return Point(
            reference=result.reference,
            moment=result.moment,
            sent="not shown" if rejected.foreign else _sent(result),
            number=number,
            comparator="" if number is None or amount is None else amount.comparator or "",
            used=False,
            why=rejected.why,
        )


def _sent(result: Result) -> str:
    """Value and unit as the chart has them: text of the chart."""
    return result.evidence().get("value", "no value")


# -- lanes -------------------------------------------------------------------------------------


def _lane(patient: PatientFacts, plan: LanePlan) -> Lane:
    found: dict[int, tuple[Drug | Problem, str]] = {}
    for name in plan.drugs or plan.problems:
        records = patient.drugs(name) if plan.drugs else patient.problems(name)
        for record in records:
            found.setdefault(id(record), (record, plan.set_titles[name]))
    bars = [
        _of_drug(patient, plan, x, kind) if isinstance(x, Drug) else _of_problem(x, kind)
        for x, kind in found.values()
    ]
    answered = bool(bars) or patient.is_answered("drugs" if plan.drugs else "Condition")
    bars.sort(key=lambda x: (x.first is None, x.first or 0, x.last or 0))
    return Lane(plan.title, bool(plan.drugs), tuple(bars), answered)


def _of_drug(patient: PatientFacts, plan: LanePlan, drug: Drug, kind: str) -> Bar:
    last = drug.last.last if drug.last is not None else None
    if plan.last_dose is not None:
        last = plan.last_dose(patient, drug)
    elif drug.runs:
        last = patient.today
    acts_until = plan.acts_until(patient, drug) if plan.acts_until is not None else None
    first = drug.first.first if drug.first is not None else None
    return Bar(
        reference=drug.reference,
        title=drug.title,
        kind=kind,
        dates=_dates(drug, last, patient.today),
        first=first,
        last=last,
        acts_until=acts_until,
        remark="" if first is not None else "without a start date",
    )


def _dates(drug: Drug, last: int | None, today: int) -> str:
    """When a drug was given: its first day as recorded, and the last that counts."""
    first = drug.first.text if drug.first is not None else ""
    if last is None:
        return first or "undated"
    if drug.runs and last == today:
        return f"since {first}" if first else "running, undated"
    one_day = drug.first is not None and drug.first.last >= last
    return first if one_day else f"{first or 'undated'} to {as_text(last)}"


def _of_problem(problem: Problem, kind: str) -> Bar:
    moment = problem.moment
    return Bar(
        reference=problem.reference,
        title=problem.title,
        kind=kind,
        dates=moment.text if moment is not None else "undated",
        first=moment.first if moment is not None else None,
        last=moment.last if moment is not None else None,
        remark="" if problem.firm else "unconfirmed",
    )

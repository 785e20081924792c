"""What the picture of a patient's results shows: points with the limits they were judged by, those
that were not used with the reason, and beneath them drugs and problems.

The content says which measures, drugs and problems (shared/trend.toml).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cds_service.content import Content, LanePlan, PanelPlan, TrendPlan
from cds_service.dates import Moment, as_text
from cds_service.entries import Drug, Problem
from cds_service.evidence import Rejected, Undecided
from cds_service.facts import Judged, Measured, PatientFacts, Result
from cds_service.quantity import Quantity, finite_number
from cds_service.results import MeasureOf, short

NO_LIMITS = "no limits to judge it by"
NO_UNIT = "no unit sent: it has no place on the scale, and only its own limits judge it"


@dataclass(frozen=True, slots=True)
class Point:
    """A result. `number`, `low`, `high` and `lines` are in the unit of the panel (None: has no
    place there); `sent`, `limits` and `said_lines` are texts, in the unit that was sent.
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
    used: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """The results of a measure, oldest first; `answered` says whether the chart was asked for
    them.
    """

    measure: str
    title: str
    unit: str
    lines: tuple[str, ...]
    points: tuple[Point, ...]
    answered: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A record of a drug, or a problem: the days it spans (None: not known), and the last on which
    it may still act; `title` is text of the chart.
    """

    reference: str
    title: str
    dates: str
    first: int | None
    last: int | None
    acts_until: int | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """Drugs, or problems, of one kind, oldest first."""

    title: str
    is_drugs: bool
    bars: tuple[Bar, ...]
    answered: bool


@dataclass(frozen=True, slots=True)
class Trend:
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
    unit, scale = _unit(measure, patient.measured(plan.measure))
    points = [*_used(patient, content, plan, scale)]
    points += [_rejected(x, measure, scale) for x in patient.rejected(plan.measure)]
    return Panel(
        measure=plan.measure,
        title=measure.title,
        unit=unit,
        lines=tuple(title for title, _ in plan.lines),
        points=tuple(sorted(points, key=_oldest_first)),
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
    scales = {x.as_sent(Quantity(Decimal(1), measure.unit)) for x in sent}
    if len(scales) == 1:
        return sent[0].unit_as_sent, scales.pop()
    return measure.unit, Decimal(1)


def _used(
    patient: PatientFacts, content: Content, plan: PanelPlan, scale: Decimal
) -> Iterable[Point]:
    """The numbers that can be judged, and those for which there are no limits."""
    judged, lines = _judged(patient, plan)
    by_number = {id(x.measured): x for x in judged}
    for number in patient.measured(plan.measure):
        found = by_number.get(id(number))
        if found is None:
            result, value = number.result, number.value
            where = value.value * scale if number.has_unit else None
            yield Point(
                result.reference,
                number.moment,
                _sent(result),
                where,
                value.comparator,
                used=False,
                why=NO_LIMITS,
            )
        else:
            said = [limit(patient, found) for _, limit in plan.lines] if lines else []
            aside = patient.asides.get(number.result.reference, "")
            yield _point(content, found, said, scale, content.words.set_aside.get(aside, ""))


def _judged(patient: PatientFacts, plan: PanelPlan) -> tuple[Sequence[Judged], bool]:
    """The numbers as the content judges them, and whether it could: a definition that lacks data
    leaves the limits of report, age and sex.
    """
    if plan.judged_by is not None:
        try:
            return plan.judged_by(patient), True
        except Undecided:
            return patient.judged(plan.measure), False
    return patient.judged(plan.measure), True


def _point(
    content: Content, judged: Judged, lines: Sequence[Quantity | None], scale: Decimal, aside: str
) -> Point:
    measured, source = judged.measured, judged.limit_from
    has_place = measured.has_unit
    limits = _between(measured, judged.low, judged.high)

    def placed(quantity: Quantity | None) -> Decimal | None:
        return quantity.value * scale if quantity is not None and has_place else None

    return Point(
        reference=measured.result.reference,
        moment=judged.moment,
        sent=_sent(measured.result),
        number=placed(judged.value),
        comparator=judged.value.comparator,
        low=placed(judged.low),
        high=placed(judged.high),
        limits=f"{limits} ({content.words.limit_from.get(source, source)})" if limits else "",
        lines=tuple(placed(x) for x in lines),
        said_lines=tuple("" if x is None else short(measured.as_sent(x)) for x in lines),
        used=not aside,
        why=aside or ("" if has_place else NO_UNIT),
    )


def _between(measured: Measured, low: Quantity | None, high: Quantity | None) -> str:
    said = ["" if x is None else short(measured.as_sent(x)) for x in (low, high)]
    if all(said):
        return " to ".join(said)
    return f"from {said[0]}" if said[0] else f"up to {said[1]}" if said[1] else ""


def _sent(result: Result) -> str:
    """Value and unit as the chart has them: text of the chart."""
    return result.evidence().get("value", "no value")


def _rejected(rejected: Rejected, measure: MeasureOf, scale: Decimal) -> Point:
    """A result that could not be used; somebody else's without its value."""
    result: Result = rejected.entry
    amount = result.resource.value_quantity
    number = None
    if amount is not None and not rejected.foreign:
        value = finite_number(amount.value)
        factor = measure.units.factor(measure.unit, amount.code, amount.unit)
        if value is not None and factor is not None and value > 0:
            number = value * factor * scale
    return Point(
        reference=result.reference,
        moment=result.moment,
        sent="not shown" if rejected.foreign else _sent(result),
        number=number,
        comparator=(amount.comparator or "") if number is not None and amount is not None else "",
        used=False,
        why=rejected.why,
    )


# -- lanes -------------------------------------------------------------------------------------


def _lane(patient: PatientFacts, plan: LanePlan) -> Lane:
    bars: list[Bar] = []
    if plan.drugs:
        drugs = {id(x): x for name in plan.drugs for x in patient.drugs(name)}
        bars += [_of_drug(patient, plan, x) for x in drugs.values()]
    else:
        problems = {id(x): x for name in plan.problems for x in patient.problems(name)}
        bars += [_of_problem(x) for x in problems.values()]
    answered = bool(bars) or patient.is_answered("drugs" if plan.drugs else "Condition")
    bars.sort(key=lambda x: (x.first is None, x.first or 0, x.last or 0))
    return Lane(plan.title, bool(plan.drugs), tuple(bars), answered)


def _of_drug(patient: PatientFacts, plan: LanePlan, drug: Drug) -> Bar:
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


def _of_problem(problem: Problem) -> Bar:
    moment = problem.moment
    return Bar(
        reference=problem.reference,
        title=problem.title,
        dates=moment.text if moment is not None else "undated",
        first=moment.first if moment is not None else None,
        last=moment.last if moment is not None else None,
        remark="" if problem.firm else "unconfirmed",
    )

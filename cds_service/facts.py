"""PatientFacts: the questions a rule may ask about one patient on one day; every answer leaves its
evidence.

An empty answer is a fact only when its source was answered; otherwise it is unknown.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType

from msgspec import Struct

from cds_service.dates import Moment, as_text, completed_years, parse_date
from cds_service.entries import (
    INPATIENT,
    STAY,
    Act,
    Draft,
    Drug,
    Entry,
    Problem,
    Report,
    Request,
    Stay,
)
from cds_service.evidence import (
    Answer,
    Rejected,
    Trace,
    any_of,
    finding,
    gate,
    question,
    surely,
)
from cds_service.holdings import Holdings
from cds_service.prefetch import Chart, PrefetchKey
from cds_service.quantity import Quantity
from cds_service.resources import DRUG_TYPES
from cds_service.results import Judged, Measured, MeasureOf, Result, short
from cds_service.terminology import Terminology

__all__ = [
    "Answer",
    "Draft",
    "Drug",
    "Entry",
    "Judged",
    "Measured",
    "Moment",
    "PatientFacts",
    "Problem",
    "Report",
    "Result",
    "Stay",
    "any_of",
    "finding",
    "gate",
    "question",
    "surely",
]

_DRUG_TYPES = tuple(kind.__name__ for kind in DRUG_TYPES)


READ_HERE = frozenset({"ordered_window"})  # the limits that this module reads itself


class Limits:
    """The numbers a clinician may change, by name, each with its unit."""

    def __init__(self, values: Mapping[str, Quantity]) -> None:
        self.values = MappingProxyType(dict(values))
        vars(self).update(values)

    def __getattr__(self, name: str) -> Quantity:
        raise AttributeError(f"no limit is named {name}")


class Interval(Struct, frozen=True):
    """A fallback reference interval: ages in days (half open), and the sex it is for; None is no
    limit on that side.
    """

    from_age: Quantity
    to_age: Quantity
    sex: str | None
    low: Quantity | None
    high: Quantity | None


class OrderRule(Struct, frozen=True):
    """When a test counts as done: any of these combinations of sets, inside the window (None:
    ever).
    """

    name: str
    title: str
    done_by: tuple[tuple[str, ...], ...]
    window: Quantity | None
    never_done: bool = False
    orderable: bool = True


class Knowledge(Struct, frozen=True):
    """The content that questions rest on."""

    terminology: Terminology
    measures: Mapping[str, MeasureOf]
    intervals: Mapping[str, tuple[Interval, ...]]
    limits: Limits
    orders: Mapping[str, OrderRule]


class PatientFacts:
    """One patient on one day, as rules see them."""

    today: int
    sex: str | None
    born: Moment | None
    limit: Limits

    def __init__(
        self,
        chart: Chart,
        knowledge: Knowledge,
        today: int,
        go_on: Callable[[], object] = lambda: None,
    ) -> None:
        """`go_on` is asked while the chart is read, and raises what ends the call."""
        self.chart = chart
        self.today = today
        self.limit = knowledge.limits
        self.trace = Trace()
        self._knowledge = knowledge
        self._terms = knowledge.terminology
        self._held = Holdings(chart, knowledge.terminology, today, go_on)
        self.asides: dict[str, str] = {}
        self._lacking: dict[str, list[PrefetchKey]] = {}
        self._go_on = go_on
        self._encounters_of: dict[str, list[Stay]] = {}
        self._measured: dict[str, tuple[list[Measured], list[Rejected]]] = {}
        self._of_days: dict[str, dict[int, list[Measured]]] = {}
        self._judged: dict[str, list[Judged]] = {}
        self._beside: dict[str, dict[int | str, list[Judged]]] = {}
        self._fallback: dict[tuple[str, int], tuple[Quantity | None, Quantity | None]] = {}
        patient = chart.patient
        gender = patient.gender if patient is not None else None
        self.sex = gender if gender in ("female", "male") else None
        born = (
            parse_date(patient.birth_date) if patient is not None and patient.birth_date else None
        )
        self.born = born.up_to(today) if born is not None else None

    # -- who -----------------------------------------------------------------------------------

    def ages(self, day: int) -> tuple[int, int] | None:
        """Completed years the patient can have had on a day, youngest and oldest.

        None without a birth date.
        """
        if self.born is None:
            return None
        return completed_years(self.born.last, day), completed_years(self.born.first, day)

    def is_at_least(self, age: Quantity) -> Answer:
        """Whether the patient has that age today, whatever day a partial birth date means;
        a gate.
        """
        key = ("at-least", age)
        return self._ask(key, "age", f"Aged {age.years} or more?", self._of_age, age, gate=True)

    def _of_age(self, age: Quantity) -> Answer:
        ages = self.ages(self.today)
        if ages is None:
            return self.trace.answer(None, ("patient",))
        return self.trace.answer(ages[0] >= age.years)

    def is_of_known_age(self) -> Answer:
        """Whether the chart gives a birth date; unknown, not no, when it gives none."""
        text = "Birth date known?"
        return self._ask(("known-age",), "birth-date", text, self._of_known_age, gate=True)

    def _of_known_age(self) -> Answer:
        if self.born is None:
            return self.trace.answer(None, ("patient",))
        return self.trace.answer(True)

    def is_younger_than(self, age: Quantity) -> Answer:
        """Whether the patient is certainly younger than that age today."""
        ages = self.ages(self.today)
        if ages is None:
            return self.trace.answer(None, ("patient",))
        return self.trace.answer(ages[1] < age.years)

    def is_deceased(self) -> bool:
        """Whether the chart says that the patient has died."""
        patient = self.chart.patient
        return patient is not None and bool(patient.deceased_boolean or patient.deceased_date_time)

    # -- asking --------------------------------------------------------------------------------

    def _ask(
        self,
        key: tuple[object, ...],
        name: str,
        text: str,
        ask: Callable[..., Answer],
        *args: object,
        gate: bool = False,
    ) -> Answer:
        trace = self.trace
        record = trace.known(key) or trace.ask(key, name, text, gate, ask, *args)
        record.raise_undecided()
        answer: Answer = record.answer
        return answer

    def settled(self, found: object, *kinds: str) -> Answer:
        """Yes when something was found; else no, or unknown while a kind of data was not answered.

        A kind is a resource type, "drugs", or the name of a set of observation codes.
        """
        if found:
            return self.trace.answer(True)
        missing = tuple(name for kind in kinds for name in self._missing(kind))
        return self.trace.answer(None if missing else False, missing)

    def _missing(self, kind: str) -> tuple[str, ...]:
        """The keys that a no would need; those that only supplement others are named as not
        checked.
        """
        lacking = self._lacking.get(kind)
        if lacking is None:
            lacking = self._lacking[kind] = self._unanswered(kind)
        if not lacking:
            return ()
        self.trace.frame.unchecked += [x.name for x in lacking if x.supplements]
        return tuple(x.name for x in lacking if not x.supplements)

    def _unanswered(self, kind: str) -> list[PrefetchKey]:
        """The keys of a kind that were not answered; none when a set of codes was, by any key."""
        types = _DRUG_TYPES if kind == "drugs" else (kind,)
        asked = [
            source
            for source in self.chart.sources.values()
            if source.key.type in types or kind in source.key.value_sets
        ]
        if kind in self._terms and any(x.state == "answered" for x in asked):
            return []
        return [source.key for source in asked if source.state != "answered"]

    def is_answered(self, kind: str) -> bool:
        """Whether a kind of data was answered; if not, the card names it as not checked."""
        missing = self._missing(kind)
        self.trace.frame.unchecked += missing
        return not missing

    def remark(self, name: str, **values: str) -> None:
        """Something the card has to say about the data, by the name of its sentence in the
        content.
        """
        self.trace.frame.remarks.append((name, values))

    def set_aside(self, judged: Judged, reason: str) -> None:
        """Notes that a number does not count here, by the name of the reason in the content."""
        self.trace.frame.rejected.append([Rejected(judged.measured.result, reason)])
        self.asides[judged.measured.result.reference] = reason

    def unusable(self) -> Answer:
        """The answer when there were results and none could be used."""
        return self.trace.answer(None, (), True)

    def use(self, *entries: object) -> None:
        """Names entries as what the present question rests on."""
        self.trace.frame.used.append(entries)

    # -- problems ------------------------------------------------------------------------------

    def has(
        self,
        name: str,
        *,
        active: bool = False,
        within: Quantity | None = None,
        silencing: bool = False,
    ) -> Answer:
        """Whether a problem of the set is on record: active, or dated within a window before today.

        `silencing` is for lines that keep a row quiet: unconfirmed entries do not count, and a
        partial date counts when any day it can mean does.
        """
        key = ("has", name, active, within, silencing)
        text = self._terms.sets[name].title + (" active?" if active else " on record?")
        return self._ask(key, name, text, self._has, name, active, within, silencing)

    def _has(self, name: str, active: bool, within: Quantity | None, silencing: bool) -> Answer:
        found = [
            x
            for x in self.problems(name, silencing=silencing)
            if (x.active or not active)
            and (within is None or x.within(within, self.today, silencing=silencing))
        ]
        self.trace.frame.used.append(found)
        return self.settled(found, "Condition")

    def problems(self, name: str, *, silencing: bool = False) -> list[Problem]:
        """The problems of a set; unconfirmed ones do not count where they would silence."""
        found = self._held.problems(name)
        return [x for x in found if x.firm] if silencing else found

    def says(self, name: str, text: str) -> bool:
        """Whether a text matches a set's pattern in a sentence that is not negated."""
        self._go_on()
        return self._terms.says(name, text)

    def sentences(self, name: str, text: str) -> str:
        """The sentences of a text that match a set's pattern and are not negated, "" when none."""
        return ". ".join(self._terms.sentences_saying(name, text))

    def matches(self, name: str, entry: Entry) -> bool:
        """Whether an entry's own code or text belongs to a set."""
        return name in self._terms.of_concept(entry.resource.code)

    def is_coded(self, name: str, entry: Entry) -> bool:
        """Whether one of an entry's codes, not only its text, belongs to a set."""
        return name in self._terms.of_code(entry.resource.code)

    # -- results -------------------------------------------------------------------------------

    def final(self, name: str) -> list[Result]:
        """The final, dated results coded in a set, newest first."""
        found = [x for x in self._held.results(name) if x.final and x.moment is not None]
        return sorted(found, key=_newest_first, reverse=True)

    def sent(self, name: str) -> list[Result]:
        """Whatever of a set was sent about the patient: of any status, readable or not, and what
        only looks like it.
        """
        held = self._held
        return [*held.results(name), *held.look_alikes(name), *held.absent_results(name)]

    def measured(self, measure: str) -> list[Measured]:
        """The usable numbers of a measure, newest first; the rest are rejected, each with its
        reason.
        """
        known = self._measured.get(measure)
        if known is None:
            known = self._measured[measure] = self._measure(measure)
        frame = self.trace.frame
        frame.used.append(known[0])
        frame.rejected.append(known[1])
        return known[0]

    def measured_on(self, measure: str, day: int) -> list[Measured]:
        """The usable numbers of a measure that were drawn on one day, newest first."""
        self._go_on()
        numbers = self.measured(measure)
        known = self._of_days.get(measure)
        if known is None:
            known = self._of_days[measure] = {}
            for number in numbers:
                known.setdefault(number.moment.first, []).append(number)
        return known.get(day, [])

    def rejected(self, measure: str) -> list[Rejected]:
        """The results of a measure that could not be used."""
        self.measured(measure)
        return self._measured[measure][1]

    def _measure(self, name: str) -> tuple[list[Measured], list[Rejected]]:
        measure = self._knowledge.measures[name]
        usable: list[Measured] = []
        rejected: list[Rejected] = []
        for result in self._held.results(measure.value_set):
            outcome = result.measured(measure, self.sex)
            if isinstance(outcome, str):
                rejected.append(Rejected(result, outcome))
            elif measure.not_specimen and self.says(measure.not_specimen, result.specimen):
                rejected.append(Rejected(result, "another specimen"))
            else:
                usable.append(outcome)
        for result in self._held.foreign_results(measure.value_set):
            rejected.append(Rejected(result, "belongs to another patient", foreign=True))
        for result in self._held.look_alikes(measure.value_set):
            rejected.append(Rejected(result, "looks like it, but carries no known code"))
        return sorted(usable, key=_newest_first, reverse=True), rejected

    def judged(self, measure: str) -> list[Judged]:
        """The usable numbers of a measure with their limits, newest first: printed, else
        fallback.
        """
        known = self._judged.get(measure)
        if known is None:
            numbers = self.measured(measure)
            known = self._judged[measure] = [self._judge(measure, x) for x in numbers]
        self.trace.frame.used.append(known)
        return known

    def _judge(self, measure: str, number: Measured) -> Judged:
        low, high, limit_from = number.low, number.high, "report"
        if (low is None or high is None) and number.has_unit:
            other = self.fallback(measure, number.moment.first)
            if low is None and high is None:
                limit_from = "fallback"
            elif (low is None and other[0]) or (high is None and other[1]):
                limit_from = "completed"
            low, high = low or other[0], high or other[1]
        return Judged(number, low, high, limit_from)

    def judged_beside(self, measure: str, result: Result) -> list[Judged]:
        """The judged numbers of a measure that may come from a result's specimen: of the same day,
        or naming the same.
        """
        self._go_on()
        numbers = self.judged(measure)
        known = self._beside.get(measure)
        if known is None:
            known = self._beside[measure] = {}
            for number in numbers:
                for mark in _marks(number.measured.result):
                    known.setdefault(mark, []).append(number)
        found = (number for mark in _marks(result) for number in known.get(mark, ()))
        return list(dict.fromkeys(found))

    def latest_within(self, measure: str, window: Quantity) -> Judged | None:
        """The newest number of a measure inside a window before today."""
        days, today = window.days, self.today
        return next((x for x in self.judged(measure) if x.moment.surely_within(days, today)), None)

    def fallback(self, measure: str, day: int) -> tuple[Quantity | None, Quantity | None]:
        """The fallback limits for the patient's age on a day and sex; the widest where either is
        open.

        None for each that there is none of, or that depends on an age that the chart does not give.
        """
        known = self._fallback.get((measure, day))
        if known is None:
            known = self._fallback[measure, day] = self._fallback_on(measure, day)
        return known

    def _fallback_on(self, measure: str, day: int) -> tuple[Quantity | None, Quantity | None]:
        rows = self._knowledge.intervals.get(measure, ())
        if self.born is not None:
            oldest, youngest = _age(self.born.first, day), _age(self.born.last, day)
            rows = tuple(
                x
                for x in rows
                if oldest[x.from_age.unit] >= x.from_age.value
                and youngest[x.to_age.unit] < x.to_age.value
            )
        elif len({(x.from_age, x.to_age) for x in rows}) > 1:
            return None, None
        rows = tuple(x for x in rows if x.sex is None or self.sex is None or x.sex == self.sex)
        lows = [x.low for x in rows if x.low is not None]
        highs = [x.high for x in rows if x.high is not None]
        return (
            min(lows, key=lambda x: x.value, default=None),
            max(highs, key=lambda x: x.value, default=None),
        )

    def day_said(self, result: Result) -> Moment | None:
        """The date that a result states, which may lie in the future; None when it states none."""
        said = result.resource.value_date_time
        return parse_date(said) if said else None

    def judged_in_trace(self) -> dict[str, list[Judged]]:
        """The numbers of each measure that was looked at, as a definition of the content judged
        them.
        """
        found: dict[str, list[Judged]] = {}
        outcomes = [x for x in self.trace.outcomes() if isinstance(x, list)]
        for name in self._measured:
            value_set = self._knowledge.measures[name].value_set
            judged = [
                x
                for outcome in outcomes
                for x in outcome
                if isinstance(x, Judged) and value_set in x.measured.result.sets
            ]
            found[name] = judged or self.judged(name)
        return found

    # -- numbers as words ----------------------------------------------------------------------

    def shown(self, judged: Judged) -> dict[str, str]:
        """The placeholders of a number as sent: val, unit, lln, and x times its upper limit."""
        measured, low = judged.measured, judged.low
        return {
            "val": judged.value.comparator + short(measured.as_sent(judged.value)),
            "unit": measured.unit_as_sent,
            "lln": short(measured.as_sent(low)) if low is not None else "",
            "x": self.times(judged),
        }

    def as_printed(self, judged: Judged, quantity: Quantity) -> str:
        """A limit in the unit in which a number was sent."""
        return short(judged.measured.as_sent(quantity))

    def times(self, judged: Judged | None) -> str:
        """How many times its upper limit a number is, to one decimal; "" when not known."""
        return self.to_one_decimal(judged.times_high if judged is not None else None)

    def to_one_decimal(self, number: Quantity | None, *, cut: bool = False) -> str:
        """A ratio to one decimal, a bound without its sign; "" when not known.

        `cut` rounds down, so that a number just below a limit is not shown as the limit.
        """
        if number is None:
            return ""
        value = Decimal(int(number.value * 10)) / 10 if cut else number.value
        return f"{value:.1f}"

    def amount(self, judged: Judged) -> str:
        """A number with its unit as the laboratory sent it."""
        shown = self.shown(judged)
        return f"{shown['val']} {shown['unit']}".strip()

    # -- drugs, procedures, stays, reports -----------------------------------------------------

    def drugs(self, name: str) -> list[Drug]:
        """The records of drugs of a set that were meant or given."""
        return self._held.drugs(name)

    def drafts(self, name: str) -> list[Draft]:
        """The draft prescriptions of a set that the call is about; the others are named as what
        they are not.
        """
        found = self._held.drafts(name)
        these = frozenset(found)
        others = [x for x in self._held.drafts("*") if x not in these]
        self.trace.frame.rejected.append(
            [Rejected(x, "of another drug" if x.name else "names no drug") for x in others]
        )
        return found

    def acts(self, name: str) -> list[Act]:
        """The completed procedures of a set."""
        return self._held.acts(name)

    def reports(self, name: str = "*") -> list[Report]:
        """The final diagnostic reports, of a set or all."""
        return self._held.reports(name)

    def requests(self, name: str) -> list[Request]:
        """The open service requests of a set."""
        return self._held.requests(name)

    def stays(self) -> list[Stay]:
        """The inpatient and observation encounters."""
        return [x for x in self._held.encounters() if x.kind in STAY and x.start is not None]

    def encounters_of(self, name: str) -> list[Stay]:
        """The encounters whose type belongs to a set, or whose class or location says so."""
        known = self._encounters_of.get(name)
        if known is None:
            known = self._encounters_of[name] = [
                x
                for x in self._held.encounters()
                if name in x.sets or any(self.says(name, text) for text in x.places)
            ]
        return known

    def is_inpatient(self) -> Answer:
        """Whether the patient is in hospital today."""
        return self._ask(("inpatient",), "inpatient", "In hospital today?", self._is_inpatient)

    def _is_inpatient(self) -> Answer:
        today = Moment(self.today, self.today, "", as_text(self.today))
        found = [
            x for x in self.stays() if x.kind in INPATIENT and x.is_under_way and x.covers(today)
        ]
        self.trace.frame.used.append(found)
        return self.settled(found, "Encounter")

    # -- orders --------------------------------------------------------------------------------

    def done(self, order: str, since: int | None = None) -> Answer:
        """Whether a test has been done inside its window, or since a day, whatever it showed."""
        rule = self._knowledge.orders[order]
        key = ("done", order, since)
        return self._ask(key, f"{order}-done", f"{rule.title}: done?", self._done, rule, since)

    def _done(self, rule: OrderRule, since: int | None) -> Answer:
        if rule.never_done:
            return self.trace.answer(False)
        found = self._done_by(rule, since)
        self.trace.frame.used.append(found)
        return self.settled(found, *(x for row in rule.done_by for x in row), "DiagnosticReport")

    def when_done(self, order: str, since: int | None = None) -> Moment | None:
        """When a test was done last that counts as done; None when none does."""
        rule = self._knowledge.orders[order]
        found = [] if rule.never_done else self._done_by(rule, since)
        moments = [x.moment for x in found if x.moment is not None]
        return max(moments, key=lambda x: x.last, default=None)

    def _done_by(self, rule: OrderRule, since: int | None) -> list[Entry]:
        """One entry of each set of the first combination that counts as done, none when none
        does.
        """
        first = since
        if first is None and rule.window is not None:
            first = self.today - rule.window.days
        for combination in ((f"order-{rule.name}",), *rule.done_by):
            each = [self._finished(name, first) for name in combination]
            if all(each):
                return [entries[0] for entries in each]
        return []

    def _finished(self, name: str, first: int | None) -> list[Entry]:
        entries: list[Entry] = [*self.final(name), *self._held.reports(name)]
        return [
            x for x in entries if x.moment is not None and (first is None or x.moment.last >= first)
        ]

    def ordered(self, order: str) -> Answer:
        """Whether a test is on order: an open request authored inside the window."""
        rule = self._knowledge.orders[order]
        key = ("ordered", order)
        return self._ask(key, f"{order}-ordered", f"{rule.title}: on order?", self._ordered, rule)

    def _ordered(self, rule: OrderRule) -> Answer:
        found: list[Request] = []
        for combination in ((f"order-{rule.name}",), *rule.done_by):
            each = [self._open_requests(name) for name in combination]
            if all(each):
                found = [requests[0] for requests in each]
                break
        self.trace.frame.used.append(found)
        return self.settled(found, "ServiceRequest")

    def _open_requests(self, name: str) -> list[Request]:
        """The open requests of a set inside the window; a draft needs no date."""
        window, today = self.limit.ordered_window, self.today
        return [
            x
            for x in self.requests(name)
            if x.within(window, today, silencing=True) or (x.is_draft and x.moment is None)
        ]

    def is_orderable(self, order: str) -> bool:
        """Whether the site can order the test."""
        return self._knowledge.orders[order].orderable


def _marks(result: Result) -> Iterator[int | str]:
    """By what results of one specimen are found: its name, and the day."""
    if result.moment is not None:
        yield result.moment.first
    specimen = result.resource.specimen
    if specimen is not None and specimen.reference:
        yield specimen.reference


def _age(born: int, day: int) -> dict[str, int]:
    """The age on a day of somebody born on another, in each unit of an age."""
    return {"a": completed_years(born, day), "d": day - born}


def _newest_first(entry: Entry | Measured) -> tuple[int, int, str]:
    moment = entry.moment
    return (moment.first, moment.last, moment.clock) if moment is not None else (0, 0, "")

"""What a chart holds, as rules see it: dated, coded entries made from FHIR resources."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from msgspec import Struct

from cds_service.dates import Moment, parse_date
from cds_service.quantity import Quantity, finite_number
from cds_service.resources import (
    CodeableConcept,
    Condition,
    DiagnosticReport,
    Dosage,
    Encounter,
    MedicationAdministration,
    MedicationRequest,
    MedicationStatement,
    Period,
    Procedure,
    Resource,
    ServiceRequest,
)
from cds_service.terminology import spoken

FINAL = frozenset({"final", "amended", "corrected"})
SIMPLY_ABSENT = frozenset({"entered-in-error", "cancelled", "registered"})
NEVER_TRUE = frozenset({"entered-in-error", "refuted"})
NOT_FIRM = frozenset({"unconfirmed", "provisional", "differential"})
ACTIVE = frozenset({"active", "recurrence", "relapse"})
INPATIENT = frozenset({"IMP", "ACUTE", "NONAC", "SS"})
STAY = INPATIENT | {"OBSENC"}
GIVEN_UP = frozenset({"cancelled", "stopped", "completed", "entered-in-error"})


def first_date(today: int, *texts: str | None) -> Moment | None:
    """The first text that is a date; None when none is, or when it lies in the future."""
    for text in texts:
        if text and (parsed := parse_date(text)) is not None:
            return parsed.up_to(today)
    return None


def start_of(period: Period | None) -> str | None:
    return period.start if period is not None else None


def end_of(period: Period | None) -> str | None:
    return period.end if period is not None else None


def codes_of(concept: CodeableConcept | None) -> frozenset[str]:
    """The codes of a concept's codings whatever their system, for FHIR's own small code lists."""
    return (
        frozenset(x.code for x in concept.coding if x.code) if concept is not None else frozenset()
    )


def title_of(concept: CodeableConcept | None) -> str:
    """What the chart calls it: patient text, to be escaped wherever it is shown."""
    return next(iter(spoken(concept)), "") if concept is not None else ""


class Entry:
    """An entry of the chart: its resource, the sets it belongs to, and its date (None when
    undated).
    """

    __slots__ = ("moment", "resource", "sets")

    resource: Any

    def __init__(self, resource: Resource, sets: frozenset[str], moment: Moment | None) -> None:
        self.resource = resource
        self.sets = sets
        self.moment = moment

    @property
    def reference(self) -> str:
        """`Type/id`, or the type alone for an entry without id."""
        kind = type(self.resource).__name__
        return f"{kind}/{self.resource.id}" if self.resource.id else kind

    @property
    def title(self) -> str:
        """What the chart calls it."""
        return title_of(self.resource.code)

    def evidence(self) -> dict[str, str]:
        """The entry as the explanation lists it."""
        shown = {"reference": self.reference}
        if self.moment is not None:
            shown["date"] = self.moment.text
        if text := self.title:
            shown["value"] = text
        return shown

    def within(self, days: Quantity, day: int, *, silencing: bool = False) -> bool:
        """Whether it is dated 0 to `days` before `day`; an undated entry meets no window.

        A partial date counts when every day it can mean does; for a line that silences, when any
        day does.
        """
        if self.moment is None:
            return False
        if silencing:
            return self.moment.possibly_within(days.days, day)
        return self.moment.surely_within(days.days, day)


class Problem(Entry):
    """A Condition that is neither refuted nor entered in error."""

    __slots__ = ("active", "firm")

    def __init__(self, resource: Condition, sets: frozenset[str], today: int) -> None:
        moment = first_date(
            today, resource.onset_date_time, start_of(resource.onset_period), resource.recorded_date
        )
        super().__init__(resource, sets, moment)
        status = codes_of(resource.clinical_status)
        self.active = bool(status & ACTIVE) if status else not self._has_abatement(resource)
        self.firm = not codes_of(resource.verification_status) & NOT_FIRM

    @staticmethod
    def _has_abatement(resource: Condition) -> bool:
        return any(
            x not in (None, False)
            for x in (
                resource.abatement_date_time,
                resource.abatement_period,
                resource.abatement_string,
                resource.abatement_age,
                resource.abatement_range,
                resource.abatement_boolean,
            )
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """What the chart says it is, each text a sentence of its own."""
        return spoken(self.resource.code) if self.resource.code is not None else ()

    def ended(self, today: int) -> Moment | None:
        """When it abated, if a date says so."""
        resource = self.resource
        return first_date(today, resource.abatement_date_time, end_of(resource.abatement_period))

    @staticmethod
    def counts(resource: Condition) -> bool:
        """Whether the entry says that the patient had it."""
        return not codes_of(resource.verification_status) & NEVER_TRUE


class Medicine(Struct, frozen=True):
    """What a record or a draft says the drug is: the sets it belongs to, what the chart calls it
    ("": nothing), and what it was identified by.
    """

    sets: frozenset[str]
    name: str
    identified_by: str


class Prescribed(Entry):
    """A drug with its dosage, recorded or drafted."""

    __slots__ = ("dosages", "identified_by", "name")

    def __init__(self, resource: Resource, medicine: Medicine, moment: Moment | None) -> None:
        super().__init__(resource, medicine.sets, moment)
        self.name = medicine.name
        self.identified_by = medicine.identified_by
        self.dosages: list[Dosage] = getattr(resource, "dosage_instruction", None) or getattr(
            resource, "dosage", []
        )

    def evidence(self) -> dict[str, str]:
        """The entry as the explanation lists it, with what the drug was identified by."""
        shown = super().evidence()
        return {**shown, "by": self.identified_by} if self.identified_by else shown

    @property
    def title(self) -> str:
        """What the chart calls the drug."""
        return self.name

    @property
    def routes(self) -> tuple[str, ...]:
        """What the record says of form and route: the drug's name, the dosage texts and the
        routes.
        """
        said = [self.name, *(x.text or "" for x in self.dosages)]
        said += [text for x in self.dosages if x.route is not None for text in spoken(x.route)]
        return tuple(x for x in said if x)

    @property
    def daily_milligrams(self) -> Decimal | None:
        """The dose of a day in mg: the first number of mg in the dosage, else in the name, times
        the doses a day.

        None when the dose is not said, or "twice daily" and the like only in words.
        """
        single = next((x for x in map(_milligrams, self.dosages) if x is not None), None)
        if single is None:
            single = _milligrams_in(self.name)
        times = _doses_a_day(self.dosages, self.name)
        return None if single is None or times is None else single * times


class Drug(Prescribed):
    """A MedicationRequest, -Administration or -Statement that says the drug was meant or given."""

    __slots__ = ("first", "has_end", "last", "runs")

    def __init__(self, resource: Resource, medicine: Medicine, today: int) -> None:
        moment, end = _dose_dates(resource, today)
        super().__init__(resource, medicine, moment)
        status = resource.status  # type: ignore[attr-defined]  # each of the three types has one
        active = status in ("active", "in-progress")
        self.runs = active and (end is None or end.last >= today)
        self.first = moment
        self.has_end = end is not None
        self.last = end or moment

    @staticmethod
    def counts(resource: Resource) -> bool:
        """Whether the record says that the drug was meant or given."""
        if isinstance(resource, MedicationAdministration):
            return resource.status in ("completed", "in-progress")
        if isinstance(resource, MedicationStatement):
            return resource.status not in ("entered-in-error", "not-taken", "intended")
        if isinstance(resource, MedicationRequest):
            return (
                resource.status in ("active", "on-hold", "completed", "stopped")
                and resource.intent not in ("proposal", "plan", "option")
                and not resource.do_not_perform
            )
        return False


class Draft(Prescribed):
    """A draft MedicationRequest that the call is about; `reasons` are the sets of what it is for,
    as the draft itself says.
    """

    __slots__ = ("reasons",)

    def __init__(
        self, resource: MedicationRequest, medicine: Medicine, reasons: frozenset[str], today: int
    ) -> None:
        super().__init__(resource, medicine, first_date(today, resource.authored_on))
        self.reasons = reasons

    @staticmethod
    def counts(resource: MedicationRequest) -> bool:
        """Whether signing it would give the drug: an order that is signed again has any status."""
        return resource.status not in GIVEN_UP and not resource.do_not_perform


def _dose_dates(resource: Resource, today: int) -> tuple[Moment | None, Moment | None]:
    """The first and, where one is given, the last day a record speaks for."""
    if isinstance(resource, MedicationRequest):
        ends = [
            end_of(x.timing.repeat.bounds_period)
            for x in resource.dosage_instruction
            if x.timing is not None and x.timing.repeat is not None
        ]
        dispense = resource.dispense_request
        first = first_date(today, resource.authored_on)
        return first, _last_day(end_of(dispense.validity_period if dispense else None), *ends)
    assert isinstance(resource, MedicationAdministration | MedicationStatement)
    period = resource.effective_period
    first = first_date(today, resource.effective_date_time, start_of(period))
    if isinstance(resource, MedicationAdministration) and period is None:
        return first, first  # one dose, on one day
    return first, _last_day(end_of(period))


# A number is looked at from its beginning only: at each of its digits anew, a long one takes hours.
_MILLIGRAMS = re.compile(r"(?<!\d)(\d+(?:\.\d+)?)\s*mg\b", re.IGNORECASE)
_DAYS_IN = {"d": Decimal(1), "wk": Decimal(7), "h": Decimal(1) / 24, "mo": Decimal("30.44")}


def _milligrams_in(text: str) -> Decimal | None:
    found = _MILLIGRAMS.search(text)
    return Decimal(found[1]) if found else None


def _milligrams(dosage: Dosage) -> Decimal | None:
    for part in dosage.dose_and_rate:
        amount = part.dose_quantity
        if amount is not None and "mg" in (amount.code, amount.unit):
            return finite_number(amount.value)
    return _milligrams_in(dosage.text or "")


_SEVERAL_A_DAY = re.compile(
    r"\b(?:twice|(?:two|three|four|[2-9]) times|[2-9] ?x|b\.?i\.?d|t\.?[id]\.?[ds]|q\.?i\.?d"
    r"|every \d+ (?:h|hours|hrs)|q ?\d+ ?h)\b"
)


def _doses_a_day(dosages: Iterable[Dosage], name: str) -> Decimal | None:
    """The coded doses a day; else one, a seventh where the words say weekly, None where they say
    several.
    """
    for dosage in dosages:
        repeat = dosage.timing.repeat if dosage.timing is not None else None
        if repeat is not None and repeat.period and repeat.period_unit in _DAYS_IN:
            times, period = finite_number(repeat.frequency or 1), finite_number(repeat.period)
            if times and period:
                return times / (period * _DAYS_IN[repeat.period_unit])
    words = " ".join([name, *(x.text or "" for x in dosages)]).lower()
    if "weekly" in words or "a week" in words:
        return Decimal(1) / 7
    return None if _SEVERAL_A_DAY.search(words) else Decimal(1)


def _last_day(*texts: str | None) -> Moment | None:
    """An end date, which may lie in the future."""
    return next((parsed for x in texts if x and (parsed := parse_date(x)) is not None), None)


class Act(Entry):
    """A completed Procedure."""

    __slots__ = ()

    def __init__(self, resource: Procedure, sets: frozenset[str], today: int) -> None:
        period = resource.performed_period
        moment = first_date(today, resource.performed_date_time, end_of(period), start_of(period))
        super().__init__(resource, sets, moment)


class Report(Entry):
    """A DiagnosticReport."""

    __slots__ = ()

    def __init__(self, resource: DiagnosticReport, sets: frozenset[str], today: int) -> None:
        period = resource.effective_period
        moment = first_date(today, resource.effective_date_time, end_of(period), resource.issued)
        super().__init__(resource, sets, moment)

    @property
    def final(self) -> bool:
        """Whether the report stands."""
        return self.resource.status in FINAL

    @property
    def conclusion(self) -> str:
        """Its conclusion, "" when none."""
        text: str | None = self.resource.conclusion
        return text or ""

    @property
    def texts(self) -> tuple[str, ...]:
        """What the report says in words."""
        return (self.conclusion,) if self.conclusion else ()


class Request(Entry):
    """A ServiceRequest."""

    __slots__ = ()

    def __init__(self, resource: ServiceRequest, sets: frozenset[str], today: int) -> None:
        super().__init__(resource, sets, first_date(today, resource.authored_on))

    @property
    def open(self) -> bool:
        """Whether the test is still to come."""
        resource = self.resource
        return resource.status in ("active", "draft", "on-hold") and not resource.do_not_perform

    @property
    def is_draft(self) -> bool:
        """Whether somebody is writing it at this moment."""
        return bool(self.resource.status == "draft")


class Stay(Entry):
    """An Encounter with a start."""

    __slots__ = ("end", "kind", "start")

    def __init__(self, resource: Encounter, sets: frozenset[str], today: int) -> None:
        start = first_date(today, start_of(resource.period))
        super().__init__(resource, sets, start)
        self.start = start
        self.end = _last_day(end_of(resource.period))
        self.kind = (resource.class_.code or "") if resource.class_ is not None else ""

    @property
    def title(self) -> str:
        """The kind of encounter."""
        return self.kind

    @property
    def places(self) -> tuple[str, ...]:
        """What the encounter says of itself: class, types and locations."""
        resource: Encounter = self.resource
        said = (
            [resource.class_.display, resource.class_.code] if resource.class_ is not None else []
        )
        said += [text for concept in resource.type for text in spoken(concept)]
        said += [x.location.display for x in resource.location if x.location is not None]
        return tuple(x for x in said if x)

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended."""
        return bool(self.resource.status == "in-progress")

    def covers(self, moment: Moment) -> bool:
        """Whether every day the moment can mean lies inside the stay, both ends included.

        A stay without an end lasts while it is under way, else the day it began.
        """
        if self.start is None or moment.first < self.start.first:
            return False
        if self.end is not None:
            return moment.last <= self.end.last
        return self.is_under_way or moment.last <= self.start.last

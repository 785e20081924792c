"""The entries of a chart by the sets they belong to, made once for a call and only when
asked for.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TypeVar

from cds_service.entries import (
    SIMPLY_ABSENT,
    Act,
    Draft,
    Drug,
    Entry,
    Medicine,
    Problem,
    Report,
    Request,
    Stay,
)
from cds_service.prefetch import Chart
from cds_service.resources import (
    CodeableConcept,
    Condition,
    Contained,
    DiagnosticReport,
    Encounter,
    Medication,
    MedicationAdministration,
    MedicationRequest,
    MedicationStatement,
    Observation,
    Procedure,
    Reference,
    Resource,
    ServiceRequest,
)
from cds_service.results import Result
from cds_service.terminology import LONGEST_READ, Terminology, spoken

NOT_HELD = frozenset({"entered-in-error", "cancelled", "planned"})
E = TypeVar("E", bound=Entry)
N = TypeVar("N", bound=Resource | Contained)
R = TypeVar("R", bound=Resource)


class Holdings:
    """What the chart holds, sorted by the value sets of the content."""

    def __init__(
        self, chart: Chart, terms: Terminology, today: int, go_on: Callable[[], object]
    ) -> None:
        self._chart = chart
        self._terms = terms
        self._today = today
        self._go_on = go_on  # raises what ends the call
        self._made: dict[int, Result] = {}
        self._results: dict[str, list[Result]] = {}

    def _sets_of(self, concept: CodeableConcept | None) -> frozenset[str]:
        """The sets of a concept; to look for them in new words is what takes longest in a call."""
        self._go_on()
        return self._terms.of_concept(concept)

    def problems(self, name: str) -> list[Problem]:
        """The Conditions of a set that are neither refuted nor entered in error."""
        return self._problems.get(name, [])

    @cached_property
    def _problems(self) -> dict[str, list[Problem]]:
        return _by_set(self._each_problem())

    def _each_problem(self) -> Iterable[Problem]:
        for resource in self._chart.of(Condition):
            if Problem.counts(resource):
                yield Problem(resource, self._sets_of(resource.code), self._today)

    def results(self, name: str) -> list[Result]:
        """The Observations coded in a set whose status lets them exist at all; those in none
        under "".
        """
        known = self._results.get(name)
        if known is None:
            coded = self._observations.get(name, ())
            known = self._results[name] = [self._result(x, sets) for x, sets in coded]
        return known

    @cached_property
    def _observations(self) -> dict[str, list[tuple[Observation, frozenset[str]]]]:
        """The Observations by set: most of a chart's are in none that anybody asks for."""
        by_set: dict[str, list[tuple[Observation, frozenset[str]]]] = {}
        for resource in self._chart.of(Observation):
            if resource.status not in SIMPLY_ABSENT:
                sets = self._terms.of_code(resource.code)
                for name in sets or ("",):
                    by_set.setdefault(name, []).append((resource, sets))
        return by_set

    def _result(self, resource: Observation, sets: frozenset[str]) -> Result:
        """The result of a resource, one however many sets it is in."""
        known = self._made.get(id(resource))
        if known is None:
            known = self._made[id(resource)] = Result(resource, sets, self._today)
        return known

    def absent_results(self, name: str) -> list[Result]:
        """The Observations of a set whose status says that there is no result."""
        return [
            Result(x, frozenset({name}), self._today)
            for x in self._chart.of(Observation)
            if x.status in SIMPLY_ABSENT and name in self._terms.of_code(x.code)
        ]

    def foreign_results(self, name: str) -> list[Result]:
        """Other people's Observations of a set that came with the chart."""
        return [
            Result(x, frozenset({name}), self._today)
            for x in self._chart.foreign
            if isinstance(x, Observation) and name in self._terms.of_code(x.code)
        ]

    def look_alikes(self, name: str) -> list[Result]:
        """Observations without a known code whose words look like a set's."""
        pattern = self._terms.sets[name].looks_like
        if pattern is None:
            return []
        return [
            x
            for x in self.results("")
            if any(pattern.search(text[:LONGEST_READ]) for text in texts_of(x.resource.code))
        ]

    def drugs(self, name: str) -> list[Drug]:
        """The records of drugs of a set that were meant or given."""
        return self._drugs.get(name, [])

    @cached_property
    def _drugs(self) -> dict[str, list[Drug]]:
        return _by_set(self._each_drug())

    def _each_drug(self) -> Iterable[Drug]:
        recorded: list[MedicationRequest | MedicationAdministration | MedicationStatement] = [
            *self._chart.of(MedicationRequest),
            *self._chart.of(MedicationAdministration),
            *self._chart.of(MedicationStatement),
        ]
        for resource in recorded:
            if Drug.counts(resource):
                yield Drug(resource, self._medicine(resource), self._today)

    def drafts(self, name: str) -> list[Draft]:
        """The draft prescriptions of a set that the call is about."""
        return self._drafts.get(name, [])

    @cached_property
    def _drafts(self) -> dict[str, list[Draft]]:
        return _by_set(self._each_draft())

    def _each_draft(self) -> Iterable[Draft]:
        for resource in self._chart.drafts:
            if isinstance(resource, MedicationRequest) and Draft.counts(resource):
                medicine, reasons = self._medicine(resource), self._reasons(resource)
                yield Draft(resource, medicine, reasons, self._today)

    def _reasons(self, draft: MedicationRequest) -> frozenset[str]:
        """The sets of what a draft is for: coded in it, or a problem of the chart that it names."""
        concepts: list[CodeableConcept | None] = [*draft.reason_code]
        contained_by_id = _by_id(draft.contained)
        followed: set[str] = set()
        for reason in draft.reason_reference:
            target = _target(reason)
            contained = contained_by_id.get(target, [])
            named = self._problems_by_id.get(target, [])
            if not named and not contained:
                concepts.append(CodeableConcept(text=reason.display))
            elif target not in followed:
                followed.add(target)
                concepts += [x.code for x in contained]
                concepts += [x.code for x in named if Problem.counts(x) and self._is_firm(x)]
        return frozenset(name for x in concepts for name in self._sets_of(x))

    @cached_property
    def _problems_by_id(self) -> dict[str | None, list[Condition]]:
        return _by_id((*self._chart.of(Condition), *self._beside(Condition)))

    def _is_firm(self, resource: Condition) -> bool:
        """Whether a problem is confirmed: what a draft is for silences rows."""
        return Problem(resource, frozenset(), self._today).firm

    def _beside(self, kind: type[R]) -> list[R]:
        """What came with the drafts."""
        return [x for x in (*self._chart.drafts, *self._chart.beside) if isinstance(x, kind)]

    def _medicine(
        self, resource: MedicationRequest | MedicationAdministration | MedicationStatement
    ) -> Medicine:
        concept = self._medication(resource)
        sets = self._sets_of(concept)
        by = self._terms.identified_by(concept) if sets else ""
        return Medicine(sets, next(iter(texts_of(concept)), ""), by)

    def _medication(
        self, resource: MedicationRequest | MedicationAdministration | MedicationStatement
    ) -> CodeableConcept | None:
        """What the drug is, said in place, contained, or by a Medication of the chart."""
        named = resource.medication_reference
        if resource.medication_codeable_concept is not None or named is None:
            return resource.medication_codeable_concept
        target = _target(named)
        for contained in resource.contained:
            if contained.id == target:
                return contained.code
        known = self._medications_by_id.get(target)  # the chart's before what came with drafts
        return known[0].code if known else CodeableConcept(text=named.display)

    @cached_property
    def _medications_by_id(self) -> dict[str | None, list[Medication]]:
        return _by_id((*self._chart.of(Medication), *self._beside(Medication)))

    def acts(self, name: str) -> list[Act]:
        """The completed procedures of a set."""
        return self._acts.get(name, [])

    @cached_property
    def _acts(self) -> dict[str, list[Act]]:
        return _by_set(self._each_act())

    def _each_act(self) -> Iterable[Act]:
        for resource in self._chart.of(Procedure):
            if resource.status == "completed":
                yield Act(resource, self._sets_of(resource.code), self._today)

    def encounters(self) -> list[Stay]:
        """The encounters that took place or are taking place."""
        return self._stays.get("*", [])

    @cached_property
    def _stays(self) -> dict[str, list[Stay]]:
        return _by_set(self._each_stay())

    def _each_stay(self) -> Iterable[Stay]:
        for resource in self._chart.of(Encounter):
            if resource.status not in NOT_HELD:
                sets = frozenset(x for one in resource.type for x in self._sets_of(one))
                yield Stay(resource, sets, self._today)

    def reports(self, name: str) -> list[Report]:
        """The final reports of a set; "*" is all of them."""
        return [x for x in self._reports.get(name, []) if x.final]

    @cached_property
    def _reports(self) -> dict[str, list[Report]]:
        return _by_set(self._each_report())

    def _each_report(self) -> Iterable[Report]:
        for resource in self._chart.of(DiagnosticReport):
            yield Report(resource, self._sets_of(resource.code), self._today)

    def requests(self, name: str) -> list[Request]:
        """The open service requests of a set."""
        return [x for x in self._requests.get(name, []) if x.open]

    @cached_property
    def _requests(self) -> dict[str, list[Request]]:
        return _by_set(self._each_request())

    def _each_request(self) -> Iterable[Request]:
        for resource in (*self._chart.of(ServiceRequest), *self._beside(ServiceRequest)):
            yield Request(resource, self._sets_of(resource.code), self._today)


def _by_set(entries: Iterable[E]) -> dict[str, list[E]]:
    """The entries by set; all of them under "*"."""
    by_set: dict[str, list[E]] = {}
    for entry in entries:
        for name in ("*", *entry.sets):
            by_set.setdefault(name, []).append(entry)
    return by_set


def _by_id(resources: Iterable[N]) -> dict[str | None, list[N]]:
    by_id: dict[str | None, list[N]] = {}
    for resource in resources:
        by_id.setdefault(resource.id, []).append(resource)
    return by_id


def _target(reference: Reference) -> str:
    """The id that a reference leads to: relative, absolute, contained or a urn."""
    plain = (reference.reference or "").partition("/_history/")[0].removeprefix("urn:uuid:")
    return plain.lstrip("#").rsplit("/", 1)[-1]


def texts_of(concept: CodeableConcept | None) -> tuple[str, ...]:
    """A concept's texts, none for no concept."""
    return spoken(concept) if concept is not None else ()

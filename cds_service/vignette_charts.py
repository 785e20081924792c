"""The chart of one vignette: each item of the row as a FHIR R4 resource about one patient."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from cds_service.errors import ContentError
from cds_service.terminology import ATC, RXNORM, SYSTEMS
from cds_service.vignette_rows import Vignette

Json = dict[str, Any]
Item = Mapping[str, Any]

PATIENT = "p1"
_UCUM = "http://unitsofmeasure.org"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_NOON = "12:00:00Z"
_UNDATED_CONDITION = "-400d"


class MeasureCode(Struct, frozen=True):
    """How one measure is coded, and the unit of a result whose row names none ("" = no unit)."""

    system: str
    code: str
    unit: str


class OrderCode(Struct, frozen=True):
    """How one order template is coded."""

    system: str
    code: str


class Chart:
    """Writes the resources of one patient, each with an id of its own."""

    def __init__(
        self,
        measures: Mapping[str, MeasureCode],
        orders: Mapping[str, OrderCode],
        moved: Callable[[str | None], str | None],
        vignette: Vignette,
    ) -> None:
        self._measures = measures
        self._orders = orders
        self._moved = moved
        self._vignette = vignette
        self._count = 0

    def resource(self, kind: str, item: Item) -> Json:
        """The FHIR resource of one item, about this patient unless the item names another."""
        self._count += 1
        resource = _RESOURCES[kind](self, item)
        reference = {"reference": item.get("subject", f"Patient/{PATIENT}")}
        name = f"{resource['resourceType'].lower()}-{self._count}"
        return {**resource, "id": name, "subject": reference}

    def _order_code(self, item: Item) -> Json:
        if "order" not in item:
            return _concept(item)
        if item["order"] not in self._orders:
            raise unknown(self._vignette, "order", item["order"], self._orders)
        order = self._orders[item["order"]]
        return {"coding": [{"system": order.system, "code": order.code}]}

    def _result_code(self, item: Item) -> Json:
        if "measure" not in item:
            return _concept({**item, "text": item.get("name")})
        if item["measure"] not in self._measures:
            raise unknown(self._vignette, "measure", item["measure"], self._measures)
        measure = self._measures[item["measure"]]
        coding: Json = {"system": measure.system, "code": measure.code}
        if "code" in item:
            system = item.get("system", measure.system)
            coding = {"system": SYSTEMS.get(system, system), "code": item["code"]}
        return _without_nones(coding=[coding], text=item.get("name"))

    def _observation(self, item: Item) -> Json:
        own = self._measures.get(item.get("measure", ""))
        unit = item.get("unit", own.unit if own else "")
        code = item.get("unit_code", unit if own and unit == own.unit else "")
        flag = _coded("v3-ObservationInterpretation", item.get("interpretation"))
        value = None
        if "value" in item:
            value = _quantity(item["value"], unit, code, item.get("comparator"))
        return _without_nones(
            resourceType="Observation",
            status=item.get("status", "final"),
            code=self._result_code(item),
            **self._effective(item),
            issued=self._instant(item.get("issued")),
            valueQuantity=value,
            valueString=item.get("text"),
            valueCodeableConcept={"text": item["concept"]} if "concept" in item else None,
            valueDateTime=self._moved(item.get("value_date")),
            dataAbsentReason={"text": item["missing"]} if "missing" in item else None,
            interpretation=[flag] if flag else None,
            note=[{"text": item["comment"]}] if "comment" in item else None,
            referenceRange=_ranges(item, unit, code) or None,
            **_specimen(item),
        )

    def _instant(self, text: str | None, time: str = _NOON) -> str | None:
        return None if text is None else f"{self._moved(text)}T{time}"

    def _effective(self, item: Item) -> Json:
        day, time = item.get("date"), item.get("time")
        printed = self._moved(day) if time is None else self._instant(day, time)
        if item.get("effective") == "instant":
            return {"effectiveInstant": self._instant(day, time or _NOON)}
        if item.get("effective") == "period":
            return {"effectivePeriod": _period(self._moved(item.get("start")), printed)}
        return {"effectiveDateTime": printed}

    def _condition(self, item: Item) -> Json:
        dated = item.keys() & {"onset", "onset_start", "recorded"} or item.get("undated")
        recorded = item.get("recorded") if dated else _UNDATED_CONDITION
        verification = item.get("verification")
        status = item.get("status", "" if verification == "entered-in-error" else "active")
        period = _period(self._moved(item.get("onset_start")), None)
        return _without_nones(
            resourceType="Condition",
            clinicalStatus=_coded("condition-clinical", status),
            verificationStatus=_coded("condition-ver-status", verification),
            code=_concept(item),
            onsetDateTime=self._moved(item.get("onset")),
            onsetPeriod=period or None,
            abatementDateTime=self._moved(item.get("abatement")),
            recordedDate=self._moved(recorded),
        )

    def _medication(self, item: Item) -> Json:
        kind = item.get("kind", "request")
        start, end = self._moved(item.get("start")), self._moved(item.get("end"))
        running = kind != "administration" and end is None
        status = item.get("status", "active" if running else "completed")
        common = {"status": status, "medicationCodeableConcept": _drug(item)}
        dosage = _dosage(item) or None
        if kind == "request":
            return _without_nones(
                resourceType="MedicationRequest",
                intent=item.get("intent", "order"),
                **common,
                authoredOn=start,
                dosageInstruction=[dosage] if dosage else None,
                dispenseRequest={"validityPeriod": {"end": end}} if end else None,
                doNotPerform=item.get("do_not_perform"),
            )
        period = _period(start, end) if end and end != start else None
        common |= {"effectivePeriod": period} if period else {"effectiveDateTime": start}
        if kind == "administration":
            return _without_nones(resourceType="MedicationAdministration", **common, dosage=dosage)
        return _without_nones(
            resourceType="MedicationStatement", **common, dosage=[dosage] if dosage else None
        )

    def _procedure(self, item: Item) -> Json:
        return _without_nones(
            resourceType="Procedure",
            status=item.get("status", "completed"),
            code=_concept(item),
            performedDateTime=self._moved(item.get("date")),
        )

    def _encounter(self, item: Item) -> Json:
        start, end = self._moved(item.get("start")), self._moved(item.get("end"))
        return _without_nones(
            resourceType="Encounter",
            status=item.get("status", "finished" if end else "in-progress"),
            **{"class": {"system": f"{_TERMINOLOGY}/v3-ActCode", "code": item.get("class", "AMB")}},
            type=_encounter_types(item) or None,
            period=_period(start, end) or None,
            location=[{"location": {"display": item["location"]}}] if "location" in item else None,
        )

    def _report(self, item: Item) -> Json:
        return _without_nones(
            resourceType="DiagnosticReport",
            status=item.get("status", "final"),
            code=self._order_code(item),
            effectiveDateTime=self._moved(item.get("date")),
            conclusion=item.get("conclusion"),
        )

    def _service_request(self, item: Item) -> Json:
        return _without_nones(
            resourceType="ServiceRequest",
            status=item.get("status", "active"),
            intent=item.get("intent", "order"),
            code=self._order_code(item),
            authoredOn=self._moved(item.get("date")),
            doNotPerform=item.get("do_not_perform"),
        )

    def _draft(self, item: Item) -> Json:
        """A draft order: of a drug, or of a test by its name."""
        status, intent = item.get("status", "draft"), item.get("intent", "order")
        if "order" in item:
            request = {"resourceType": "ServiceRequest", "code": self._order_code(item)}
            request = {**request, "status": status, "intent": intent}
            return _without_nones(**request, doNotPerform=item.get("do_not_perform"))
        dosage = _dosage(item)
        return _without_nones(
            resourceType="MedicationRequest",
            status=status,
            intent=intent,
            medicationCodeableConcept=_drug(item),
            authoredOn=self._moved(item.get("date")),
            dosageInstruction=[dosage] if dosage else None,
            reasonCode=[_concept(x) for x in item.get("reasons", ())] or None,
            doNotPerform=item.get("do_not_perform"),
        )


_RESOURCES: Mapping[str, Callable[[Chart, Item], Json]] = {
    "results": Chart._observation,
    "conditions": Chart._condition,
    "medications": Chart._medication,
    "procedures": Chart._procedure,
    "encounters": Chart._encounter,
    "reports": Chart._report,
    "orders": Chart._service_request,
    "drafts": Chart._draft,
}
KINDS = tuple(x for x in _RESOURCES if x != "drafts")  # what the prefetch holds


def _encounter_types(item: Item) -> list[Json]:
    """The types of an encounter: its words, and its code where it has one."""
    words = [{"text": item["type"]}] if "type" in item else []
    return [*words, *([_concept(item)] if "code" in item else [])]


def unknown(vignette: Vignette, what: str, name: str, known: Mapping[str, object]) -> ContentError:
    """The complaint that a row names something the service does not have."""
    names = ", ".join(sorted(known))
    why = f'{what} "{name}" is not one of: {names}'
    return ContentError(vignette.file, f"vignette {vignette.id}", why)


def _without_nones(**members: Any) -> Json:
    return {name: value for name, value in members.items() if value is not None}


def _period(start: str | None, end: str | None) -> Json:
    return _without_nones(start=start, end=end)


def _coded(system: str, code: str | None) -> Json | None:
    return {"coding": [{"system": f"{_TERMINOLOGY}/{system}", "code": code}]} if code else None


def _concept(item: Item) -> Json:
    codings = list(item.get("codings", ()))
    if "code" in item:
        codings.append({name: item[name] for name in ("system", "code", "display") if name in item})
    coding = [
        {**one, "system": SYSTEMS.get(one["system"], one["system"])} if "system" in one else one
        for one in codings
    ]
    return _without_nones(coding=coding or None, text=item.get("text"))


def _drug(item: Item) -> Json:
    coded = {RXNORM: item.get("rxnorm"), ATC: item.get("atc")}
    codings = [{"system": system, "code": code} for system, code in coded.items() if code]
    return _concept({**item, "codings": codings})


def _quantity(value: float, unit: str, code: str, comparator: str | None = None) -> Json:
    return _without_nones(
        value=value,
        comparator=comparator,
        unit=unit or None,
        system=_UCUM if code else None,
        code=code or None,
    )


def _ranges(item: Item, unit: str, code: str) -> list[Json]:
    """The printed ranges; a side that is not given is left out, `range_unit` "" means no unit."""
    given = list(item.get("ranges", ()))
    if "low" in item or "high" in item:
        given.insert(0, {name: item[name] for name in ("low", "high") if name in item})
    printed = item.get("range_unit", unit)
    return [
        _without_nones(
            low=_side(one.get("low"), one.get("unit", printed), unit, code),
            high=_side(one.get("high"), one.get("unit", printed), unit, code),
            type=_coded("referencerange-meaning", one.get("type")),
            appliesTo=[_applies_to(one["applies_to"])] if "applies_to" in one else None,
        )
        for one in given
    ]


def _applies_to(sex: str) -> Json:
    return {"coding": [{"system": "http://hl7.org/fhir/administrative-gender", "code": sex}]}


def _side(value: float | None, printed: str, unit: str, code: str) -> Json | None:
    return None if value is None else _quantity(value, printed, code if printed == unit else "")


def _specimen(item: Item) -> Json:
    if "specimen_note" in item:
        held = {"resourceType": "Specimen", "id": "s1", "note": [{"text": item["specimen_note"]}]}
        return {"contained": [held], "specimen": {"reference": "#s1"}}
    found = _without_nones(reference=item.get("specimen_ref"), display=item.get("specimen"))
    return {"specimen": found} if found else {}


def _dosage(item: Item) -> Json:
    if "frequency" not in item:
        return _without_nones(text=item.get("dosage"))
    repeat = {
        "frequency": item["frequency"],
        "period": item.get("period", 1),
        "periodUnit": item.get("period_unit", "d"),
    }
    return _without_nones(text=item.get("dosage"), timing={"repeat": repeat})

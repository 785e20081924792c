"""Typed views of FHIR R4 resources: only the elements we read, and an odd element costs that
element.

A resource that fits is decoded in one pass. One that does not is taken apart: an object where a
list belongs becomes a list of one, anything else of the wrong shape is absent, and each change is
noted.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Union

import msgspec
from msgspec import Raw, Struct
from msgspec.inspect import (
    AnyType,
    BoolType,
    FloatType,
    IntType,
    ListType,
    NoneType,
    StrType,
    StructType,
    UnionType,
    type_info,
)


class Element(Struct, rename="camel", gc=False):
    """A FHIR data type, read only."""


class Coding(Element):
    system: str | None = None
    code: str | None = None
    display: str | None = None


class CodeableConcept(Element):
    coding: list[Coding] = []
    text: str | None = None


class Amount(Element):
    """FHIR Quantity as sent; `cds_service.quantity.Quantity` is the one to compare."""

    value: int | float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class ReferenceRange(Element):
    low: Amount | None = None
    high: Amount | None = None
    type: CodeableConcept | None = None
    applies_to: list[CodeableConcept] = []
    text: str | None = None


NOBODY = "unreadable"  # where a reference leads that cannot be read: to no resource of the chart


class Reference(Element):
    reference: str | None = None
    display: str | None = None


class Period(Element):
    start: str | None = None
    end: str | None = None


class Annotation(Element):
    text: str | None = None


class Contained(Element):
    """A contained Specimen or Medication, as far as it is read."""

    resource_type: str | None = None
    id: str | None = None
    type: CodeableConcept | None = None
    code: CodeableConcept | None = None
    condition: list[CodeableConcept] = []
    note: list[Annotation] = []


class Resource(Struct, rename="camel", gc=False, tag_field="resourceType"):
    """A FHIR resource of a type we read."""

    id: str | None = None


class Clinical(Resource):
    """A resource about one patient; `patient` is what DSTU2 called the subject."""

    subject: Reference | None = None
    patient: Reference | None = None


class Patient(Resource, tag="Patient"):
    gender: str | None = None
    birth_date: str | None = None
    deceased_boolean: bool | None = None
    deceased_date_time: str | None = None


class Observation(Clinical, tag="Observation"):
    status: str | None = None
    code: CodeableConcept | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    effective_instant: str | None = None
    issued: str | None = None
    value_quantity: Amount | None = None
    value_string: str | None = None
    value_codeable_concept: CodeableConcept | None = None
    value_date_time: str | None = None
    data_absent_reason: CodeableConcept | None = None
    interpretation: list[CodeableConcept] = []
    reference_range: list[ReferenceRange] = []
    specimen: Reference | None = None
    note: list[Annotation] = []
    contained: list[Contained] = []


class Condition(Clinical, tag="Condition"):
    clinical_status: CodeableConcept | None = None
    verification_status: CodeableConcept | None = None
    code: CodeableConcept | None = None
    onset_date_time: str | None = None
    onset_period: Period | None = None
    recorded_date: str | None = None
    abatement_date_time: str | None = None
    abatement_period: Period | None = None
    abatement_string: str | None = None
    abatement_age: Any = None
    abatement_range: Any = None
    abatement_boolean: bool | None = None


class Repeat(Element):
    bounds_period: Period | None = None
    frequency: int | float | None = None
    period: int | float | None = None
    period_unit: str | None = None


class Timing(Element):
    repeat: Repeat | None = None
    code: CodeableConcept | None = None


class DoseAndRate(Element):
    dose_quantity: Amount | None = None


class Dosage(Element):
    text: str | None = None
    timing: Timing | None = None
    route: CodeableConcept | None = None
    dose_and_rate: list[DoseAndRate] = []


class DispenseRequest(Element):
    validity_period: Period | None = None


class MedicationRequest(Clinical, tag="MedicationRequest"):
    status: str | None = None
    intent: str | None = None
    do_not_perform: bool | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    authored_on: str | None = None
    dosage_instruction: list[Dosage] = []
    dispense_request: DispenseRequest | None = None
    reason_code: list[CodeableConcept] = []
    reason_reference: list[Reference] = []
    contained: list[Contained] = []


class MedicationAdministration(Clinical, tag="MedicationAdministration"):
    status: str | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    contained: list[Contained] = []


class MedicationStatement(Clinical, tag="MedicationStatement"):
    status: str | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    dosage: list[Dosage] = []
    contained: list[Contained] = []


DRUG_TYPES = (MedicationRequest, MedicationAdministration, MedicationStatement)


class Medication(Resource, tag="Medication"):
    code: CodeableConcept | None = None


class DiagnosticReport(Clinical, tag="DiagnosticReport"):
    status: str | None = None
    code: CodeableConcept | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    issued: str | None = None
    conclusion: str | None = None


class ServiceRequest(Clinical, tag="ServiceRequest"):
    status: str | None = None
    intent: str | None = None
    do_not_perform: bool | None = None
    code: CodeableConcept | None = None
    authored_on: str | None = None


class Procedure(Clinical, tag="Procedure"):
    status: str | None = None
    code: CodeableConcept | None = None
    performed_date_time: str | None = None
    performed_period: Period | None = None


class EncounterLocation(Element):
    location: Reference | None = None


class Encounter(Clinical, tag="Encounter"):
    status: str | None = None
    class_: Coding | None = msgspec.field(default=None, name="class")
    type: list[CodeableConcept] = []
    period: Period | None = None
    location: list[EncounterLocation] = []


READ_TYPES: dict[str, type[Resource]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]  # each tag above is a string
    for kind in (
        *(Patient, Observation, Condition, MedicationRequest, MedicationAdministration),
        *(MedicationStatement, Medication, DiagnosticReport, ServiceRequest, Procedure, Encounter),
    )
}


class Note(Struct, frozen=True):
    """What was odd: an element's path without any value, and what was done about it."""

    where: str
    why: str


class _Typed(Struct, rename="camel"):
    resource_type: Any = None


if TYPE_CHECKING:
    AnyRead = Resource
else:
    AnyRead = Union[tuple(READ_TYPES.values())]  # noqa: UP007  # made, not written
_any_read_type = msgspec.json.Decoder(AnyRead)
_resource_type = msgspec.json.Decoder(_Typed)
T = TypeVar("T")


class Unread(Exception):
    """The resource is of a type we do not read, or of none; `type` is "" when it has none."""

    def __init__(self, resource_type: str) -> None:
        super().__init__(resource_type)
        self.type = resource_type


# Objects and lists in a text of JSON, counted by their first brace or bracket. Each takes some 250
# bytes of memory, however short it is; in real charts one comes to forty bytes of text or more.
MOST_OBJECTS, LEAST_BYTES = 1_000_000, 20


def is_overfull(raw: bytes) -> bool:
    """Whether JSON text has more objects and lists than any chart of its length."""
    if len(raw) < 2 * MOST_OBJECTS:
        return False
    found = raw.count(b"{") + raw.count(b"[")
    return found > max(MOST_OBJECTS, len(raw) // LEAST_BYTES)


def read_resource(raw: Raw | bytes) -> tuple[Resource, list[Note]]:
    """The resource and what was odd about it; raises Unread for a type we do not read."""
    try:
        resource: Resource = _any_read_type.decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
        return _mend_resource(raw)
    return resource, []


def _mend_resource(raw: Raw | bytes) -> tuple[Resource, list[Note]]:
    found = loads_leniently(raw)
    name = found.get("resourceType") if isinstance(found, dict) else None
    kind = READ_TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Unread(name if isinstance(name, str) else "")
    return mended(found, kind)


def loads_leniently(raw: Raw | bytes) -> Any:
    """The JSON value with lone surrogates replaced: an escape that no text can hold costs one
    character.
    """
    text = with_whole_escapes(bytes(raw)).decode(errors="replace")
    return json.loads(text, parse_int=integer)


def integer(digits: str) -> int | float:
    """A whole number of JSON; one of very many digits is infinite."""
    return int(digits) if len(digits) < 400 else float("inf")  # CPython refuses over 4,300 digits


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def with_whole_escapes(raw: bytes) -> bytes:
    """JSON text with the escapes of lone surrogates replaced: no text can hold them."""
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], raw)


def whole_text(text: str) -> str:
    """The text with lone surrogates replaced, so that it can be encoded."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mended(found: Any, kind: type[T]) -> tuple[T, list[Note]]:
    """A struct from whatever fits of a JSON value, and a note for each element that did not."""
    notes: list[Note] = []
    values = found if isinstance(found, dict) else {}
    shape = _shape(kind)  # type: ignore[arg-type]  # a class is hashable, whatever type[T] is
    return _fit_struct(values, shape, kind.__name__, notes), notes


@cache
def _shape(kind: type) -> StructType:
    """The fields of a struct: found once, since that takes ten times as long as to fill them."""
    info = type_info(kind)
    assert isinstance(info, StructType)
    return info


class _Misfit(Exception):
    pass


def _fit_struct(found: dict[str, Any], info: StructType, path: str, notes: list[Note]) -> Any:
    values = {}
    for field in info.fields:
        if (value := found.get(field.encode_name)) is None:
            continue
        where = f"{path}.{field.encode_name}"
        try:
            values[field.name] = _fit(value, field.type, where, notes)
        except _Misfit:
            notes.append(Note(where, "wrong shape, read as absent"))
    return info.cls(**values)


def _fit(value: Any, info: Any, path: str, notes: list[Note]) -> Any:
    """The value as the type wants it; raises _Misfit when nothing of it can be used."""
    if isinstance(info, UnionType):
        choices = [choice for choice in info.types if not isinstance(choice, NoneType)]
        if len(choices) > 1:
            return _number(value)
        return _fit(value, choices[0], path, notes)
    if isinstance(info, StructType):
        if info.cls is Reference:
            return _fit_reference(value, info, path, notes)
        if not isinstance(value, dict):
            raise _Misfit
        return _fit_struct(value, info, path, notes)
    if isinstance(info, ListType):
        return _fit_list(value, info, path, notes)
    return _SCALARS[type(info)](value)


def _fit_reference(value: Any, info: StructType, path: str, notes: list[Note]) -> Any:
    """A reference of the wrong shape still means somebody: read as far as it is text, else it leads
    to nobody of the chart.
    """
    if isinstance(value, dict):
        return _fit_struct(value, info, path, notes)
    notes.append(Note(path, "not a Reference, read as far as it is text"))
    if isinstance(value, list) and len(value) == 1:
        value = value[0].get("reference") if isinstance(value[0], dict) else value[0]
    return Reference(reference=whole_text(value) if isinstance(value, str) else NOBODY)


def _fit_list(value: Any, info: ListType, path: str, notes: list[Note]) -> list[Any]:
    if not isinstance(value, list):
        notes.append(Note(path, "not a list, read as a list of one"))
        value = [value]
    fitting = []
    for n, item in enumerate(value):
        try:
            fitting.append(_fit(item, info.item_type, f"{path}[{n}]", notes))
        except _Misfit:
            notes.append(Note(f"{path}[{n}]", "wrong shape, read as absent"))
    return fitting


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Misfit
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise _Misfit
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Misfit
    return whole_text(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Misfit
    return value


_SCALARS: dict[type, Callable[[Any], Any]] = {
    StrType: _text,
    BoolType: _truth,
    IntType: _number,
    FloatType: _number,
    AnyType: lambda value: json.loads(with_whole_escapes(json.dumps(value).encode())),
}

"""Changes to a call that are nothing to a clinician: the same cards are owed after each of them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from cds_service.fhir_endpoint import moved
from tests.charts import resources
from tests.exchanges import Json

Amount = Callable[[Json], Json]
_ELEMENTS = re.compile(r"(.*/|urn:uuid:)?([^/]+?)(/_history/[^/]+)?\Z")


@dataclass(frozen=True)
class Relation:
    """A change, by how many years it moves the day, and the way back for what is then said."""

    name: str
    change: Callable[[Json, Random], Json]
    back: Callable[[str, Json], str] = lambda said, body: said
    years: int = 0


def _with_bundles(value: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    """A prefetch value with the entries of every Bundle changed, of Bundles in Bundles too."""
    entries = value.get("entry") if isinstance(value, dict) else None
    if not isinstance(entries, list) or value.get("resourceType") != "Bundle":
        return value
    inner = [
        {**x, "resource": _with_bundles(x["resource"], change)} if "resource" in x else x
        for x in entries
    ]
    return {**value, "entry": change(inner)}


def _prefetched(body: Json, change: Callable[[list[Any]], list[Any]]) -> Json:
    prefetch = body.get("prefetch", {})
    return {**body, "prefetch": {k: _with_bundles(x, change) for k, x in prefetch.items()}}


# -- order and number ------------------------------------------------------------------------------


def shuffled(body: Json, random: Random) -> Json:
    """Keys and entries in another order."""
    found = _prefetched(body, lambda entries: random.sample(entries, len(entries)))
    prefetch = found["prefetch"]
    keys = random.sample([*prefetch], len(prefetch))
    return {**found, "prefetch": {key: prefetch[key] for key in keys}}


def _is_result(entry: Any) -> bool:
    resource = entry.get("resource")
    return isinstance(resource, dict) and resource.get("resourceType") == "Observation"


def sent_twice(body: Json, random: Random) -> Json:
    """Entries twice, as where two searches find them."""

    def change(entries: list[Any]) -> list[Any]:
        again = random.sample(entries, (len(entries) + 1) // 2)
        return [*again, *entries]

    return _prefetched(body, change)


def recorded_twice(body: Json, random: Random) -> Json:
    """Every result a second time under another id, as an interface that repeats itself sends it."""

    def change(entries: list[Any]) -> list[Any]:
        again = [
            {"resource": {**x["resource"], "id": f"again-{x['resource'].get('id', n)}"}}
            for n, x in enumerate(entries)
            if _is_result(x)
        ]
        return [*again, *entries]

    return _prefetched(body, change)


# Nothing that any set of the content holds.
_UNRELATED = (
    ("2339-0", "Glucose", 4900, "mg/dL"),
    ("2093-3", "Cholesterol", 3, "mg/dL"),
    ("8302-2", "Body height", 171, "cm"),
    ("8867-4", "Heart rate", 31, "/min"),
    ("5778-6", "Colour of urine", None, ""),
)


def among_others(body: Json, random: Random) -> Json:
    """Results of other tests beside those there are, and under a key of their own."""
    patient_id = str(body["context"]["patientId"]).removeprefix("Patient/")
    days = sorted(set(_days(body.get("prefetch")))) or ["2020-01-01"]
    others = [
        {"resource": _unrelated(n, *x, patient_id, random.choice(days))}
        for n, x in enumerate(_UNRELATED)
    ]
    found = _prefetched(
        body,
        lambda entries: [*others, *entries] if any(map(_is_result, entries)) else entries,
    )
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": others}
    return {**found, "prefetch": {"of others": bundle, **found["prefetch"]}}


def _days(value: Any) -> Iterator[str]:
    for x in (y for one in _values(value) for y in resources(one)):
        if isinstance(day := x.get("effectiveDateTime"), str):
            yield day


def _values(prefetch: Any) -> list[Any]:
    return [*prefetch.values()] if isinstance(prefetch, dict) else []


def _unrelated(
    n: int, code: str, name: str, value: int | None, unit: str, patient_id: str, day: str
) -> Json:
    said: Json = {"valueString": "straw"}
    if value is not None:
        said = {"valueQuantity": {"value": value, "unit": unit}, "interpretation": [_flag("HH")]}
    return {
        "resourceType": "Observation",
        "id": f"of-others-{n}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}], "text": name},
        "subject": {"reference": f"Patient/{patient_id}"},
        "effectiveDateTime": day,
        **said,
    }


def _flag(code: str) -> Json:
    system = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
    return {"coding": [{"system": system, "code": code}]}


# -- names and dates -------------------------------------------------------------------------------


def _names(body: Json) -> dict[str, str]:
    """A new id for each resource of a call, in the opposite order of the old ones."""
    values = [*_values(body.get("prefetch")), body["context"].get("draftOrders")]
    found = {str(x["id"]) for value in values for x in resources(value) if "id" in x}
    found.add(str(body["context"]["patientId"]).removeprefix("Patient/"))
    last = len(found) - 1
    return {old: f"renamed-{last - n:05d}" for n, old in enumerate(sorted(found))}


def renamed(body: Json, random: Random) -> Json:
    """Other ids for patient and resources, and references that follow."""
    names = _names(body)
    found: Json = _renamed(body, names)
    context = dict(found["context"])
    context["patientId"] = _reference(context["patientId"], names)
    if isinstance(selections := context.get("selections"), list):
        context["selections"] = [_reference(x, names) for x in selections]
    return {**found, "context": context}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(x, names) for x in value]
    if not isinstance(value, dict):
        return value
    found = {k: x if k == "contained" else _renamed(x, names) for k, x in value.items()}
    if "resourceType" in value and "id" in value:
        found["id"] = names.get(value["id"], value["id"])
    for name in ("reference", "fullUrl"):
        if isinstance(value.get(name), str) and not value[name].startswith("#"):
            found[name] = _reference(value[name], names)
    return found


def _reference(text: str, names: Mapping[str, str]) -> str:
    parts = _ELEMENTS.match(text)
    if parts is None or parts[2] not in names:
        return text
    return f"{parts[1] or ''}{names[parts[2]]}{parts[3] or ''}"


def _by_old_names(said: str, body: Json) -> str:
    names = {new: old for old, new in _names(body).items()}
    return re.sub(r"renamed-\d{5}", lambda x: names[x[0]], said)


# Four hundred years have a whole number of days whatever year they begin in: leap days, months and
# ages stay what they were.
YEARS = 400
_DAYS = 146_097


def later(body: Json, random: Random) -> Json:
    """Every date four hundred years later."""
    found: Json = moved(body, _DAYS)
    return found


def _earlier(said: str, body: Json) -> str:
    """A year is one before a month, or at the end of a line that names what is on record."""
    years = r"\b2[2-5]\d\d(?=-\d\d\b)|(?<=, )2[2-5]\d\d(?=\\n)"
    return re.sub(years, lambda x: str(int(x[0]) - YEARS), said)


# -- units -----------------------------------------------------------------------------------------

U_PER_UKAT = 60
_IN_U = ("U/L", "IU/L", "[IU]/L")
_DECIMALS = Decimal("1e-10")


def _is_in_u(quantity: Any) -> bool:
    return isinstance(quantity, dict) and quantity.get("unit", quantity.get("code")) in _IN_U


def _in_units(body: Json, value: Amount, limit: Amount) -> Json:
    """The call with the enzyme activities in U/L, and their limits, said otherwise."""
    found: Json = json.loads(json.dumps(body))
    for one in _values(found.get("prefetch")):
        for x in resources(one):
            if x.get("resourceType") == "Observation" and _is_in_u(x.get("valueQuantity")):
                x["valueQuantity"] = value(x["valueQuantity"])
                for limits in x.get("referenceRange", []):
                    limits |= {y: limit(limits[y]) for y in ("low", "high") if y in limits}
    return found


def _microkatal(quantity: Json) -> Json:
    """The amount in ukat/L, to ten decimals; one without a unit has that of its result."""
    if "value" not in quantity or ("unit" in quantity and not _is_in_u(quantity)):
        return quantity
    new = {**quantity, "value": float(_in_ukat(quantity))}
    if "unit" in quantity or "code" in quantity:
        new |= {"unit": "ukat/L", "system": "http://unitsofmeasure.org", "code": "ukat/L"}
    return new


def _in_ukat(quantity: Json) -> Decimal:
    return (Decimal(str(quantity["value"])) / U_PER_UKAT).quantize(_DECIMALS)


def _expressible(quantity: Json) -> Json:
    """The amount in its unit, moved to the nearest that ten decimals of ukat/L can say."""
    if "value" not in quantity or ("unit" in quantity and not _is_in_u(quantity)):
        return quantity
    return {**quantity, "value": float(_in_ukat(quantity) * U_PER_UKAT)}


def _naming_its_unit(quantity: Json) -> Json:
    return {"unit": "U/L", **quantity}


def in_microkatal(body: Json, random: Random) -> Json:
    """Every enzyme activity in ukat/L, with its limits."""
    return _in_units(body, _microkatal, _microkatal)


def with_limits_in_u(body: Json, random: Random) -> Json:
    """Every enzyme activity in ukat/L, its limits still in U/L, as they say."""
    return _in_units(body, _microkatal, _naming_its_unit)


def expressible(body: Json, random: Random) -> Json:
    """In U/L as it was, in numbers that both units can say."""
    return _in_units(body, _expressible, _expressible)


def expressible_but_limits(body: Json, random: Random) -> Json:
    """The same with the limits left as they were."""
    return _in_units(body, _expressible, _naming_its_unit)


# -- all of them -----------------------------------------------------------------------------------

TO_THE_LETTER: Sequence[Relation] = (
    Relation("shuffled", shuffled),
    Relation("sent twice", sent_twice),
    Relation("recorded twice", recorded_twice),
    Relation("among others", among_others),
    Relation("renamed", renamed, _by_old_names),
    Relation("later", later, _earlier, YEARS),
)
# With the chart that has the same numbers in U/L: 80 U/L is 1.333… ukat/L, and a limit that is met
# exactly is not met by any number of decimals.
IN_OTHER_UNITS: Sequence[tuple[Relation, Relation]] = (
    (Relation("in ukat/L", in_microkatal), Relation("the same in U/L", expressible)),
    (
        Relation("in ukat/L, limits in U/L", with_limits_in_u),
        Relation("the same in U/L", expressible_but_limits),
    ),
)

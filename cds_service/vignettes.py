"""Vignettes as requests: the body an EHR would send for the patient of one row, as FHIR R4."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from msgspec import Struct

from cds_service.dates import completed_years
from cds_service.hook_request import ORDER_HOOKS
from cds_service.terminology import same_system
from cds_service.vignette_charts import (
    KINDS,
    PATIENT,
    Chart,
    Item,
    Json,
    MeasureCode,
    OrderCode,
    unknown,
)
from cds_service.vignette_rows import Vignette, read_as_of, read_vignettes

__all__ = [
    "MeasureCode",
    "OrderCode",
    "PrefetchKey",
    "RequestBuilder",
    "Vignette",
    "read_as_of",
    "read_vignettes",
]

_AFTER_BIRTHDAY = 100  # days: an age in years stays the same for most of a year around `today`
_MONTH = 30.44
_GENDERS = {"F": "female", "M": "male"}


class PrefetchKey(Struct, frozen=True):
    """What one prefetch key asks for; `codes` None means every resource of the type."""

    resource_type: str
    codes: frozenset[tuple[str, str]] | None

    def asks_for(self, resource: Json) -> bool:
        """Whether a search for this key finds the resource."""
        if resource["resourceType"] != self.resource_type:
            return False
        codings = resource.get("code", {}).get("coding", ())
        return self.codes is None or any(
            (same_system(one.get("system")), one.get("code")) in self.codes for one in codings
        )


class RequestBuilder:
    """Turns vignettes into CDS Hooks requests whose prefetch answers every key of the service."""

    def __init__(
        self,
        measures: Mapping[str, MeasureCode],
        orders: Mapping[str, OrderCode],
        keys: Mapping[str, PrefetchKey],
    ) -> None:
        self._measures = measures
        self._orders = orders
        self._keys = keys

    def body(self, vignette: Vignette, as_of: date, today: date) -> dict[str, object]:
        """The request for a row written for `as_of`, as if that day were `today`.

        Raises ContentError when the row names a measure, an order or a key that the service lacks.
        """
        row = vignette.row
        calendar = _Calendar(as_of, today)
        chart = Chart(self._measures, self._orders, calendar.moved, vignette)
        items = [(kind, item) for kind in KINDS for item in row[kind]]
        named = [item["sent_in"] for _, item in items if "sent_in" in item]
        for name in (*row["absent"], *row["failed"], *row["incomplete"], *named):
            if name not in self._keys:
                raise unknown(vignette, "prefetch key", name, self._keys)
        sent = [(item.get("sent_in"), chart.resource(kind, item)) for kind, item in items]
        problems = [x for _, x in sent if x["resourceType"] == "Condition"]
        sent.insert(0, (None, _patient(row["patient"], calendar)))
        context = {"userId": "Practitioner/u1", "patientId": PATIENT}
        return {
            "hookInstance": str(uuid5(NAMESPACE_URL, vignette.id)),
            "hook": vignette.hook,
            "context": context | _drafts(vignette, chart, problems),
            "prefetch": {
                name: self._answer(row, name, sent)
                for name in self._keys
                if name not in row["absent"]
            },
        }

    def _answer(self, row: Item, name: str, sent: list[tuple[str | None, Json]]) -> Json:
        asked = self._keys[name]
        if name in row["failed"]:
            issue = {"severity": "error", "code": "exception", "diagnostics": "search failed"}
            return {"resourceType": "OperationOutcome", "issue": [issue]}
        found = [r for place, r in sent if (asked.asks_for(r) if place is None else place == name)]
        if asked.resource_type == "Patient":
            return found[0]
        bundle: Json = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
        if name in row["incomplete"]:
            next_page = f"https://ehr.example/fhir?page=2&of={name}"
            bundle["link"] = [{"relation": "next", "url": next_page}]
        if found:
            bundle["entry"] = [{"resource": one, "search": {"mode": "match"}} for one in found]
        return bundle


def _drafts(vignette: Vignette, chart: Chart, problems: Sequence[Json]) -> Json:
    """The draft orders of a row, and at order-select those that are selected."""
    if vignette.hook not in ORDER_HOOKS:
        return {}
    drafted, selected = [], []
    for item in vignette.row["drafts"]:
        draft = chart.resource("drafts", item)
        if "reason_problem" in item:
            problem = problems[item["reason_problem"] - 1]
            draft["reasonReference"] = [{"reference": f"Condition/{problem['id']}"}]
        drafted.append({"resource": draft})
        if not item.get("unselected"):
            selected.append(f"{draft['resourceType']}/{draft['id']}")
    found: Json = {
        "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": drafted}
    }
    if vignette.hook == "order-select":
        found["selections"] = selected
    return found


def _patient(patient: Item, calendar: "_Calendar") -> Json:
    written: dict[str, Any] = {
        "resourceType": "Patient",
        "id": PATIENT,
        "gender": _GENDERS.get(patient["sex"]),
        "birthDate": calendar.birth(patient),
        "deceasedBoolean": True if "deceased" in patient else None,
    }
    return {name: value for name, value in written.items() if value is not None}


class _Calendar(Struct, frozen=True):
    """Moves the dates of a row from the day it was written for to another day."""

    as_of: date
    today: date

    def moved(self, text: str | None) -> str | None:
        """The date as sent: a full one keeps its distance, a partial one moves by months, years."""
        if text is None:
            return None
        if text.endswith("d"):
            return (self.today + timedelta(days=int(text[:-1]))).isoformat()
        if len(text) == len("2026-01-15"):
            return (date.fromisoformat(text) + (self.today - self.as_of)).isoformat()
        years = self.today.year - self.as_of.year
        if len(text) == len("2026"):
            return f"{int(text) + years:04d}"
        months = 12 * (int(text[:4]) + years) + int(text[5:]) - 1
        months += self.today.month - self.as_of.month
        return f"{months // 12:04d}-{months % 12 + 1:02d}"

    def birth(self, patient: Item) -> str | None:
        """The birth date; a full one keeps the age in years and the days since the birthday."""
        if "age" in patient:
            number, unit = int(patient["age"]), patient["unit"]
            if unit == "y":
                return self._born(number, _AFTER_BIRTHDAY)
            return self.moved(f"-{number if unit == 'd' else round(number * _MONTH)}d")
        text = patient.get("born")
        if text is None or text.endswith("d") or len(text) != len("2026-01-15"):
            return self.moved(text)
        born = date.fromisoformat(text)
        age = completed_years(born.toordinal(), self.as_of.toordinal())
        return self._born(age, (self.as_of - _years_later(born, age)).days)

    def _born(self, age: int, days: int) -> str:
        return _years_later(self.today - timedelta(days=days), -age).isoformat()


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, day=28)

"""A small read-only FHIR R4 server over resources in memory, and the patients to put behind it."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from cds_service.dates import as_text, parse_date
from cds_service.errors import ContentError

Resource = dict[str, Any]
Pairs = list[tuple[str, str]]

_SUBJECT = ("patient", "subject")
_CODED = (*_SUBJECT, "code", "category", "status")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Patient": (),
    "Condition": (*_SUBJECT, "code", "category", "clinical-status"),
    "Encounter": (*_SUBJECT, "status"),
    "MedicationAdministration": (*_SUBJECT, "code", "status"),
    **dict.fromkeys(("Observation", "DiagnosticReport", "ServiceRequest", "Procedure"), _CODED),
    **dict.fromkeys(("MedicationRequest", "MedicationStatement"), _CODED),
    **dict.fromkeys(("CarePlan", "CareTeam", "DocumentReference", "Goal", "Specimen"), _SUBJECT),
    **dict.fromkeys(("AllergyIntolerance", "EpisodeOfCare", "Immunization"), ("patient",)),
    **dict.fromkeys(("Location", "Medication", "Organization", "Practitioner"), ()),
}
_ELEMENTS = {"code": ("code", "medicationCodeableConcept"), "clinical-status": ("clinicalStatus",)}
_EFFECTIVE = ("effectiveDateTime", "effectiveInstant", "effectivePeriod")
_SORTS = {
    "date": (*_EFFECTIVE, "performedDateTime", "performedPeriod", "period"),
    "effective-time": _EFFECTIVE,
    "authoredon": ("authoredOn",),
    "authored": ("authoredOn",),
}
_DATES = {
    **dict.fromkeys(("Observation", "DiagnosticReport", "Procedure", "Encounter"), "date"),
    **dict.fromkeys(("MedicationStatement", "MedicationAdministration"), "effective-time"),
    "MedicationRequest": "authoredon",
    "ServiceRequest": "authored",
}
_DATE = re.compile(r"(eq|ne|gt|ge|lt|le|sa|eb)?(\d{4}(-\d\d){0,2}(T.*)?)\Z", re.ASCII)
_MATCH = {"mode": "match"}
_CONTROLS = ("_sort", "_count", "_offset", "_summary")
# What these ask for changes no match, and a server may answer with more than was asked for.
_OF_FORM = ("_format", "_pretty", "_elements", "_total")
_LATEST = date.max.toordinal()
_SUMMARIES = ("true", "text", "data", "count", "false")
_UNESCAPED_COMMA = re.compile(r"(?<!\\),")
# By name: a code of four digits looks like a year.
_DATED = re.compile(r"\w*(Date|DateTime|Instant)|date|time|issued|authoredOn|start|end|lastUpdated")


class FhirEndpoint:
    """Answers read, search and metadata below `base_url`; never raises on what a client sends.

    `page_size` caps every `_count`; None means that one page holds all matches.
    """

    def __init__(
        self, bundles: Iterable[Mapping[str, Any]], base_url: str, page_size: int | None = None
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._page_size = page_size
        self._full_urls: dict[str, str] = {}
        self._stored: dict[str, dict[str, Resource]] = {kind: {} for kind in _PARAMETERS}
        for bundle in bundles:
            for entry in bundle.get("entry", []):
                self._store(entry["resource"], entry.get("fullUrl"))

    def _store(self, resource: Resource, full_url: str | None) -> None:
        kind, identity = resource["resourceType"], resource["id"]
        same_type = self._stored.setdefault(kind, {})
        if identity in same_type:
            raise ValueError(f"two resources are {kind}/{identity}")
        same_type[identity] = resource
        if full_url is not None:
            self._full_urls[full_url] = f"{kind}/{identity}"

    def answer(
        self, method: str, path: str, query: str, body: bytes = b"", prefer: str = ""
    ) -> tuple[int, bytes]:
        """Status and JSON body for a path below the base; any error is an OperationOutcome.

        A search parameter that is not supported is refused, unless the header Prefer is lenient.
        """
        steps = [step for step in path.split("/") if step]
        asked = parse_qsl(query)
        is_lenient = "handling=lenient" in prefer.replace(" ", "").lower()
        if method in ("GET", "HEAD"):
            return self._get(steps, asked, is_lenient)
        if method == "POST" and steps[1:] == ["_search"]:
            form = parse_qsl(body.decode("utf-8", "replace"))
            named = {name for name, _ in form}
            merged = [pair for pair in asked if pair[0] not in named] + form
            return self._search(steps[0], merged, is_lenient)
        return _refusal(405, "not-supported", "This endpoint is read-only.")

    def _get(self, steps: list[str], asked: Pairs, is_lenient: bool) -> tuple[int, bytes]:
        match steps:
            case [] | ["metadata"]:
                return 200, _json(self._capabilities())
            case [kind]:
                return self._search(kind, asked, is_lenient)
            case [kind, identity] if identity in self._stored.get(kind, {}):
                return 200, _json(self._stored[kind][identity])
        return _refusal(404, "not-found", "No such resource.")

    def _search(self, kind: str, asked: Pairs, is_lenient: bool) -> tuple[int, bytes]:
        if kind not in self._stored:
            return _refusal(404, "not-supported", "No such resource type.")
        filters = _filters(kind)
        if refused := _unsupported(asked, filters, is_lenient) or _malformed(asked):
            return refused
        used = [(name, value) for name, value in asked if name in (*filters, *_CONTROLS)]
        tests = [(name, _options(value)) for name, value in used if name in filters]
        stored = self._stored[kind].values()
        matches = [x for x in stored if all(self._meets(x, *test) for test in tests)]
        keys = [key for name, value in used if name == "_sort" for key in value.split(",")]
        for key in reversed(keys):
            matches = _sorted(matches, key)
        return 200, _json(self._page(kind, matches, used))

    def _meets(self, resource: Resource, name: str, options: frozenset[str]) -> bool:
        if name == "_id":
            return resource["id"] in options
        if name in _SUBJECT:
            about = resource.get("subject") or resource.get("patient") or {}
            reference = about.get("reference")
            return reference is not None and self._local(reference) in map(self._local, options)
        if name in _SORTS:
            return any(_is_dated(resource, _SORTS[name], option) for option in options)
        values = [resource.get(element) for element in _ELEMENTS.get(name, (name,))]
        return any(_has_token(value, options) for value in values)

    def _local(self, reference: str) -> str:
        """A reference as Type/id when it names something stored here; a bare id is a patient's."""
        plain = reference.partition("/_history/")[0].removeprefix(self._base_url + "/")
        plain = self._full_urls.get(plain, plain)
        return plain if "/" in plain else f"Patient/{plain}"

    def _page(self, kind: str, matches: list[Resource], used: Pairs) -> Resource:
        controls, total = dict(used), len(matches)
        start = _whole(controls.get("_offset", ""), 0)
        size = min(_whole(controls.get("_count", ""), total), self._page_size or total)
        if controls.get("_summary") == "count":
            size = 0
        links = [{"relation": "self", "url": self._link(kind, used, start)}]
        if size > 0 and start + size < total:
            links.append({"relation": "next", "url": self._link(kind, used, start + size)})
        entries = [
            {"fullUrl": f"{self._base_url}/{kind}/{x['id']}", "resource": x, "search": _MATCH}
            for x in matches[start : start + size]
        ]
        page = {"resourceType": "Bundle", "type": "searchset", "total": total, "link": links}
        return {**page, "entry": entries} if entries else page  # FHIR knows no empty list

    def _link(self, kind: str, used: Pairs, start: int) -> str:
        pairs = [pair for pair in used if pair[0] != "_offset"]
        if start:
            pairs.append(("_offset", str(start)))
        query = urlencode(pairs, safe=",:/", errors="replace")
        return f"{self._base_url}/{kind}?{query}" if query else f"{self._base_url}/{kind}"

    def _capabilities(self) -> Resource:
        about = {"description": "Synthetic patients, read-only", "url": self._base_url}
        rest = {"mode": "server", "resource": [_declared(kind) for kind in self._stored]}
        return {
            **{"resourceType": "CapabilityStatement", "status": "active", "date": "2026-11-24"},
            **{"kind": "instance", "implementation": about, "fhirVersion": "4.0.1"},
            **{"format": ["json"], "rest": [rest]},
        }


def _filters(kind: str) -> tuple[str, ...]:
    """The parameters by which resources of a type are found."""
    dated = (_DATES[kind],) if kind in _DATES else ()
    return ("_id", *_PARAMETERS.get(kind, _SUBJECT), *dated)


def _unsupported(
    asked: Pairs, filters: tuple[str, ...], is_lenient: bool
) -> tuple[int, bytes] | None:
    """The refusal of the first parameter that the answer would leave out of account."""
    for name, _ in asked:
        plain, colon, _ = name.partition(":")
        # FHIR R4 lets a server ignore a parameter it does not know, but never a modifier.
        if colon and plain in filters:
            return _refusal(400, "not-supported", "Search modifiers are not supported.")
        if not is_lenient and name not in (*filters, *_CONTROLS, *_OF_FORM):
            known = ", ".join((*filters, *_CONTROLS))
            said = f"A search parameter is not supported here. There are {known}. "
            return _refusal(400, "not-supported", said + "Prefer: handling=lenient ignores others.")
    return None


def _malformed(asked: Pairs) -> tuple[int, bytes] | None:
    """The refusal of the first parameter whose value cannot be meant."""
    for name, value in asked:
        if name in ("_count", "_offset") and not (value.isdecimal() and value.isascii()):
            return _refusal(400, "invalid", f"{name} must be a whole number from 0 on.")
        if name == "_summary" and value not in _SUMMARIES:
            return _refusal(400, "invalid", f"_summary must be one of {', '.join(_SUMMARIES)}.")
        if name in _SORTS and not all(_interval(x) for x in value.split(",")):
            said = f"{name} must be a date, with eq, ne, gt, ge, lt, le, sa, eb or none before it."
            return _refusal(400, "invalid", said)
    return None


def _interval(text: str) -> tuple[str, int, int] | None:
    """The prefix of a date parameter, and the first and last day that it names."""
    found = _DATE.match(text)
    moment = parse_date(found[2]) if found else None
    return (found[1] or "eq", moment.first, moment.last) if found and moment else None


def _is_dated(resource: Resource, elements: tuple[str, ...], text: str) -> bool:
    """Whether a resource's days stand as asked to those of a date parameter (FHIR R4 3.1.1.4.7)."""
    asked, days = _interval(text), _days(resource, elements)
    if asked is None or days is None:
        return False
    prefix, first, last = asked
    return {
        "eq": first <= days[0] and days[1] <= last,
        "ne": days[0] < first or last < days[1],
        "gt": days[1] > last,
        "ge": days[1] >= first,
        "lt": days[0] < first,
        "le": days[0] <= last,
        "sa": days[0] > last,
        "eb": days[1] < first,
    }[prefix]


def _days(resource: Resource, elements: tuple[str, ...]) -> tuple[int, int] | None:
    """The first and last day of a resource; a period without an end goes on."""
    for element in elements:
        value = resource.get(element)
        if isinstance(value, str) and (moment := parse_date(value)):
            return moment.first, moment.last
        if isinstance(value, dict):
            start, end = (parse_date(value.get(x, "")) for x in ("start", "end"))
            return start.first if start else 0, end.last if end else _LATEST
    return None


def _declared(kind: str) -> Resource:
    types = {**dict.fromkeys(_SUBJECT, "reference"), **dict.fromkeys(_SORTS, "date")}
    parameters = [{"name": x, "type": types.get(x, "token")} for x in _filters(kind)]
    interactions = [{"code": "read"}, {"code": "search-type"}]
    return {"type": kind, "interaction": interactions, "searchParam": parameters}


def _options(value: str) -> frozenset[str]:
    """The values of a parameter, any of which will do."""
    return frozenset(x.replace("\\,", ",") for x in _UNESCAPED_COMMA.split(value))


def _has_token(value: Any, options: frozenset[str]) -> bool:
    """Whether a code or concept holds "code", "system|code", "|code" (no system) or "system|"."""
    if isinstance(value, str):
        return value in {option.rpartition("|")[2] for option in options}
    concepts = value if isinstance(value, list) else [value or {}]
    codings = [coding for concept in concepts for coding in concept.get("coding", [])]
    return any(not options.isdisjoint(_tokens(coding)) for coding in codings)


def _tokens(coding: Resource) -> Iterator[str]:
    """Every token that finds a coding."""
    system, code = coding.get("system", ""), coding.get("code")
    if code:
        yield from (code, f"{system}|{code}")
    if system:
        yield f"{system}|"


def _sorted(resources: list[Resource], key: str) -> list[Resource]:
    """In date order, undated ones last either way; an unknown key leaves the order as it is."""
    elements = _SORTS.get(key.removeprefix("-"), ())
    dated = [resource for resource in resources if _when(resource, elements)]
    undated = [resource for resource in resources if not _when(resource, elements)]
    dated.sort(key=lambda resource: _when(resource, elements), reverse=key.startswith("-"))
    return dated + undated


def _when(resource: Resource, elements: tuple[str, ...]) -> tuple[int, str] | tuple[()]:
    for element in elements:
        value = resource.get(element)
        if isinstance(value, dict):
            value = value.get("start") or value.get("end")
        if isinstance(value, str) and (moment := parse_date(value)):
            return moment.first, moment.clock
    return ()


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else otherwise


class Ordering(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    """Something ordered for a synthetic patient: the hook that fires, its draft orders, and the
    cards that are owed then.
    """

    says: str
    hook: str
    expect: tuple[str, ...]
    draft_orders: Resource

    @property
    def context(self) -> Resource:
        """What the hook's context has beside user and patient: every draft is selected."""
        drafts = [entry["resource"] for entry in self.draft_orders["entry"]]
        names = [f"{x['resourceType']}/{x['id']}" for x in drafts]
        selected = {"selections": names} if self.hook == "order-select" else {}
        return {"draftOrders": self.draft_orders, **selected}


class FixturePatient(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    """A synthetic patient on a day: chart, story, the cards ("topic indicator") it owes, and what
    is ordered; the lower the rank, the earlier it is shown.
    """

    as_of: date
    story: str
    expect: tuple[str, ...]
    bundle: Resource
    rank: int = 100
    orders: tuple[Ordering, ...] = ()

    @property
    def patient(self) -> Resource:
        """The Patient resource of the chart; empty when there is none."""
        resources = [entry["resource"] for entry in self.bundle.get("entry", [])]
        return next((x for x in resources if x["resourceType"] == "Patient"), {})


def load_patients(folder: Path, today: date) -> list[FixturePatient]:
    """The patients of a folder by file name, every date moved from the file's `asOf` to today."""
    return [_load_patient(path, today) for path in sorted(folder.glob("*.json"))]


def _load_patient(path: Path, today: date) -> FixturePatient:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=FixturePatient)
    except ValueError as error:
        raise ContentError(path.name, "", str(error)) from None
    days = (today - found.as_of).days
    orders = tuple(
        msgspec.structs.replace(x, draft_orders=moved(x.draft_orders, days)) for x in found.orders
    )
    bundle = moved(found.bundle, days)
    return msgspec.structs.replace(found, as_of=today, bundle=bundle, orders=orders)


def moved(value: Any, days: int, element: str = "") -> Any:
    """The JSON with each FHIR date moved; a partial date by its first day, and it stays partial."""
    if isinstance(value, dict):
        return {name: moved(item, days, name) for name, item in value.items()}
    if isinstance(value, list):
        return [moved(item, days, element) for item in value]
    if not isinstance(value, str) or not _DATED.fullmatch(element):
        return value
    moment = parse_date(value)
    return as_text(moment.first + days)[: len(value)] + value[10:] if moment else value


def _json(value: Resource) -> bytes:
    return json.dumps(value).encode("ascii")


def _refusal(status: int, code: str, text: str) -> tuple[int, bytes]:
    issue = {"severity": "error", "code": code, "diagnostics": text}
    return status, _json({"resourceType": "OperationOutcome", "issue": [issue]})

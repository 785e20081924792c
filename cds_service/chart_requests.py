"""A whole chart made into the request that fires a hook: what an EHR would send of it."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from msgspec import Raw

from cds_service.errors import BrokenRequest
from cds_service.fhir_endpoint import FixturePatient, Ordering
from cds_service.hook_request import ORDER_HOOKS
from cds_service.prefetch import KeyIndex
from cds_service.resources import Unread, read_resource

Json = dict[str, Any]

USER = "Practitioner/demo"
OTHERS = "others"  # no key of ours: what is under it is looked through all the same
_EMPTY: Json = {"resourceType": "Bundle", "type": "collection"}


def hook_request(
    patient_id: str, hook: str, drafted: Mapping[str, Any], fhir_server: str = ""
) -> Json:
    """A request without prefetch; `drafted` is what the context has beside user and patient."""
    request = {"hook": hook, "hookInstance": str(uuid4())}
    if fhir_server:
        request["fhirServer"] = fhir_server
    return {**request, "context": {"userId": USER, "patientId": patient_id, **drafted}}


def fixture_request(
    fixture: FixturePatient, hook: str, keys: KeyIndex, fhir_server: str = ""
) -> Json:
    """The request for a synthetic patient with the whole chart in its prefetch; a hook of orders
    that nothing is ordered at has no draft.
    """
    ordering = next((x for x in fixture.orders if x.hook == hook), None)
    drafted = ordering.context if ordering is not None else drafted_of([], hook)
    request = hook_request(fixture.patient["id"], hook, drafted, fhir_server)
    return {**request, "prefetch": prefetch_of(fixture.bundle, keys)}


def bundle_request(bundle: Json, hook: str, keys: KeyIndex, fhir_server: str = "") -> Json:
    """The request for a Bundle that is a whole chart, its drafts the draft orders; raises
    BrokenRequest when it holds no Patient with an id.
    """
    patients = [x["resource"] for x in entries_of(bundle) if _type(x) == "Patient"]
    ids = [x["id"] for x in patients if isinstance(x.get("id"), str) and x["id"]]
    if not ids:
        why = "entry has no Patient with an id" if patients else "entry has no Patient"
        raise BrokenRequest("The Bundle is not the chart of a patient.", why)
    drafts = [x for x in entries_of(bundle) if _type(x) and x["resource"].get("status") == "draft"]
    request = hook_request(ids[0], hook, drafted_of(drafts, hook), fhir_server)
    return {**request, "prefetch": prefetch_of(bundle, keys)}


def drafted_of(entries: list[Json], hook: str) -> Json:
    """What the context of a hook has beside user and patient, every draft selected; nothing where
    the hook is about no orders.
    """
    if hook not in ORDER_HOOKS:
        return {}
    drafts = {**_EMPTY, "entry": entries} if entries else _EMPTY
    named = [x["resource"] for x in entries if isinstance(x["resource"].get("id"), str)]
    owed = Ordering("", hook, (), {**drafts, "entry": [{"resource": x} for x in named]})
    return {**owed.context, "draftOrders": drafts}


def prefetch_of(bundle: Json, keys: KeyIndex) -> Json:
    """Every key with what its query would find in a whole chart, and the rest beside them."""
    found: dict[str, list[Json]] = {key.name: [] for key in keys.keys}
    others: list[Any] = []
    for entry in entries_of(bundle):
        names = _asking_for(entry.get("resource"), keys)
        for name in names:
            found[name].append(entry)
        if not names:
            others.append(entry)
    prefetch: Json = {}
    for key in keys.keys:
        held = found[key.name]
        if not key.is_read:
            prefetch[key.name] = _found(held)
        elif held:
            prefetch[key.name] = held[0]["resource"]
    return {**prefetch, OTHERS: _found(others)} if others else prefetch


def entries_of(bundle: Json) -> list[Json]:
    """The entries of a Bundle that are objects."""
    entries = bundle.get("entry")
    return [x for x in entries if isinstance(x, dict)] if isinstance(entries, list) else []


def _type(entry: Json) -> str:
    """The type of an entry's resource, "" for what is none."""
    resource = entry.get("resource")
    name = resource.get("resourceType") if isinstance(resource, dict) else None
    return name if isinstance(name, str) else ""


def _asking_for(resource: Any, keys: KeyIndex) -> frozenset[str]:
    try:
        read, _ = read_resource(Raw(json.dumps(resource).encode()))
    except Unread:
        return frozenset()
    return keys.asking_for(read)


def _found(entries: list[Json]) -> Json:
    bundle = {"resourceType": "Bundle", "type": "searchset"}
    return {**bundle, "entry": entries} if entries else {**bundle, "total": 0}

"""A call made into the file of a fixture patient, and such a file read again."""

import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import msgspec

from cds_service.chart_requests import entries_of
from cds_service.errors import BrokenRequest, NotJson
from cds_service.fhir_endpoint import FixturePatient, Ordering, moved
from cds_service.hook_request import ORDER_HOOKS

Json = dict[str, Any]
_COLLECTION: Json = {"resourceType": "Bundle", "type": "collection"}


def saved_fixture(request: Json, hook: str, as_of: str, story: str, expect: list[str]) -> Json:
    """The fixture of a request: the chart and, for a hook of orders, what is ordered. `expect` is
    what is owed at that hook; what the opened chart is owed is not known then, and is left empty.
    """
    chosen, beside = _drafts(request, hook)
    entries = [{"resource": x} for x in (*sent_resources(request, drafts=False), *beside)]
    bundle = {**_COLLECTION, "entry": entries}
    fixture: Json = {"asOf": as_of, "story": story, "expect": expect, "bundle": bundle}
    if hook not in ORDER_HOOKS:
        return fixture
    drafts = [{"resource": _with_id(x, n)} for n, x in enumerate(chosen, 1)]
    draft_orders = {**_COLLECTION, "entry": drafts}
    order = {"says": story, "hook": hook, "draftOrders": draft_orders, "expect": expect}
    return {**fixture, "expect": [], "orders": [order]}


def read_fixture(given: Json, today: int) -> FixturePatient:
    """A fixture that was saved, its dates moved to a day; raises BrokenRequest naming what is wrong
    with it, and NotJson when it is nested too deeply.
    """
    try:
        as_of = date.fromisoformat(given["asOf"])
        days = today - as_of.toordinal()
        bundle = moved(given["bundle"], days)
        orders = moved(given.get("orders", []), days)
    except (TypeError, ValueError, OverflowError):
        raise _unreadable("asOf must be a day") from None
    except RecursionError:
        raise NotJson("The fixture is nested too deeply.") from None
    try:
        ordered = msgspec.convert(orders, tuple[Ordering, ...])
    except msgspec.ValidationError as error:
        raise _unreadable(f"orders: {error}") from None
    for n, each in enumerate(ordered):
        _check(f"orders[{n}]", each)
    entries = entries_of(bundle) if isinstance(bundle, dict) else []
    chart = {**_COLLECTION, "entry": [x for x in entries if _is_resource(x)]}
    fixture = FixturePatient(as_of, "", (), chart, orders=ordered)
    identity = fixture.patient.get("id")
    if not isinstance(identity, str) or not identity:
        raise _unreadable("bundle has no Patient with an id")
    return fixture


def file_name(fixture: Json) -> str:
    """The name that such a file has: that of its patient."""
    ids = [x["id"] for x in patients_of(fixture["bundle"]) if isinstance(x.get("id"), str)]
    name = re.sub(r"[^A-Za-z0-9-]", "-", ids[0])[:64] if ids else "fixture"
    return f"{name}.json"


def _unreadable(why: str) -> BrokenRequest:
    return BrokenRequest("The fixture cannot be read.", why)


def _check(where: str, order: Ordering) -> None:
    if order.hook not in ORDER_HOOKS:
        raise _unreadable(f"{where}.hook must be one of {', '.join(ORDER_HOOKS)}")
    entries = order.draft_orders.get("entry")
    drafts = [x.get("resource") for x in entries_of(order.draft_orders)]
    is_whole = isinstance(entries, list) and len(entries) == len(drafts)
    for x in drafts:
        named = [x.get(y) for y in ("resourceType", "id")] if isinstance(x, dict) else [None]
        is_whole = is_whole and all(isinstance(y, str) for y in named)
    if not is_whole:
        raise _unreadable(f"{where}.draftOrders: each entry must have a resource with an id")


def _drafts(request: Json, hook: str) -> tuple[list[Json], list[Json]]:
    """The drafts that a call of a hook of orders is about, and those beside them."""
    context = request.get("context")
    if hook not in ORDER_HOOKS or not isinstance(context, dict):
        return [], []
    sent = context.get("draftOrders")
    entries = sent.get("entry") if isinstance(sent, dict) else None
    each = entries if isinstance(entries, list) else [entries]
    entry_list = [x for x in each if isinstance(x, dict)]
    drafts = [(x.get("fullUrl"), x["resource"]) for x in entry_list if _is_resource(x)]
    if hook != "order-select":
        return [x for _, x in drafts], []
    selections = context.get("selections")
    names = [x for x in selections if isinstance(x, str)] if isinstance(selections, list) else []
    wanted = {x.partition("/_history/")[0].rsplit("/", 1)[-1] for x in names}
    chosen = [x for url, x in drafts if _id_of(url, x) in wanted]
    return chosen, [x for _, x in drafts if x not in chosen]


def _is_resource(entry: Json) -> bool:
    resource = entry.get("resource")
    return isinstance(resource, dict) and isinstance(resource.get("resourceType"), str)


def _id_of(full_url: object, resource: Json) -> str | None:
    at = full_url.rsplit("/", 1)[-1].rsplit(":", 1)[-1] if isinstance(full_url, str) else None
    own = resource.get("id")
    return own if isinstance(own, str) and own else at


def _with_id(draft: Json, number: int) -> Json:
    """The draft with an id, as a file's drafts must have one."""
    return draft if isinstance(draft.get("id"), str) else {**draft, "id": f"draft-{number}"}


def sent_resources(request: Json, *, drafts: bool = True) -> Iterator[Json]:
    """The resources of a request, each once."""
    prefetch, context = request.get("prefetch"), request.get("context")
    values = [*prefetch.values()] if isinstance(prefetch, dict) else []
    if drafts and isinstance(context, dict):
        values.append(context.get("draftOrders"))
    seen: set[str] = set()
    for value in values:
        if not isinstance(value, dict):
            continue
        held = value.get("resourceType") == "Bundle"
        for x in [x.get("resource") for x in entries_of(value)] if held else [value]:
            if isinstance(x, dict) and (said := json.dumps(x, sort_keys=True)) not in seen:
                seen.add(said)
                yield x


def patients_of(bundle: Json) -> list[Json]:
    """The Patient resources of a Bundle."""
    found = [x.get("resource") for x in entries_of(bundle)]
    return [x for x in found if isinstance(x, dict) and x.get("resourceType") == "Patient"]

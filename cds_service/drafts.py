"""The draft orders in a hook's context: those that the call is about, and what was odd.

order-sign is about every draft, order-select about those selected; the others are background.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from cds_service.deliveries import deliver
from cds_service.errors import BrokenRequest
from cds_service.hook_request import HookContext, OrderSelectContext, OrderSignContext
from cds_service.resources import (
    MedicationRequest,
    Note,
    Resource,
    ServiceRequest,
    loads_leniently,
)

WHERE = "context.draftOrders"
ORDER_TYPES = (MedicationRequest, ServiceRequest)


class Drafts(Struct):
    """What a context drafts: `chosen` are the orders that the call is about, `beside` is all else
    of the Bundle that we read.
    """

    chosen: list[Resource] = msgspec.field(default_factory=list)
    beside: list[Resource] = msgspec.field(default_factory=list)
    notes: list[Note] = msgspec.field(default_factory=list)


def drafts_of(context: HookContext) -> Drafts | None:
    """The drafts of a context; None for a hook that has none. Raises BrokenRequest for draft orders
    that are no Bundle.
    """
    if not isinstance(context, OrderSelectContext | OrderSignContext):
        return None
    selections = context.selections or [] if isinstance(context, OrderSelectContext) else None
    if bytes(context.draft_orders) in (b"", b"null") and selections is not None:
        return Drafts(notes=[Note(WHERE, "not sent, and no selections either")])
    return _read(context.draft_orders, selections)


def _read(raw: Raw, selections: Sequence[str] | None) -> Drafts:
    _check_bundle(raw)
    delivery = deliver(raw, WHERE)
    drafts = Drafts(notes=delivery.notes)
    unread = sorted(delivery.unread.items())
    wanted = None if selections is None else [_last_parts(x) for x in selections]
    selected = frozenset(wanted or ())
    found: set[tuple[str, str | None]] = set()
    for full_url, resource in delivery.resources:
        resource.id = resource.id or _last_of(full_url)
        if not isinstance(resource, ORDER_TYPES):
            drafts.beside.append(resource)
            continue
        resource.status = resource.status or "draft"
        names = {(type(resource).__name__, resource.id), ("", resource.id)}
        if wanted is None or names & selected:
            found |= names
            drafts.chosen.append(resource)
        else:
            drafts.beside.append(resource)
    drafts.notes += [
        Note(WHERE, f"{count} of a type that is not read: {kind}") for kind, count in unread
    ]
    drafts.notes += [
        Note(f"context.selections[{n}]", "names no draft order that is read")
        for n, one in enumerate(wanted or ())
        if one not in found
    ]
    return drafts


def _last_of(full_url: str) -> str | None:
    """The id at the end of a URL or urn; None when there is none."""
    return full_url.rsplit("/", 1)[-1].rsplit(":", 1)[-1] or None


def _last_parts(selection: str) -> tuple[str, str | None]:
    """Type and id of a selection: relative, absolute or with a version; a bare id has no type."""
    *before, last = selection.partition("/_history/")[0].split("/")
    return (before[-1] if before else ""), last


def _check_bundle(raw: Raw) -> None:
    found = loads_leniently(raw)
    if not isinstance(found, dict) or found.get("resourceType") != "Bundle":
        raise BrokenRequest("The request breaks CDS Hooks.", f"{WHERE} must be a Bundle")
    if not isinstance(found.get("entry"), list | dict | None):
        raise BrokenRequest("The request breaks CDS Hooks.", f"{WHERE}.entry must be a list")

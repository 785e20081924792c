"""What a prefetch value or a fetched page holds: resources, messages, types we do not read,
and whether there is more.
"""

from collections import Counter
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from cds_service.resources import (
    AnyRead,
    Note,
    Resource,
    Unread,
    loads_leniently,
    mended,
    read_resource,
)

NO_RESOURCE = Raw(b"")
DEEPEST = 8  # Bundles around a Bundle that is read: each is gone through once more


class _Link(Struct):
    relation: str | None = None
    url: str | None = None


class _Links(Struct):
    link: list[_Link] = []


class _Search(Struct):
    mode: str | None = None


class _BundleEntry(Struct, rename="camel"):
    full_url: str | None = None
    resource: Raw = NO_RESOURCE
    search: _Search | None = None


class _Value(Struct, rename="camel"):
    resource_type: str | None = None
    entry: list[_BundleEntry] = []
    link: list[_Link] = []


class _PlainEntry(Struct, rename="camel", gc=False):
    resource: AnyRead
    full_url: str = ""
    search: _Search | None = None


class _PlainBundle(Struct, rename="camel"):
    """A Bundle of nothing but resources that we read, as nearly every one is."""

    resource_type: Literal["Bundle"]
    entry: list[_PlainEntry] = []
    link: list[_Link] = []


class _Issue(Struct):
    severity: str | None = None


class _Outcome(Struct):
    issue: list[_Issue] = []


_value = msgspec.json.Decoder(_Value)
_plain_bundle = msgspec.json.Decoder(_PlainBundle)
_outcome = msgspec.json.Decoder(_Outcome)
_ERRORS = frozenset({"error", "fatal"})


class Delivery(Struct):
    """What one prefetch value or fetched page held; `entries` counts what was meant as data,
    `refused` says that a server reported an error in place of some.
    """

    kind: Literal["nothing", "error", "resource", "bundle", "other"]
    resources: list[tuple[str, Resource]] = msgspec.field(default_factory=list)
    notes: list[Note] = msgspec.field(default_factory=list)
    more: bool = False
    unread: Counter[str] = msgspec.field(default_factory=Counter)
    entries: int = 0
    refused: bool = False


def deliver(raw: Raw | bytes, where: str, depth: int = 0) -> Delivery:
    """Everything a value holds, Bundles in Bundles included; entries that are no data are noted.

    `depth` is how many Bundles it is in.
    """
    if bytes(raw) == b"null":
        return Delivery("nothing")
    try:
        plain = _plain_bundle.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _take_apart(raw, where, depth)
    if any(x.search is not None and x.search.mode == "outcome" for x in plain.entry):
        return _take_apart(raw, where, depth)
    return Delivery(
        "bundle",
        resources=[(x.full_url, x.resource) for x in plain.entry],
        more=_has_next(plain.link),
        entries=len(plain.entry),
    )


def _take_apart(raw: Raw | bytes, where: str, depth: int) -> Delivery:
    """A value read entry by entry, so that an odd one costs no other."""
    try:
        value = _value.decode(raw)
    except (msgspec.ValidationError, UnicodeDecodeError):
        found = loads_leniently(raw)
        if not isinstance(found, dict):
            return Delivery("other")
        return _deliver_mended(found, where, depth)
    return _unpack(raw, value, where, depth)


def _deliver_mended(found: dict[str, object], where: str, depth: int) -> Delivery:
    entries = found.get("entry")
    if isinstance(entries, dict):
        entries = [entries]
    kept = [x for x in entries if isinstance(x, dict)] if isinstance(entries, list) else []
    value = _Value(
        resource_type=x if isinstance(x := found.get("resourceType"), str) else None,
        entry=[
            _BundleEntry(
                full_url=x if isinstance(x := one.get("fullUrl"), str) else None,
                resource=Raw(msgspec.json.encode(one["resource"]))
                if "resource" in one
                else NO_RESOURCE,
            )
            for one in kept
        ],
        link=mended(found, _Links)[0].link,
    )
    delivery = _unpack(msgspec.json.encode(found), value, where, depth)
    delivery.notes.insert(0, Note(where, "odd Bundle, read entry by entry"))
    delivery.entries += (len(entries) if isinstance(entries, list) else bool(entries)) - len(kept)
    return delivery


def _unpack(raw: Raw | bytes, value: _Value, where: str, depth: int) -> Delivery:
    if value.resource_type == "OperationOutcome":
        return Delivery("error")
    if value.resource_type != "Bundle":
        delivery = Delivery("resource")
        _take(raw, "", where, delivery, depth)
        if not delivery.resources:
            delivery.kind = "other"
        return delivery
    delivery = Delivery("bundle")
    delivery.more = _has_next(value.link)
    for n, entry in enumerate(value.entry):
        if not bytes(entry.resource):
            delivery.entries += 1
            delivery.notes.append(Note(f"{where}.entry[{n}]", "no resource"))
        elif entry.search is not None and entry.search.mode == "outcome":
            _take_message(entry.resource, f"{where}.entry[{n}]", delivery)
        else:
            _take(entry.resource, entry.full_url or "", f"{where}.entry[{n}]", delivery, depth)
    return delivery


def _has_next(links: list[_Link]) -> bool:
    return any(x.relation == "next" for x in links)


def _take(raw: Raw | bytes, full_url: str, where: str, delivery: Delivery, depth: int) -> None:
    unread = ""
    try:
        resource, notes = read_resource(raw)
    except Unread as found:
        unread = found.type
        resource = None
    if resource is None:  # here, since an exception that is handled keeps all that was read
        _take_unread(unread, raw, where, delivery, depth)
        return
    delivery.notes += [Note(f"{where}: {note.where}", note.why) for note in notes]
    delivery.resources.append((full_url, resource))
    delivery.entries += 1


def _take_unread(
    resource_type: str, raw: Raw | bytes, where: str, delivery: Delivery, depth: int
) -> None:
    if resource_type == "Bundle" and depth >= DEEPEST:
        delivery.notes.append(Note(where, "in too many Bundles, not read"))
        delivery.entries += 1
    elif resource_type == "Bundle":
        inner = deliver(raw, where, depth + 1)
        delivery.resources += inner.resources
        delivery.notes += inner.notes
        delivery.unread.update(inner.unread)
        delivery.more = delivery.more or inner.more
        delivery.entries += inner.entries
        delivery.refused = delivery.refused or inner.refused
    elif resource_type == "OperationOutcome":
        _take_message(raw, where, delivery)
    elif resource_type.isalpha() and len(resource_type) <= 64:
        delivery.unread[resource_type] += 1
        delivery.entries += 1
    else:
        delivery.notes.append(Note(where, "not a resource with a type"))
        delivery.entries += 1


def _take_message(raw: Raw | bytes, where: str, delivery: Delivery) -> None:
    """A message of the server beside the data: "nothing found" is no error."""
    delivery.notes.append(Note(where, "a message of the server, not data"))
    try:
        issues = _outcome.decode(raw).issue
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    delivery.refused = delivery.refused or any(x.severity in _ERRORS for x in issues)
